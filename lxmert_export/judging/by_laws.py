"""Judges artifacts by the laws. This needs no checkpoint, no golden file and no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact.directory import GOLDEN_FILE, Artifact
from lxmert_export.artifact.golden import read_golden
from lxmert_export.parity.cells import Cell, Floors
from lxmert_export.parity.law_scores import DRAWS, Examined, judge_trial, law_floors
from lxmert_export.parity.law_slice import TOGETHER, repeated_cells, slice_subject, sliced_cells
from lxmert_export.parity.laws import THREADS, NotRun, Subject, Trial, draw_subject, make_trials, on_threads
from lxmert_export.parity.recording import Arithmetic, Recording, Run
from lxmert_export.parity.report import LawNotRun
from lxmert_export.progress import Progress, counted, silent
from lxmert_export.runners.opening import judged_ways
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.sample_inputs import SampleInputs

THREAD_COUNTS = (1, 4)  # tried besides the runtime's default
ALL = "all"


def judge_laws(
    artifact: Artifact, providers: Sequence[str], progress: Progress = silent
) -> tuple[list[Cell], list[NotRun]]:
    """Returns the laws' cells of an artifact, and the variations that were not tried.

    A half-precision graph is emulated if no provider computes in its precision: a CPU that computes in float32 shows nothing
    about half precision. ``ArtifactError``: the artifact cannot be run here at all.
    """
    manifest = artifact.manifest
    subject = draw_subject(manifest.signature, manifest.config)
    made = list(make_trials(subject, apart=_why_no_laws(artifact)))
    not_run = [trial for trial in made if isinstance(trial, NotRun)]
    cells: list[Cell] = []
    ways = _proving_ways(artifact, providers)
    emulator = artifact.target.emulator
    if any(arithmetic == "emulated" for arithmetic, _ in ways) and not (emulator and emulator.is_installed):
        reason = f"emulating {artifact.computed_precision} on a CPU needs the extra 'onnx'"
        return [], [NotRun(trial.law, trial.variation, reason) for trial in made]
    for arithmetic, open_runner in ways:
        with open_runner() as runner:
            trials, unfit = _fitting(runner, subject, [trial for trial in made if isinstance(trial, Trial)])
            not_run += unfit
            if not trials:
                continue
            golden, bases = _golden_floors(artifact), {trial.base for trial in trials}
            nudged = 0 if golden or manifest.precision == "int8" else DRAWS * len(bases)
            calls = len(bases) + nudged + sum(len(trial.calls) for trial in trials)
            run = _counted_run(runner, calls, progress)
            examined = _examine(artifact, subject, arithmetic, run, bases, golden)
            cells += [cell for trial in trials for cell in judge_trial(examined, trial, run)]
        if artifact.runtime.threads:
            cells += _try_threads(artifact, examined, providers, progress)
    if not artifact.runtime.threads:
        reason = f"the number of threads cannot be set for target {manifest.target!r}"
        not_run.append(NotRun(THREADS, ALL, reason))
    return cells, not_run


@dataclass(frozen=True)
class Ran:
    """An artifact that is open in one arithmetic, and what it computed on sample inputs."""

    artifact: Artifact
    runner: Runner
    arithmetic: Arithmetic
    samples: SampleInputs
    recording: Recording
    floors: Floors


def judge_again(ran: Ran, *, laws: bool) -> tuple[list[Cell], list[NotRun]]:
    """Runs a batch again, which must give the same, and, with ``laws``, the slice of the laws on an open runner.

    A CPU that computes half precision in float32 shows nothing about it.
    """
    artifact, run = ran.artifact, ran.runner.run_in_pieces
    if ran.arithmetic == "cpu-fp32-arithmetic" or not ran.recording:
        return [], []
    cells = repeated_cells(artifact.name, ran.arithmetic, run, ran.samples, ran.recording, ran.floors)
    if not laws:
        return cells, []
    reason = _why_no_laws(artifact)
    subject = None if reason else slice_subject(artifact.manifest.signature, artifact.manifest.config, ran.samples)
    if subject is None:
        return cells, [NotRun(TOGETHER, ALL, reason or "none of the families of inputs that they vary was run")]
    precision = _precision(artifact)
    outputs = {output: chunks[0] for (family, output), chunks in ran.recording.items() if family == subject.family}
    sliced, not_run = sliced_cells(
        artifact.name, ran.arithmetic, run, subject, outputs,
        ran.floors if precision == artifact.computed_precision else None, precision,
        lambda call: ran.runner.pieces({name: array.shape for name, array in call.items()}) is not None,
    )  # fmt: skip
    return [*cells, *sliced], not_run


def law_not_run(runner: str, not_run: NotRun) -> LawNotRun:
    """Returns a law that was not tried, in the form of reports."""
    return LawNotRun(runner, f"{not_run.law}, {not_run.variation}", not_run.reason)


def _why_no_laws(artifact: Artifact) -> str | None:
    """Why LXMERT's laws do not apply to an artifact; None if they do."""
    if artifact.manifest.signature.lxmert_task is None:
        return "it is your own module, to which LXMERT's laws do not apply"
    if artifact.is_calibrated:
        return "a calibrated model is right only for inputs like its calibration's"
    return None


def _proving_ways(
    artifact: Artifact, providers: Sequence[str], threads: int | None = None
) -> list[tuple[Arithmetic, Callable[[], Runner]]]:
    ways = judged_ways(artifact, providers, threads=threads)
    return [(arithmetic, open_runner) for arithmetic, open_runner in ways if arithmetic != "cpu-fp32-arithmetic"]


def _fitting(runner: Runner, subject: Subject, trials: Sequence[Trial]) -> tuple[list[Trial], list[NotRun]]:
    """Splits trials into those whose calls the runner takes (an engine: inside its profiles), and the others, with reasons."""
    fitting, unfit = [], []
    for trial in trials:
        parts = [
            runner.pieces({name: array.shape for name, array in call.items()})
            for call in (subject.bases[trial.base], *trial.calls)
        ]
        if any(part is None for part in parts):
            unfit.append(NotRun(trial.law, trial.variation, "its calls are outside the engine's profiles"))
        elif trial.whole and any(part is not None and len(part) > 1 for part in parts):
            unfit.append(
                NotRun(trial.law, trial.variation, f"no profile of the engine takes {subject.rows} rows at once")
            )
        else:
            fitting.append(trial)
    return fitting, unfit


def _counted_run(runner: Runner, calls: int, progress: Progress) -> Run:
    advance = counted(progress, f"{runner.name}: laws", calls)

    def run(inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        outputs = runner.run_in_pieces(inputs)
        advance("")
        return outputs

    return run


def _examine(
    artifact: Artifact, subject: Subject, arithmetic: Arithmetic, run: Run, bases: set[str], golden: Floors
) -> Examined:
    """Runs the base calls and finds the floors of their outputs."""
    outputs = {name: run(inputs) for name, inputs in subject.bases.items() if name in bases}
    floors = law_floors(run, subject, outputs, _precision(artifact), golden)
    return Examined(artifact.name, arithmetic, subject, outputs, floors)


def _precision(artifact: Artifact) -> str:
    """The precision to which both calls of a law round.

    If only the weights have the artifact's precision, this is that of the arithmetic: the weights are the same in both calls.
    """
    precision = artifact.computed_precision
    return "int8" if precision == "int8" else str(artifact.manifest.options.get("arithmetic", precision))


def _golden_floors(artifact: Artifact) -> Floors:
    """The floors of the golden file; empty if there is none, or if the artifact computes in another precision than theirs."""
    manifest = artifact.manifest
    if GOLDEN_FILE not in manifest.files or _precision(artifact) != manifest.precision:
        return {}
    return read_golden(artifact.file(GOLDEN_FILE), manifest.signature).floors


def _try_threads(artifact: Artifact, examined: Examined, providers: Sequence[str], progress: Progress) -> list[Cell]:
    """The cells of the base call with other numbers of threads. Sums then have another order, so the floor is the limit."""
    cells = []
    for threads in THREAD_COUNTS:
        open_runner = dict(_proving_ways(artifact, providers, threads))[examined.arithmetic]
        with open_runner() as runner:
            run = _counted_run(runner, 1, progress)
            cells += judge_trial(examined, on_threads(examined.subject, threads), run)
    return cells
