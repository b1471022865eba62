"""Threads share a runner: every call gets its own answer, and closing waits for the calls that run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from lxmert_export.errors import ArtifactError
from lxmert_export.reference.torch_runner import TorchRunner
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, inputs_for, lively_inputs, lively_model
from parity_tests.judging.test_runners import WRITERS, written
from parity_tests.judging.test_runners import opened as open_written

TASK = "question-answering"
THREADS, CALLS = 4, 60
KINDS = [*WRITERS, "torch"]


def opened(kind: str, exports: Exports) -> Runner:
    if kind == "torch":
        module, signature = lively_model(TASK, TINY), task_signature(TINY, TASK)
        return TorchRunner(module, signature, InputLimits.of(TINY), "fp32")
    return open_written(kind, written(kind, exports))


def calls_of_several_shapes() -> list[dict[str, Any]]:
    """Two calls of each of four shapes."""
    calls = []
    for seed in range(8):
        rows, words, objects = ((1, 5, 3), (2, 5, 3), (1, 7, 2), (3, 4, 5))[seed % 4]
        tensors = lively_inputs(TINY, seed=seed)
        calls.append(
            {
                name: tensor.numpy()[:rows, : objects if name.startswith("visual") else words]
                for name, tensor in tensors.items()
            }
        )
    return calls


@pytest.mark.parametrize("kind", KINDS)
def test_every_thread_gets_its_own_answer(kind: str, exports: Exports) -> None:
    calls = calls_of_several_shapes()
    with opened(kind, exports) as runner, ThreadPoolExecutor(THREADS) as threads:
        alone = [runner.run(call)["question_answering_score"] for call in calls]
        order = np.random.default_rng(0).integers(len(calls), size=CALLS)
        answers = list(threads.map(lambda number: runner.run(calls[number])["question_answering_score"], order))
    assert not np.array_equal(alone[0], alone[4])  # the same shape, other inputs
    wrong = [
        number
        for number, answer in zip(order, answers, strict=True)
        if answer.shape != alone[number].shape or not np.allclose(answer, alone[number], rtol=0, atol=1e-5)
    ]
    assert wrong == []


class Slow(Runner):
    """Counts the calls that are in the runtime at the same time, and notices one that comes after its release."""

    running = most = 0
    released = used_after = False

    def compute(self, inputs: Arrays) -> Arrays:
        type(self).running += 1
        type(self).most = max(self.most, self.running)
        time.sleep(0.02)
        type(self).used_after |= self.released
        type(self).running -= 1
        return {}

    def release(self) -> None:
        self.released = True


def slow(*, in_parallel: bool) -> Slow:
    kind: Callable[..., Slow] = type("Kind", (Slow,), {"parallel": in_parallel})
    return kind("it", task_signature(TINY, TASK), InputLimits.of(TINY))


@pytest.mark.parametrize("in_parallel", [False, True])
def test_a_runtime_that_is_not_safe_gets_one_call_at_a_time(in_parallel: bool) -> None:
    inputs = {name: tensor.numpy() for name, tensor in inputs_for(TASK).items()}
    runner = slow(in_parallel=in_parallel)
    together = threading.Barrier(THREADS)

    def call() -> None:
        together.wait()
        runner.run(inputs)

    threads = [threading.Thread(target=call) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (runner.most > 1) == in_parallel


@pytest.mark.parametrize("in_parallel", [False, True])
def test_closing_waits_for_the_calls_that_run_and_admits_no_other(in_parallel: bool) -> None:
    inputs = {name: tensor.numpy() for name, tensor in inputs_for(TASK).items()}
    runner = slow(in_parallel=in_parallel)
    with ThreadPoolExecutor(THREADS) as threads:
        calls = [threads.submit(runner.run, inputs) for _ in range(40)]
        while not runner.running:
            time.sleep(0.001)
        runner.close()
        assert runner.running == 0 and runner.released and not runner.used_after
        refused = [call for call in calls if call.exception()]
    assert 0 < len(refused) < len(calls)
    assert all(isinstance(call.exception(), ArtifactError) for call in refused)
    with pytest.raises(ArtifactError, match="this runner is closed"):
        runner.run(inputs)
