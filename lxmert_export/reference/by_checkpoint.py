"""Judges artifacts, and other runners of the same function, by a checkpoint in float64 and against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.extras import require
from lxmert_export.judging.artifact import Judged, Laws, record_runner
from lxmert_export.judging.own_inputs import OwnInputs, decide_by_labels, with_own_inputs
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
from lxmert_export.runners.opening import check_judgeable
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.sample_inputs import LEAST_SAMPLES, SampleInputs, sample_inputs
from lxmert_export.spec.signature import OBJECT_OUTPUTS, Signature


@dataclass(frozen=True)
class Contest:
    """What is judged and on which inputs.

    named       runners by name (``NAMED_RUNNERS``)
    recorded    outputs that another program recorded, with their inputs
    own         the user's own inputs, used in addition to the drawn ones
    """

    artifacts: Sequence[Artifact]
    named: Sequence[str] = ()
    recorded: Sequence[OwnInputs] = ()
    own: OwnInputs | None = None

    @property
    def files(self) -> tuple[OwnInputs, ...]:
        """The recordings, and the user's own inputs."""
        return (*self.recorded, *((self.own,) if self.own else ()))

    def samples(self, signature: Signature, drawn: SampleInputs, limits: InputLimits) -> SampleInputs:
        """Returns the drawn families and those from files."""
        own = (file.family(signature, limits) for file in self.files)
        return SampleInputs((*drawn.families, *own), drawn.not_run)


def check_against_module(
    contest: Contest,
    module: nn.Module,
    providers: Sequence[str],
    progress: Progress = silent,
    *,
    laws: Laws = "none",
    time_limit: float | None = None,
) -> ParityReport:
    """Judges runners of one task by a module in float64, and every pair of runners against each other."""
    config = contest.artifacts[0].manifest.config
    yardstick, limits = Yardstick(module, config, progress), InputLimits.of(config)
    signature = max((a.manifest.signature for a in contest.artifacts), key=lambda s: len(s.outputs)).in_float32()
    # Before anything is run, so that inputs that do not fit are reported at once.
    left_out = {name for a in contest.artifacts for name in a.manifest.options.get("without_families", ())}
    samples = contest.samples(signature, sample_inputs(signature, config, without=left_out), limits)

    def judge_one(artifact: Artifact) -> Judged:
        _check_judgeable(artifact)
        taken = with_own_inputs(samples_for(artifact), contest.files, artifact)
        return judge_by(yardstick, artifact, taken, providers, progress, laws=laws, time_limit=time_limit)

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
    """Raises ``BuiltNotRun`` or ``MissingExtra`` before the artifact's reference is computed."""
    check_judgeable(artifact)
    target = artifact.target
    if target.facts is not None:
        require(f"reading the precision of {target.title} artifacts", *target.facts.needs)


def _judge_named(
    name: str, yardstick: Yardstick, signature: Signature, samples: SampleInputs, progress: Progress
) -> Judged:
    """Judges the canonical model in a precision, or transformers' model. ``ConversionError``: there is no transformers model."""
    module, precision = yardstick.module, NAMED_RUNNERS[name]
    if name == TRANSFORMERS:
        module = transformers_module(module, yardstick.config, signature.lxmert_task)
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
    """Judges outputs that another program recorded, as float32, on the recorded inputs alone."""
    here = replace(signature, outputs=tuple(spec for spec in signature.outputs if spec.name in recorded.recorded))
    family = recorded.family(here, limits)
    if len(family.batches) > len(recorded.outputs):
        raise ArtifactError(f"{recorded.path}: recorded outputs cannot be split to fit an artifact with a fixed batch")
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
    """Judges values, not dtypes: PyTorch returns each output in the dtype in which it was computed."""
    wide = "float64" if facts.precision == "fp64" else "float32"
    dtypes = {spec.name: wide if spec.is_float else spec.dtype for spec in signature.outputs}
    recording = {key: [chunk.astype(dtypes[key[1]]) for chunk in chunks] for key, chunks in recording.items()}
    signature = replace(signature, outputs=tuple(replace(spec, dtype=dtypes[spec.name]) for spec in signature.outputs))
    cells = judge(
        facts.name, recording, reference, floors, signature, "native", precision=facts.precision, samples=samples
    )
    decisions = decide_by_labels(facts.name, "native", recording, reference, floors, samples, precision=facts.precision)
    return Judged(facts, signature, samples, cells, recording, floors, decisions, samples.not_run)


def _without_object_heads(signature: Signature) -> Signature:
    """The signature without object heads, whose outputs transformers' models do not return."""
    outputs = tuple(spec for spec in signature.outputs if spec.name not in OBJECT_OUTPUTS)
    return replace(signature, outputs=outputs)


def _few_rows(samples: SampleInputs, contest: Contest) -> list[str]:
    """A note for each file of so few rows that its noise floor is less certain than that of drawn inputs."""
    files = {file.family_name: file.path for file in contest.files}
    return [
        f"{files[family.name]}: has {sum(family.rows)} rows; with fewer than {LEAST_SAMPLES} the noise floor is less certain"
        for family in samples.families
        if family.name in files and sum(family.rows) < LEAST_SAMPLES
    ]
