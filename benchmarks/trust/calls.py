"""Calls each runtime from several threads, and with changing shapes: every answer is right, and memory stays flat.

Each runtime has a process of its own: python -m benchmarks.trust.calls threads|shapes RUNTIME ARTIFACT CALLS
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays

if TYPE_CHECKING:
    from benchmarks.trust.samples import Samples

ROOT = Path(__file__).parent.parent.parent
# The sample of each runtime. TensorRT itself needs a GPU: its runner is called with a stand-in, which notices overlaps.
OPENVINO, STAND_IN = "OpenVINO", "TensorRT (stand-in)"
RUNTIMES: Mapping[str, str] = {
    "onnxruntime": "onnx", OPENVINO: "onnx", "emulator": "bf16", "SavedModel": "saved-model", "Keras": "keras",
    "TFLite": "tflite", STAND_IN: "onnx",
}  # fmt: skip
# With oneDNN TensorFlow keeps something of each shape; without it, it would grow only if something were traced again.
OF_TENSORFLOW, PLAIN, WITHOUT_ONEDNN = ("SavedModel", "Keras"), "without oneDNN", {"TF_ENABLE_ONEDNN_OPTS": "0"}
THREADS, THREADED_CALLS = 4, 10_000
SHAPED_CALLS, NOTED = 2000, 10  # memory is noted so many times
MOST_GROWTH = 4.0  # MiB, over the second half of the calls
LARGEST_BATCH, LONGEST_TEXT, MOST_OBJECTS = 8, 16, 36
TOLERANCE = 1e-5  # a batch of one row may be computed by another kernel than the same row in a larger batch


def threads(samples: Samples, *, calls: int = THREADED_CALLS) -> dict[str, Any]:
    """Calls every runtime from several threads."""
    return {"runtimes": {name: apart("threads", name, samples, calls) for name in RUNTIMES}}


def shapes(samples: Samples, *, calls: int = SHAPED_CALLS) -> dict[str, Any]:
    """Calls every runtime with changing shapes; TensorFlow also without the library that keeps something of each shape."""
    found = {name: apart("shapes", name, samples, calls) for name in RUNTIMES if name != STAND_IN}
    for name in OF_TENSORFLOW:
        found[f"{name}, {PLAIN}"] = apart("shapes", name, samples, calls, **WITHOUT_ONEDNN)
    return {"runtimes": found}


def apart(trial: str, runtime: str, samples: Samples, calls: int, **environment: str) -> dict[str, Any]:
    """Runs one trial of one runtime in a process of its own."""
    artifact = samples.directory(RUNTIMES[runtime])
    variables = {**os.environ, **environment}
    command = [sys.executable, "-m", "benchmarks.trust.calls", trial, runtime, str(artifact.absolute()), str(calls)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        raise RuntimeError(f"{trial} of {runtime} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def opened(runtime: str, artifact: Path) -> Iterator[Runner]:
    """Opens the runner of a runtime."""
    from lxmert_export.api.artifact import load_artifact
    from lxmert_export.artifact.directory import open_artifact
    from lxmert_export.runners.opening import open_emulator

    if runtime == STAND_IN:
        from parity_tests.engines.stand_in_library import opened as open_stand_in
        from parity_tests.engines.stand_in_library import stand_in

        with tempfile.TemporaryDirectory() as place, stand_in(Path(place)), open_stand_in(Path(place)) as runner:
            yield runner
        return
    chosen = "openvino" if runtime == OPENVINO else None
    emulated = runtime == "emulator"
    with open_emulator(open_artifact(artifact)) if emulated else load_artifact(artifact, runtime=chosen) as runner:
        yield runner


def drawn(runner: Runner, generator: np.random.Generator) -> Arrays:
    """Draws inputs of a random batch, text length and number of objects."""
    limits = runner.limits
    sizes = {
        "batch": int(generator.integers(1, LARGEST_BATCH + 1)),
        "text": int(generator.integers(2, min(LONGEST_TEXT, limits.positions) + 1)),
        "objects": int(generator.integers(1, MOST_OBJECTS + 1)),
    }
    found: Arrays = {}
    for spec in runner.signature.inputs:
        shape = tuple(axis if isinstance(axis, int) else sizes[axis] for axis in spec.axes)
        if spec.name == "input_ids":
            found[spec.name] = generator.integers(1, limits.vocabulary, shape)
        elif spec.name in ("visual_feats", "visual_pos"):
            found[spec.name] = generator.random(shape, np.float32)
    return found


def run_threads(runner: Runner, calls: int) -> dict[str, Any]:
    """Compares the answers to threads with those to the same inputs one at a time."""
    generator = np.random.default_rng(0)
    inputs = [drawn(runner, generator) for _ in range(16)]
    alone = [runner.run(one) for one in inputs]
    order = generator.integers(len(inputs), size=calls)
    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        wrong = sum(pool.map(lambda number: not _same(runner.run(inputs[number]), alone[number]), order))
    return {"calls": calls, "wrong": wrong, "threads": THREADS, "seconds": time.perf_counter() - began}


def run_shapes(runner: Runner, calls: int) -> dict[str, Any]:
    """Notes the memory of this process while shapes change from call to call."""
    generator = np.random.default_rng(0)
    memory, seen, began = [], set(), time.perf_counter()
    for number in range(calls):
        inputs = drawn(runner, generator)
        seen.add(tuple(array.shape for array in inputs.values()))
        runner.run(inputs)
        if (number + 1) % max(1, calls // NOTED) == 0:
            memory.append(round(resident_mib(), 2))
    growth = round(memory[-1] - memory[len(memory) // 2 - 1], 2)
    return {
        "calls": calls, "shapes": len(seen), "memory_mib": memory, "growth_mib": growth,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


def resident_mib() -> float:
    """Returns the memory that this process holds, as Linux counts it."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def _same(found: Arrays, expected: Arrays) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].shape == expected[name].shape and np.allclose(found[name], expected[name], rtol=0, atol=TOLERANCE)
        for name in expected
    )


def main() -> None:
    """Prints what came of one trial of one runtime."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trial", choices=("threads", "shapes"))
    parser.add_argument("runtime", choices=RUNTIMES)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("calls", type=int)
    chosen = parser.parse_args()
    with opened(chosen.runtime, chosen.artifact) as runner:
        run = run_threads if chosen.trial == "threads" else run_shapes
        print(json.dumps(run(runner, chosen.calls)), flush=True)


if __name__ == "__main__":
    main()
