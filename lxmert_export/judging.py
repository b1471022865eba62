"""Runs artifacts on sample inputs and judges them, against a reference and against one another. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact import GOLDEN_FILE, Artifact
from lxmert_export.demo.words import is_demo_world
from lxmert_export.errors import PACKAGE, ArtifactError
from lxmert_export.golden import Golden, at_sampled_positions, is_whole, read_golden
from lxmert_export.graph_facts import check_manifest_precision
from lxmert_export.held_out import SCENES, HeldOut, held_out_of
from lxmert_export.parity.decisions import Decisions, decide
from lxmert_export.parity.recording import Advance, Arithmetic, Recording, batch_count, record
from lxmert_export.parity.report import Cell, Floors, ParityReport, judge, judge_pair
from lxmert_export.parity.scores import exact_floor
from lxmert_export.runners.opening import judged_ways, open_signature
from lxmert_export.runners.runner import Runner
from lxmert_export.sample_inputs import Arrays, Family, SampleInputs
from lxmert_export.signature import ANSWER_OUTPUT, CHOICE_OUTPUTS, Signature
from lxmert_export.weight_names import same_network

PLAIN = "plain"  # the family without a masked key or a second token type
SAMPLED_CHOICES = (
    "its choices were judged when it was exported; its golden file holds too few of their scores to do so here"
)
# Called with what is being run, how many batches are done, and how many there are.
Progress = Callable[[str, int, int], None]


def silent(step: str, done: int, total: int) -> None:
    """Reports no progress."""


@dataclass(frozen=True)
class Judged:
    """An artifact's cells, what it computed in the way that proves most, and the floors it was judged by.

    ``samples`` are what it was run on. ``decisions`` are its answers to held-out questions in each way; ``not_run`` names the
    families that there was no room for, these questions among them.
    """

    artifact: Artifact
    samples: SampleInputs
    cells: Sequence[Cell]
    recording: Recording
    floors: Floors
    decisions: Sequence[Decisions] = ()
    not_run: tuple[str, ...] = ()


def judge_artifact(
    artifact: Artifact,
    samples: SampleInputs,
    reference: Recording,
    floors: Floors,
    providers: Sequence[str],
    *,
    golden: Golden | None = None,
    emulate: bool = True,
    progress: Progress = silent,
) -> Judged:
    """Runs an artifact in every way that it is to be judged in; with ``golden``, compares at its sampled positions.

    One that was made from the built-in checkpoint is asked that one's held-out questions too.
    """
    cells: list[Cell] = []
    decisions: list[Decisions] = []
    signature = artifact.manifest.signature
    recording: Recording = {}
    held_out = held_out_of(artifact)
    asked = held_out if held_out is not None and held_out.fits(signature) else None
    for arithmetic, open_one in judged_ways(artifact, providers, emulate=emulate):
        with open_one() as runner:
            samples = taken_by(runner, samples)
            if asked is not None and not _takes(runner, asked.first(signature)):
                asked = None
            batches = batch_count(samples) + (asked.batch_count(signature) if asked else 0)
            advance = counted(progress, runner.name, batches)
            recording = record(runner.run_in_pieces, samples, signature, advance=advance)
            answers = asked.ask(runner.run_in_pieces, signature, advance) if asked else None
        run = {family.name for family in samples.families}
        reference = {key: chunks for key, chunks in reference.items() if key[0] in run}
        compared = recording if golden is None else at_sampled_positions(recording, golden)
        chosen_of = samples if artifact.manifest.precision == "int8" else None
        cells += judge(artifact.name, compared, reference, floors, signature, arithmetic, choices_of=chosen_of)
        if asked and answers is not None:
            of_answers, decided = judge_answers(artifact, asked, answers, arithmetic)
            cells += of_answers
            decisions.append(decided)
    cells += _judge_other_signatures(artifact, samples, recording)
    not_run = scenes_not_run(artifact) if asked is None else ()
    return Judged(artifact, samples, cells, recording, floors, decisions, (*samples.not_run, *not_run))


def taken_by(runner: Runner, samples: SampleInputs) -> SampleInputs:
    """The families that a runner takes; those that it does not, as outside an engine's profiles, are among those not run."""
    taken = tuple(family for family in samples.families if all(_takes(runner, batch) for batch in family.batches))
    names = {family.name for family in taken}
    return SampleInputs(taken, (*samples.not_run, *(f.name for f in samples.families if f.name not in names)))


def _takes(runner: Runner, inputs: Arrays) -> bool:
    return runner.pieces({name: array.shape for name, array in inputs.items()}) is not None


def scenes_not_run(artifact: Artifact) -> tuple[str, ...]:
    """The held-out questions, of an artifact that answers such and was asked none: a proof must not go missing unseen."""
    outputs = {spec.name for spec in artifact.manifest.signature.outputs}
    answers = is_demo_world(artifact.manifest.config.extra) and ANSWER_OUTPUT in outputs
    return (SCENES,) if answers or held_out_of(artifact) is not None else ()


def judge_answers(
    artifact: Artifact, held_out: HeldOut, answers: list[NDArray[np.generic]], arithmetic: Arithmetic
) -> tuple[list[Cell], Decisions]:
    """The score of the answers to held-out questions, as of any other inputs, and what they come to as decisions."""
    manifest = artifact.manifest
    key, floor = held_out.key(manifest.signature), held_out.floor(manifest.precision)
    place = (SCENES, ANSWER_OUTPUT)
    cells = judge(
        artifact.name, {place: answers} if answers else {}, {place: list(key.reference)}, {place: floor},
        manifest.signature, arithmetic,
    )  # fmt: skip
    return cells, decide(artifact.name, arithmetic, answers or None, key, floor.rms, precision=manifest.precision)


def _judge_other_signatures(artifact: Artifact, samples: SampleInputs, recording: Recording) -> list[Cell]:
    """A SavedModel's further signatures beside its first, on inputs that all of them can take: to the bit, or nearly so."""
    plain = [family for family in samples.families if family.name == PLAIN]
    cells: list[Cell] = []
    for name in artifact.manifest.options.get("signatures", [])[1:] if plain else []:
        with open_signature(artifact, name) as runner:
            found = record(runner.run, SampleInputs(tuple(plain), ()), artifact.manifest.signature)
        wanted = {key: chunks for key, chunks in recording.items() if key[0] == PLAIN}
        exact = {key: exact_floor(chunks) for key, chunks in wanted.items()}
        cells += judge(
            f"{artifact.name} {name}",
            found,
            wanted,
            exact,
            artifact.manifest.signature,
            "native",
            against=artifact.name,
        )
    return cells


def record_runner(
    open_one: Callable[[], Runner], samples: SampleInputs, signature: Signature, progress: Progress
) -> Recording:
    """What a runner computes on every family; it is closed afterwards, and its memory with it."""
    with open_one() as runner:
        return record(runner.run, samples, signature, advance=counted(progress, runner.name, batch_count(samples)))


def counted(progress: Progress, step: str, total: int) -> Advance:
    """Tells ``progress`` of a step's beginning now, and of one batch more at each call."""
    done = 0
    progress(step, done, total)

    def advance(family: str) -> None:
        nonlocal done
        done += 1
        progress(step, done, total)

    return advance


def check_against_golden(
    artifacts: Sequence[Artifact], providers: Sequence[str], progress: Progress = silent
) -> ParityReport:
    """Replays golden files: each artifact against the reference outputs it carries, and pairs against each other.

    The same checkpoint's sizes draw the same inputs, so that pairs need no more runs. Where the emulator is not installed, the
    proof that it gave at export stands, for files of the same hashes. ``ArtifactError``: no golden file, or files of another
    precision than the manifest says, where the library that reads them is installed.
    """
    goldens = [_golden_of(artifact) for artifact in artifacts]
    for artifact in artifacts:
        check_manifest_precision(artifact)
    drawn = [(a, g.samples.families) for a, g in zip(artifacts, goldens, strict=True) if not a.is_calibrated]
    for artifact, families in drawn[1:]:
        first, its_families = drawn[0]
        if len(families) != len(its_families) or not all(map(_same_inputs, families, its_families)):
            raise ArtifactError(
                f"{artifact.path}: its golden inputs are not those of {first.path}; give --checkpoint to judge both by"
            )
    emulator = find_spec("onnx_ir") is not None
    vouched = [] if emulator else [artifact for artifact in artifacts if _emulated_at_export(artifact)]
    judged = [
        judge_artifact(
            a, g.samples, g.reference, g.floors, providers, golden=g, emulate=a not in vouched, progress=progress
        )
        for a, g in zip(artifacts, goldens, strict=True)
    ]
    notes = [f"{a.name}: its rounding was emulated when it was exported, not here (extra 'onnx')" for a in vouched]
    notes += [f"{a.name}: {SAMPLED_CHOICES}" for a, g in zip(artifacts, goldens, strict=True) if _samples_choices(a, g)]
    report = report_on(judged)
    return replace(report, notes=(*report.notes, *notes), vouched=tuple(artifact.name for artifact in vouched))


def report_on(judged: Sequence[Judged]) -> ParityReport:
    """One report on artifacts, each judged on its own inputs: their cells, every pair's, and their decisions."""
    cells = [cell for one in judged for cell in one.cells]
    apart = [
        f"{one.artifact.name} and {other.artifact.name}: not compared: full-integer is right for its calibration's inputs alone"
        for one, other in combinations(judged, 2)
        if not _shared_families(one, other)
    ]
    return ParityReport(
        tuple(cells + pair_cells(judged)),
        tuple(dict.fromkeys(family for one in judged for family in one.not_run)),
        tuple(apart),
        decisions=tuple(decisions for one in judged for decisions in one.decisions),
        not_run={one.artifact.name: one.not_run for one in judged},
    )


def _shared_families(one: Judged, other: Judged) -> set[str]:
    """Families that both were to be run on: all but those that one does not take, or was calibrated without."""
    families = [{family for family, _ in side.recording} for side in (one, other)]
    if not (one.artifact.is_calibrated or other.artifact.is_calibrated):
        return (families[0] | families[1]) - {*one.not_run, *other.not_run}
    theirs = {family.name: family for family in other.samples.families}
    same = {f.name for f in one.samples.families if f.name in theirs and _same_inputs(f, theirs[f.name])}
    return same & families[0] & families[1]


def _same_inputs(one: Family, other: Family) -> bool:
    return (
        one.name == other.name
        and len(one.batches) == len(other.batches)
        and all(
            a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
            for a, b in zip(one.batches, other.batches, strict=True)
        )
    )


def _emulated_at_export(artifact: Artifact) -> bool:
    parity = artifact.manifest.parity
    return parity is not None and parity["passed"] and all("emulated" in ways for ways in parity["outputs"].values())


def pair_cells(judged: Sequence[Judged]) -> list[Cell]:
    """Every pair of artifacts against each other, over the outputs that both signatures name."""
    cells = []
    for one, other in combinations(judged, 2):
        common = {s.name for s in one.artifact.manifest.signature.outputs} & {
            s.name for s in other.artifact.manifest.signature.outputs
        }
        families = _shared_families(one, other)
        recordings = tuple(
            {key: chunks for key, chunks in side.recording.items() if key[1] in common and key[0] in families}
            for side in (one, other)
        )
        names = (one.artifact.name, other.artifact.name)
        cells += judge_pair(names, (recordings[0], recordings[1]), (one.floors, other.floors))
    return cells


def check_comparable(artifacts: Sequence[Artifact]) -> None:
    """``ArtifactError`` where artifacts differ in task, sizes or fixed axes, or share no output: nothing to compare."""
    first, *others = artifacts
    for other in others:
        one, two = first.manifest, other.manifest
        outputs = [{spec.name for spec in m.signature.outputs} for m in (one, two)]
        difference = next(
            (
                what
                for what, same in {
                    f"task ({one.task} and {two.task})": one.task == two.task,
                    "config": same_network(one.config, two.config, one.task),
                    f"fixed axes ({one.signature.fixed_sizes or 'none'} and {two.signature.fixed_sizes or 'none'})": (
                        one.signature.fixed_sizes == two.signature.fixed_sizes
                    ),
                    "outputs (none in common)": bool(outputs[0] & outputs[1]),
                }.items()
                if not same
            ),
            None,
        )
        if difference:
            raise ArtifactError(f"{first.path} and {other.path} cannot be compared: they differ in {difference}")


def _samples_choices(artifact: Artifact, golden: Golden) -> bool:
    """Whether an int8 artifact's golden file lacks scores of something that is chosen from."""
    if artifact.manifest.precision != "int8":
        return False
    return any(
        output in CHOICE_OUTPUTS and not all(map(is_whole, shapes))
        for (_, output), shapes in golden.shapes.items()
    )  # fmt: skip


def _golden_of(artifact: Artifact) -> Golden:
    if GOLDEN_FILE not in artifact.manifest.files:
        mend = f"judge it by its checkpoint: {PACKAGE} parity {artifact.path} --checkpoint CHECKPOINT"
        if artifact.is_calibrated:
            mend = "the real inputs that it is right for are lost: export it again"
        raise ArtifactError(f"{artifact.path}: written with --no-parity, so it carries no golden file; {mend}")
    return read_golden(artifact.file(GOLDEN_FILE), artifact.manifest.signature)
