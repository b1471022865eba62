"""Runs a bench: starts every contestant, checks that all answer the same, calls them in turn, and makes the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lxmert_export.artifact.manifest import Manifest
from lxmert_export.benching.agreement import Agreement, agreement_of
from lxmert_export.benching.contestants import Contestant
from lxmert_export.benching.counting import operations_of
from lxmert_export.benching.machine import machine_facts
from lxmert_export.benching.matmul import NAME as MATMUL
from lxmert_export.benching.matmul import OpensMatmul, matmul_inputs
from lxmert_export.benching.report import BenchReport, Entrant, MatmulRate, Result
from lxmert_export.benching.settings import Setting
from lxmert_export.benching.turns import Call, Turn, take_turns
from lxmert_export.benching.workers import Worker
from lxmert_export.benching.workload import Workload
from lxmert_export.benching.workload_run import run_workload
from lxmert_export.errors import LxmertExportError
from lxmert_export.progress import Progress, silent
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.sample_inputs import FamilyKind, draw_batch


@dataclass(frozen=True)
class Method:
    """How a bench measures.

    | field | meaning |
    |---|---|
    | ``rounds``, ``warm_up`` | timed calls of each contestant at each setting, and calls before them |
    | ``rest`` | seconds before each timed call |
    | ``threads`` | of every contestant |
    | ``time_limit`` | seconds for one answer of a contestant |
    | ``workload_batch``, ``passes`` | in a workload: rows of a call, and how often all questions are answered |
    """

    rounds: int
    warm_up: int
    rest: float
    threads: int
    time_limit: float
    workload_batch: int = 32
    passes: int = 3

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return dict(vars(self))


@dataclass
class Crew:
    """The processes of all contestants, by name in their order, and that of the matrix product.

    ``contestants``: those that take part; ``notes``: why another program does not.
    """

    contestants: list[Contestant]
    workers: dict[str, Worker] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def without_failing_peers(self, name: str) -> Iterator[None]:
        """Lets a peer go that fails in this block, with a note: the others are measured. Other errors are raised."""
        try:
            yield
        except LxmertExportError as error:
            if not any(one.name == name and one.kind == "peer" for one in self.contestants):
                raise
            self.contestants = [one for one in self.contestants if one.name != name]
            self.notes.append(f"{name}: not run: {str(error).removeprefix(f'{name}: ')}")
            if (worker := self.workers.pop(name, None)) is not None:
                worker.close()

    def note_peaks(self) -> None:
        """Keeps each process's peak memory so far."""
        self.peaks = {name: worker.peak_bytes() for name, worker in self.workers.items()}


def run_bench(
    contestants: Sequence[Contestant],
    settings: Sequence[Setting],
    manifest: Manifest,
    method: Method,
    progress: Progress = silent,
    *,
    notes: Sequence[str] = (),
    workload: Workload | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> BenchReport:
    """Measures all contestants at all settings; ``manifest`` says of which inputs. ``sleep`` is called with each rest."""
    with started(contestants, method, progress) as crew:
        results: list[Result] = []
        rates: list[MatmulRate] = []
        for setting in settings:
            found, rate = _at_setting(crew, setting, manifest, method, progress, sleep)
            results += found
            rates.append(rate)
        answered = None
        if workload is not None:
            answered = run_workload(
                workload, {one.name: one for one in crew.contestants}, crew.workers, manifest, batch=method.workload_batch,
                passes=method.passes, rest=lambda: sleep(method.rest), guarded=crew.without_failing_peers,
                progress=progress,
            )  # fmt: skip
        crew.note_peaks()
        entrants = tuple(
            Entrant(one.to_dict(), crew.workers[one.name].startup_seconds, crew.peaks[one.name])
            for one in crew.contestants
        )
    return BenchReport(
        machine=machine_facts(),
        method=method.to_dict(),
        task=str(manifest.task),
        entrants=entrants,
        results=tuple(result for result in results if result.name in crew.workers),
        matmul=tuple(rates),
        workload=answered,
        notes=(*notes, *crew.notes),
    )


@contextmanager
def started(contestants: Sequence[Contestant], method: Method, progress: Progress = silent) -> Iterator[Crew]:
    """Starts the processes one after the other, so that none slows the start of another, and ends them all."""
    with ExitStack() as stack:
        crew = Crew(list(contestants))
        opened = {MATMUL: OpensMatmul(), **{one.name: one.opens for one in contestants}}
        for number, (name, opens) in enumerate(opened.items()):
            progress("starting", number, len(opened))
            with crew.without_failing_peers(name):
                worker = Worker(name, opens, threads=method.threads, time_limit=method.time_limit)
                crew.workers[name] = stack.enter_context(worker)
        progress("starting", len(opened), len(opened))
        yield crew


def inputs_of(manifest: Manifest, setting: Setting) -> Arrays:
    """Draws the inputs of a setting, the same in every run: nothing is masked."""
    generator = np.random.default_rng(list(setting.sizes.values()))
    return draw_batch(
        FamilyKind(token_types=False), manifest.signature.in_float32().of_any_batch(), manifest.config, setting.sizes,
        generator,
    )  # fmt: skip


def _at_setting(
    crew: Crew,
    setting: Setting,
    manifest: Manifest,
    method: Method,
    progress: Progress,
    sleep: Callable[[float], None],
) -> tuple[list[Result], MatmulRate]:
    """Warms all contestants up, compares their answers, and calls them in turn."""
    warmed = _warm_up(crew, inputs_of(manifest, setting), method.warm_up)
    agreements = _agreements(crew)
    step, done = str(setting), 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(step, done, method.rounds)

    progress(step, 0, method.rounds)
    turns = {name: [Turn(worker.call)] * method.rounds for name, worker in crew.workers.items()}
    calls = take_turns(turns, lambda: sleep(method.rest), advance)
    rate = MatmulRate.of(setting, [call.seconds for call in calls[MATMUL]])
    first = [call.seconds for call in calls[crew.contestants[0].name]]
    results = [
        Result.of(
            setting, one.name, calls[one.name], first, agreements[one.name], first_call=warmed[one.name].seconds,
            operations=operations_of(one, manifest, setting), rate=rate,
        )
        for one in crew.contestants
    ]  # fmt: skip
    return results, rate


def _warm_up(crew: Crew, inputs: Arrays, times: int) -> Mapping[str, Call]:
    """Loads the inputs of a setting and calls each contestant some times; returns each one's first call."""
    first: dict[str, Call] = {}
    for name, worker in list(crew.workers.items()):
        with crew.without_failing_peers(name):
            worker.load(matmul_inputs() if name == MATMUL else inputs)
            first[name] = worker.call()
            for _ in range(times - 1):
                worker.call()
    return first


def _agreements(crew: Crew) -> dict[str, Agreement]:
    """Compares the last outputs of each contestant with the first one's."""
    first, *_ = crew.contestants
    reference = crew.workers[first.name].outputs()
    return {
        one.name: agreement_of(reference, crew.workers[one.name].outputs(), (first.precision, one.precision))
        for one in crew.contestants
    }
