"""Has all contestants answer a workload, batch by batch in turn, and makes the figures: questions a second, padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact.manifest import Manifest
from lxmert_export.benching.agreement import Agreement, agreement_of
from lxmert_export.benching.contestants import Contestant
from lxmert_export.benching.figures import Interval, interval_of, speed_of
from lxmert_export.benching.turns import Call, Turn, take_turns
from lxmert_export.benching.workers import Worker
from lxmert_export.benching.workload import (
    ImageBatch,
    Questions,
    Workload,
    image_batches,
    padded_batches,
    unique_shapes,
)
from lxmert_export.progress import Progress, silent
from lxmert_export.runners.batches import MULTIPLE, Batch, sorted_batches
from lxmert_export.spec.halves import Halves
from lxmert_export.spec.inputs import Arrays

if TYPE_CHECKING:
    from typing_extensions import Self

STEP = "the workload"


@dataclass(frozen=True)
class Plan:
    """How a contestant takes the questions: its calls, and the same in words.

    ``images``, ``halves``: of a split artifact, the calls of the vision half, which come first.
    """

    batches: list[Batch]
    words: str
    images: list[ImageBatch] = field(default_factory=list)
    halves: Halves | None = None

    @property
    def calls(self) -> int:
        """The number of calls of one pass."""
        return len(self.images) + len(self.batches)


@dataclass(frozen=True)
class WorkloadResult:
    """One contestant's workload.

    | field | meaning |
    |---|---|
    | ``plan`` | how its batches are made, in words |
    | ``calls``, ``padded_tokens`` | of one pass over all questions |
    | ``pass_seconds`` | the calls of each pass, added up |
    | ``questions_a_second`` | the median of the passes, with its interval |
    | ``speed`` | times as fast as the baseline, pass by pass |
    """

    name: str
    plan: str
    calls: int
    padded_tokens: int
    pass_seconds: tuple[float, ...]
    questions_a_second: Interval
    speed: Interval
    agreement: Agreement

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return {
            "contestant": self.name,
            "plan": self.plan,
            "calls": self.calls,
            "padded_tokens": self.padded_tokens,
            "pass_seconds": list(self.pass_seconds),
            "questions_a_second": asdict(self.questions_a_second),
            "speed": asdict(self.speed),
            "agreement": {**asdict(self.agreement), "agrees": self.agreement.agrees},
        }


@dataclass(frozen=True)
class WorkloadRun:
    """The workload of a report: what it is, the baseline's name, and each contestant's result."""

    workload: Workload
    baseline: str
    results: tuple[WorkloadResult, ...]

    @classmethod
    def of(
        cls,
        workload: Workload,
        contestants: Mapping[str, Contestant],
        plans: Mapping[str, Plan],
        calls: Mapping[str, list[list[Call]]],
        answers: Mapping[str, Arrays],
    ) -> Self:
        """Makes the figures of each contestant's passes; the baseline is the first one that pads all, or else the first."""
        seconds = {name: [sum(call.seconds for call in one) for one in passes] for name, passes in calls.items()}
        first = next(iter(contestants.values()))
        baseline = next((name for name, one in contestants.items() if one.pads_to is not None), first.name)
        results = tuple(
            WorkloadResult(
                name, plans[name].words, plans[name].calls, sum(b.padded_tokens for b in plans[name].batches),
                tuple(seconds[name]), interval_of([workload.questions / one for one in seconds[name]]),
                speed_of(seconds[baseline], seconds[name]),
                agreement_of(answers[first.name], answers[name], (first.precision, one.precision)),
            )
            for name, one in contestants.items()
        )  # fmt: skip
        return cls(workload, baseline, results)

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        lengths = self.workload.question_lengths
        return {
            "seed": self.workload.seed,
            "questions": self.workload.questions,
            "images": self.workload.images,
            "objects": self.workload.objects,
            "tokens": int(lengths.sum()),
            "baseline": self.baseline,
            "results": [result.to_dict() for result in self.results],
        }


def plan_of(contestant: Contestant, workload: Workload, batch: int, positions: int) -> Plan:
    """Returns how a contestant takes the questions: sorted by length, or all padded as the usual loop does."""
    lengths = workload.question_lengths
    if contestant.pads_to is not None:
        rows, tokens = workload.baseline_batch, workload.baseline_tokens
        return Plan(padded_batches(lengths, rows, tokens), f"batches of {rows}, padded to {tokens} tokens")
    artifact = contestant.artifact
    fixed = {} if artifact is None else artifact.manifest.signature.fixed_sizes
    padded = f"padded to {fixed['text']} tokens" if "text" in fixed else f"padded to a multiple of {MULTIPLE}"
    words = f"batches of {fixed.get('batch', batch)}, sorted by length, {padded}"
    batches = sorted_batches(lengths, batch, fixed, positions)
    if artifact is None or artifact.halves is None:
        return Plan(batches, words)
    images = image_batches(workload.images, batch, fixed)
    return Plan(batches, f"{workload.images} images first, then {words}", images, artifact.halves)


def run_workload(
    workload: Workload,
    contestants: Mapping[str, Contestant],
    workers: Mapping[str, Worker],
    manifest: Manifest,
    *,
    batch: int,
    passes: int,
    rest: Callable[[], None],
    guarded: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext(),
    progress: Progress = silent,
) -> WorkloadRun:
    """Has all contestants answer all questions some times, one call at a time in turn, after a call of each shape.

    ``guarded``: (name) → a block around those first calls, which may take a contestant out of ``workers``.
    """
    questions = Questions(workload, manifest)
    positions = manifest.config.max_position_embeddings
    plans = {name: plan_of(one, workload, batch, positions) for name, one in contestants.items()}
    for name, plan in plans.items():
        with guarded(name):
            for turn in Pass(workers[name], questions, plan).turns(unique_shapes(plan.batches)):
                turn.get_ready()
                turn.call()
    contestants = {name: one for name, one in contestants.items() if name in workers}
    plans = {name: plans[name] for name in contestants}
    answers = {name: Answers(workload.questions) for name in contestants}
    turns = {
        name: [
            turn
            for number in range(passes)
            for turn in Pass(workers[name], questions, plan, answers[name] if number == 0 else None).turns(plan.batches)
        ]
        for name, plan in plans.items()
    }
    done, rounds = 0, max(map(len, turns.values()))

    def advance() -> None:
        nonlocal done
        done += 1
        progress(STEP, done, rounds)

    progress(STEP, 0, rounds)
    calls = take_turns(turns, rest, advance)
    by_pass = {name: _in_passes(calls[name], passes) for name in contestants}
    return WorkloadRun.of(workload, contestants, plans, by_pass, {name: one.arrays for name, one in answers.items()})


class Pass:
    """One pass of a contestant over all questions; of a split artifact, over all images first. ``answers`` keeps its answers."""

    def __init__(self, worker: Worker, questions: Questions, plan: Plan, answers: Answers | None = None) -> None:
        self._worker, self._questions, self._plan, self._answers = worker, questions, plan, answers
        self._states: list[NDArray[np.generic]] = []  # of each call of the vision half

    def turns(self, batches: Sequence[Batch]) -> list[Turn]:
        """Returns its turns: all images, and then some batches of questions."""
        return [*map(self._image_turn, self._plan.images), *map(self._question_turn, batches)]

    def _image_turn(self, batch: ImageBatch) -> Turn:
        assert self._plan.halves is not None, "only the plan of a split artifact has images"
        halves = self._plan.halves

        def call() -> Call:
            called = self._worker.call()
            states = self._worker.outputs()[halves.states.name]
            each = len(states) // (len(batch.images) + batch.filled)
            self._states.append(states[: each * len(batch.images)])
            return called

        return Turn(call, lambda: self._worker.load(self._questions.images(batch, halves), "vision"))

    def _question_turn(self, batch: Batch) -> Turn:
        halves = self._plan.halves

        def get_ready() -> None:
            if halves is None:
                self._worker.load(self._questions.inputs(batch))
            else:
                self._worker.load(self._questions.asked(batch, halves, np.concatenate(self._states)), "question")

        def call() -> Call:
            called = self._worker.call()
            if self._answers is not None:
                self._answers.keep(batch, self._worker.outputs())
            return called

        return Turn(call, get_ready)


def _in_passes(calls: list[Call], passes: int) -> list[list[Call]]:
    each = len(calls) // passes
    return [calls[number * each : (number + 1) * each] for number in range(passes)]


class Answers:
    """The answers to all questions, in the order of the questions: the outputs that have one row a question, and no words."""

    def __init__(self, questions: int) -> None:
        self._questions, self.arrays = questions, Arrays()

    def keep(self, batch: Batch, outputs: Arrays) -> None:
        """Keeps the answers of a call, without those of filled rows."""
        asked = len(batch.questions)
        for name, output in outputs.items():
            if output.ndim != 2 or output.shape[0] != batch.shape[0]:
                continue  # by words or objects, of which each call has another number
            if name not in self.arrays:
                self.arrays[name] = np.full((self._questions, output.shape[1]), np.nan, output.dtype)
            self.arrays[name][list(batch.questions)] = output[:asked]
