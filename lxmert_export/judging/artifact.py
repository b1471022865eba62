"""Runs one artifact on sample inputs and judges it by a reference. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.golden import Golden, at_sampled_positions
from lxmert_export.artifact.manifest import tool_versions
from lxmert_export.artifact.session_settings import carried_settings, chosen_settings
from lxmert_export.demo.words import is_demo_world
from lxmert_export.judging.by_laws import Ran, judge_again, judge_laws, law_not_run
from lxmert_export.judging.held_out import HeldOut, held_out_of
from lxmert_export.judging.own_inputs import decide_by_labels
from lxmert_export.parity.cells import Cell, Floors, judge
from lxmert_export.parity.decisions import SCENES, Decisions, decide
from lxmert_export.parity.law_slice import TOGETHER
from lxmert_export.parity.laws import NotRun
from lxmert_export.parity.prediction import Prediction, beside_prediction, predicted_by_manifest
from lxmert_export.parity.recording import Arithmetic, Recording, batch_count, record
from lxmert_export.parity.report import LawNotRun, RunnerFacts
from lxmert_export.parity.scores import exact_floor
from lxmert_export.progress import Progress, counted, silent
from lxmert_export.runners.onnx.providers import CPU, device_of, settings_of
from lxmert_export.runners.opening import is_stood_in_for, judged_ways
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.sample_inputs import SampleInputs
from lxmert_export.spec.signature import ANSWER_OUTPUT, Signature

Laws = Literal["all", "slice", "none"]
STOOD_IN = "CPU, emulated"
ON_GPU = ("GPU", "CUDA")  # the devices of which facts are told
PLAIN = "plain"  # the family without masks and without a second token type


@dataclass(frozen=True)
class Judged:
    """The result of judging one runner.

    samples          the inputs that it was run on
    recording        its outputs, in the arithmetic that proves most
    floors           the noise floors that it was judged by
    decisions        its answers to the held-out questions and to labelled inputs, in each arithmetic
    not_run          families that it was not run on, the held-out questions (``scenes``) among them
    predictions      of half precision on a device: its errors, and those that the emulator predicted at export
    is_calibrated    True if it is right only for inputs like ``samples``
    """

    facts: RunnerFacts
    signature: Signature
    samples: SampleInputs
    cells: Sequence[Cell]
    recording: Recording
    floors: Floors
    decisions: Sequence[Decisions] = ()
    not_run: tuple[str, ...] = ()
    is_calibrated: bool = False
    laws_not_run: tuple[LawNotRun, ...] = ()
    predictions: tuple[Prediction, ...] = ()

    @property
    def name(self) -> str:
        """The runner's name in reports."""
        return self.facts.name

    @property
    def is_emulated_alone(self) -> bool:
        """Whether its runtime has no kernels for it here, so that the emulator alone ran it. A missing device is told apart."""
        computed = {cell.arithmetic for cell in self.cells if cell.kind == "reference"}
        return computed == {"emulated"} and self.facts.device != STOOD_IN


@dataclass(frozen=True)
class JudgingRequest:
    """What is judged and by what. It holds only arrays and names, so that it can be pickled for another process.

    golden     outputs are compared only at the sampled positions of this golden file
    emulate    False: half precision is not emulated if the artifact can be run otherwise
    laws       ``all`` of them, a ``slice`` in few calls (all, if the slice fails), or ``none``
    """

    artifact: Artifact
    samples: SampleInputs
    reference: Recording
    floors: Floors
    providers: Sequence[str]
    golden: Golden | None = None
    emulate: bool = True
    laws: Laws = "none"

    def run(self, progress: Progress = silent) -> Judged:
        """Judges the artifact in this process."""
        return judge_artifact(self, progress)


def judge_artifact(request: JudgingRequest, progress: Progress = silent) -> Judged:
    """Runs an artifact in every arithmetic that it is to be judged in, and judges its outputs.

    An artifact made from the built-in checkpoint is also asked the held-out questions.
    """
    artifact, samples = request.artifact, request.samples
    cells: list[Cell] = []
    decisions: list[Decisions] = []
    law_cells: list[Cell] = []
    laws_not_run: list[NotRun] = []
    signature = artifact.manifest.signature
    recording: Recording = {}
    held_out = held_out_of(artifact)
    asked = held_out if held_out is not None and held_out.fits(signature) else None
    for arithmetic, open_runner in judged_ways(artifact, request.providers, emulate=request.emulate):
        with open_runner() as runner:
            samples = taken_by(runner, samples)
            if asked is not None and not _takes(runner, asked.first(signature)):
                asked = None
            batches = batch_count(samples) + (asked.batch_count(signature) if asked else 0)
            advance = counted(progress, runner.name, batches)
            recording = record(runner.run_in_pieces, samples, signature, advance=advance)
            answers = asked.ask(runner.run_in_pieces, signature, advance) if asked else None
            signature_cells = _judge_other_signatures(artifact, runner, samples, recording)
            ran = Ran(artifact, runner, arithmetic, samples, recording, request.floors)
            sliced, missing = judge_again(ran, laws=request.laws == "slice")
            law_cells += sliced
            laws_not_run += missing
        cells += _judge_recording(request, recording, samples, arithmetic)
        decisions += decide_by_labels(artifact.name, arithmetic, recording, request.reference, request.floors, samples,
                                      precision=artifact.computed_precision)  # fmt: skip
        if asked and answers is not None:
            answer_cells, decided = judge_answers(artifact, asked, answers, arithmetic)
            cells += answer_cells
            decisions.append(decided)
        cells += signature_cells
    broken = any(cell.status == "FAIL" and TOGETHER in cell.against for cell in law_cells)
    if request.laws == "all" or broken:
        every = judge_laws(artifact, request.providers, progress)
        law_cells, laws_not_run = [*law_cells, *every[0]], every[1]
    scenes = scenes_not_run(artifact) if asked is None else ()
    return Judged(
        artifact_facts(artifact, request.providers), signature, samples, [*cells, *law_cells], recording, request.floors,
        decisions, (*samples.not_run, *scenes), artifact.is_calibrated,
        tuple(law_not_run(artifact.name, law) for law in laws_not_run), _beside_prediction(artifact, cells),
    )  # fmt: skip


def _beside_prediction(artifact: Artifact, cells: Sequence[Cell]) -> tuple[Prediction, ...]:
    """The errors of an artifact that a device computed in its own half precision, beside those that the emulator predicted."""
    if any(cell.arithmetic != "native" for cell in cells) or artifact.computed_precision != artifact.manifest.precision:
        return ()
    predicted = artifact.manifest.options.get("predicted_errors") or predicted_by_manifest(artifact.manifest.parity)
    return beside_prediction(artifact.name, cells, predicted)


def _judge_recording(
    request: JudgingRequest, recording: Recording, samples: SampleInputs, arithmetic: Arithmetic
) -> list[Cell]:
    """Returns the cells of the families that were run."""
    run = {family.name for family in samples.families}
    reference = {key: chunks for key, chunks in request.reference.items() if key[0] in run}
    compared = recording if request.golden is None else at_sampled_positions(recording, request.golden)
    artifact = request.artifact
    return judge(
        artifact.name, compared, reference, request.floors, artifact.manifest.signature, arithmetic,
        precision=artifact.computed_precision, samples=samples,
    )  # fmt: skip


def artifact_facts(artifact: Artifact, providers: Sequence[str] = ()) -> RunnerFacts:
    """Returns an artifact's row in a report, from its manifest and the providers that run it."""
    manifest, runtime = artifact.manifest, artifact.runtime
    device = device_of(providers) if runtime.providers else runtime.device
    device = STOOD_IN if is_stood_in_for(artifact) else device
    return RunnerFacts(
        artifact.name,
        "artifact",
        manifest.target,
        artifact.computed_precision,
        bytes=sum(facts["bytes"] for facts in manifest.files.values()),
        source=manifest.checkpoint,
        tools=manifest.tools,
        settings=_settings(artifact, providers),
        runtime=runtime.name,
        device=device,
        gpu=runtime.describes.load()() if runtime.describes is not None and device in ON_GPU else {},
    )


def _settings(artifact: Artifact, providers: Sequence[str]) -> tuple[str, ...]:
    """What a runtime is told that changes the arithmetic of an artifact."""
    if artifact.computed_precision != artifact.manifest.precision:
        return (f"its {artifact.manifest.precision} file is computed in {artifact.computed_precision}",)
    runtime = artifact.runtime
    if runtime.widens_int8 and artifact.is_static_int8:
        return (*runtime.settings, "its int8 values are multiplied in float32")
    return (*settings_of(providers), *_session_settings(artifact, providers)) if runtime.providers else runtime.settings


def _session_settings(artifact: Artifact, providers: Sequence[str]) -> tuple[str, ...]:
    """The session settings that an artifact carries for the installed onnxruntime, in words."""
    version = next(iter(tool_versions(("onnxruntime", "onnxruntime-gpu")).values()), None)
    if version is None or tuple(providers[:1]) != (CPU,):
        return ()
    chosen = chosen_settings(carried_settings(artifact.manifest.options), version)
    return tuple(f"{key}={value} (onnxruntime {version})" for key, value in chosen.items())


def taken_by(runner: Runner, samples: SampleInputs) -> SampleInputs:
    """Returns the families that a runner takes. The others (outside an engine's profiles) are added to those not run."""
    taken = tuple(family for family in samples.families if all(_takes(runner, batch) for batch in family.batches))
    names = {family.name for family in taken}
    return SampleInputs(taken, (*samples.not_run, *(f.name for f in samples.families if f.name not in names)))


def _takes(runner: Runner, inputs: Arrays) -> bool:
    return runner.pieces({name: array.shape for name, array in inputs.items()}) is not None


def scenes_not_run(artifact: Artifact) -> tuple[str, ...]:
    """Returns the held-out questions as a family not run, if the artifact could answer them.

    For artifacts that were not asked: the report must show that this proof is missing.
    """
    outputs = {spec.name for spec in artifact.manifest.signature.outputs}
    answers = is_demo_world(artifact.manifest.config.extra) and ANSWER_OUTPUT in outputs
    return (SCENES,) if answers or held_out_of(artifact) is not None else ()


def judge_answers(
    artifact: Artifact, held_out: HeldOut, answers: list[NDArray[np.generic]], arithmetic: Arithmetic
) -> tuple[list[Cell], Decisions]:
    """Judges answers to held-out questions: returns their cells, as for other inputs, and the decisions."""
    signature, precision = artifact.manifest.signature, artifact.computed_precision
    key, floor = held_out.key(signature), held_out.floor(precision)
    place = (SCENES, ANSWER_OUTPUT)
    cells = judge(
        artifact.name, {place: answers} if answers else {}, {place: list(key.reference)}, {place: floor},
        signature, arithmetic, precision=precision,
    )  # fmt: skip
    return cells, decide(artifact.name, arithmetic, answers or None, key, floor.rms, precision=precision)


def _judge_other_signatures(
    artifact: Artifact, runner: Runner, samples: SampleInputs, recording: Recording
) -> list[Cell]:
    """Compares a SavedModel's other signatures with its first, on inputs that all of them take, by float32's least floor."""
    plain = [family for family in samples.families if family.name == PLAIN]
    cells: list[Cell] = []
    for name in artifact.manifest.options.get("signatures", [])[1:] if plain else []:
        recorded = record(runner.under(name).run, SampleInputs(tuple(plain), ()), artifact.manifest.signature)
        wanted = {key: chunks for key, chunks in recording.items() if key[0] == PLAIN}
        exact = {key: exact_floor(chunks) for key, chunks in wanted.items()}
        cells += judge(
            f"{artifact.name} {name}",
            recorded,
            wanted,
            exact,
            artifact.manifest.signature,
            "native",
            precision=artifact.manifest.precision,
            samples=samples,
            against=artifact.name,
            kind="signature",
        )
    return cells


def record_runner(
    open_one: Callable[[], Runner], samples: SampleInputs, signature: Signature, progress: Progress
) -> Recording:
    """Returns what a runner computes on every family. The runner is then closed, which frees its memory."""
    with open_one() as runner:
        return record(runner.run, samples, signature, advance=counted(progress, runner.name, batch_count(samples)))
