"""Artifacts, and whatever else computes the same function, judged by a checkpoint in float64 and against one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.extras import require
from lxmert_export.judging.artifact import Judged, record_runner
from lxmert_export.judging.own_inputs import OwnInputs
from lxmert_export.judging.pairs import NAMED_RUNNERS, TRANSFORMERS, judge_each, report_on
from lxmert_export.parity.cells import Floors, judge
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.report import ParityReport, RunnerFacts
from lxmert_export.parity.scores import measure_floor
from lxmert_export.progress import Progress, silent
from lxmert_export.reference.gate import judge_by, samples_for
from lxmert_export.reference.torch_runner import TorchRunner
from lxmert_export.reference.transformers_module import DIFFERENT_FAMILY, transformers_module
from lxmert_export.reference.yardstick import Yardstick
from lxmert_export.runners.opening import check_runnable
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.sample_inputs import LEAST_SAMPLES, SampleInputs, sample_inputs
from lxmert_export.spec.signature import OBJECT_OUTPUTS, Signature


@dataclass(frozen=True)
class Contest:
    """What is judged: artifacts, runners by name (``NAMED_RUNNERS``), recorded outputs; and on which inputs beside the drawn."""

    artifacts: Sequence[Artifact]
    named: Sequence[str] = ()
    recorded: Sequence[OwnInputs] = ()
    own: OwnInputs | None = None

    def samples(self, signature: Signature, drawn: SampleInputs, limits: InputLimits) -> SampleInputs:
        """The drawn families, and those of files."""
        files = (*self.recorded, *((self.own,) if self.own else ()))
        return SampleInputs((*drawn.families, *(file.family(signature, limits) for file in files)), drawn.not_run)


def check_against_module(
    contest: Contest,
    module: nn.Module,
    providers: Sequence[str],
    progress: Progress = silent,
    *,
    laws: bool = False,
    time_limit: float | None = None,
) -> ParityReport:
    """Judges runners of one task against a module in float64, and every pair of them against each other."""
    config = contest.artifacts[0].manifest.config
    yardstick, limits = Yardstick(module, config, progress), InputLimits.of(config)
    signature = max((a.manifest.signature for a in contest.artifacts), key=lambda s: len(s.outputs)).in_float32()
    # before anything is run: what does not fit is told at once
    samples = contest.samples(signature, sample_inputs(signature, config), limits)

    def judge_one(artifact: Artifact) -> Judged:
        _check_judgeable(artifact)
        its_own = samples_for(artifact)
        if not artifact.is_calibrated:
            its_own = contest.samples(artifact.manifest.signature, its_own, limits)
        return judge_by(yardstick, artifact, its_own, providers, progress, laws=laws, time_limit=time_limit)

    judged, others = judge_each(contest.artifacts, judge_one, beside=bool(contest.named or contest.recorded))
    for name in contest.named:
        try:
            judged.append(_judge_named(name, yardstick, signature, samples, progress))
        except ConversionError as error:
            if name != TRANSFORMERS:
                raise
            others.append(RunnerFacts(name, "transformers", "pytorch", "fp32", "skipped", str(error)))
    judged += [_judge_recorded(recorded, yardstick, signature, limits) for recorded in contest.recorded]
    report = report_on(judged, others)
    return replace(report, notes=(*report.notes, *_few_rows(samples, contest)))


def _check_judgeable(artifact: Artifact) -> None:
    """``BuiltNotRun`` or ``MissingExtra`` before anything is computed that the artifact would be compared with."""
    check_runnable(artifact)
    target = artifact.target
    if target.facts is not None:
        require(f"reading the precision of {target.title} artifacts", *target.facts.needs)


def _judge_named(
    name: str, yardstick: Yardstick, signature: Signature, samples: SampleInputs, progress: Progress
) -> Judged:
    """The canonical model in a precision, or the transformers library's. ``ConversionError``: the latter cannot be had."""
    module, precision = yardstick.module, NAMED_RUNNERS[name]
    if name == TRANSFORMERS:
        module = transformers_module(module, yardstick.config, signature.task)
        families = tuple(family for family in samples.families if family.name != DIFFERENT_FAMILY)
        samples = SampleInputs(families, (*samples.not_run, DIFFERENT_FAMILY))
        signature = _without_object_heads(signature)
    limits = InputLimits.of(yardstick.config)
    recording = record_runner(
        lambda: TorchRunner(module, signature, limits, precision or "fp64"), samples, signature, progress
    )
    reference = yardstick.reference(signature, samples)
    if precision is None:
        floors: Floors = {key: measure_floor(chunks, chunks, "fp64") for key, chunks in reference.items()}
    else:
        floors = yardstick.floors(signature, samples, precision)
    facts = RunnerFacts(name, "transformers" if name == TRANSFORMERS else "canonical", "pytorch", precision or "fp64")
    return _judged(facts, recording, reference, floors, signature, samples)


def _judge_recorded(recorded: OwnInputs, yardstick: Yardstick, signature: Signature, limits: InputLimits) -> Judged:
    """Outputs that another program recorded, judged as float32 on its own inputs alone."""
    here = replace(signature, outputs=tuple(spec for spec in signature.outputs if spec.name in recorded.recorded))
    family = recorded.family(here, limits)
    if len(family.batches) > len(recorded.outputs):
        raise ArtifactError(f"{recorded.path}: recorded outputs cannot be parted into the batches of a fixed axis")
    samples = SampleInputs((family,), ())
    reference = yardstick.reference(here, samples)
    recording: Recording = {
        (family.name, name): [batch[name] for batch in recorded.outputs] for name in recorded.recorded
    }
    facts = RunnerFacts(recorded.name, "recorded", "recorded", "fp32", bytes=recorded.path.stat().st_size)
    floors = yardstick.floors(here, samples, "fp32")
    return _judged(facts, recording, reference, floors, here, samples)


def _judged(
    facts: RunnerFacts,
    recording: Recording,
    reference: Recording,
    floors: Floors,
    signature: Signature,
    samples: SampleInputs,
) -> Judged:
    """Judges values, not widths: PyTorch gives each output in the width in which it was computed."""
    wide = "float64" if facts.precision == "fp64" else "float32"
    recording = {key: [chunk.astype(wide) for chunk in chunks] for key, chunks in recording.items()}
    signature = replace(signature, outputs=tuple(replace(spec, dtype=wide) for spec in signature.outputs))
    cells = judge(
        facts.name, recording, reference, floors, signature, "native", precision=facts.precision, samples=samples
    )
    return Judged(facts, signature, samples, cells, recording, floors, not_run=samples.not_run)


def _without_object_heads(signature: Signature) -> Signature:
    """The outputs that the transformers library's models have, too: they keep their object heads to themselves."""
    outputs = tuple(spec for spec in signature.outputs if spec.name not in OBJECT_OUTPUTS)
    return replace(signature, outputs=outputs)


def _few_rows(samples: SampleInputs, contest: Contest) -> list[str]:
    """A floor over few rows is less certain than one of drawn inputs: said, not hidden."""
    files = {file.family_name: file.path for file in (*contest.recorded, *((contest.own,) if contest.own else ()))}
    return [
        f"{files[family.name]}: {sum(family.rows)} rows; the noise floor of fewer than {LEAST_SAMPLES} is less certain"
        for family in samples.families
        if family.name in files and sum(family.rows) < LEAST_SAMPLES
    ]
