"""Replays golden files: judges each artifact by the reference outputs in its own golden file, and pairs against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.golden import Golden, at_sampled_positions, golden_of, is_whole
from lxmert_export.artifact.precision import check_manifest_precision
from lxmert_export.errors import ArtifactError
from lxmert_export.judging.artifact import Judged, JudgingRequest, Laws, record_runner
from lxmert_export.judging.own_process import run_within
from lxmert_export.judging.pairs import judge_each, report_on, same_inputs
from lxmert_export.option_names import option
from lxmert_export.parity.cells import Floors
from lxmert_export.parity.report import ParityReport
from lxmert_export.parity.scores import measure_floor
from lxmert_export.progress import Progress, silent
from lxmert_export.runners.opening import check_runnable, open_emulator
from lxmert_export.spec.signature import CHOICE_OUTPUTS

EMULATED_FLOORS = "its noise floor is the emulator's error of its graph, which passed in {} at export"
SAMPLED_CHOICES = (
    "its choices were judged at export only: its golden file holds too few of their scores to judge them here"
)
BUNDLE_ONLY = (
    "only its ONNX graph was judged: a bundle holds no engine before its build_and_verify.py has run on the device"
)


def check_against_golden(
    artifacts: Sequence[Artifact],
    providers: Sequence[str],
    progress: Progress = silent,
    *,
    laws: Laws = "none",
    time_limit: float | None = None,
    devices: Sequence[Judged] = (),
) -> ParityReport:
    """Judges each artifact by the reference outputs in its golden file, and pairs of artifacts against each other.

    Artifacts from checkpoints of the same sizes have the same golden inputs, so pairs need no further runs. If the emulator is
    not installed, its result recorded at export counts, because the files still have the same hashes. ``time_limit``: seconds for
    each artifact. ``devices``: outputs that devices computed for the same golden inputs.

    ``ArtifactError``: an artifact has no golden file, has other golden inputs than the first artifact, or has files of another
    precision than its manifest says (checked if the library that reads them is installed).
    """
    goldens = {artifact.path: golden_of(artifact) for artifact in artifacts}
    for artifact in artifacts:
        check_manifest_precision(artifact)
    drawn = [(a, goldens[a.path].samples.families) for a in artifacts if not a.is_calibrated]
    for artifact, families in drawn[1:]:
        first, its_families = drawn[0]
        if len(families) != len(its_families) or not all(map(same_inputs, families, its_families)):
            raise ArtifactError(
                f"{artifact.path}: its golden inputs differ from those of {first.path}; judge both by {option('checkpoint')}"
            )
    vouched = [artifact for artifact in artifacts if _emulated_at_export(artifact) and not _is_emulated_here(artifact)]
    rounding = [artifact for artifact in artifacts if artifact.computed_precision != artifact.manifest.precision]

    def judge_one(artifact: Artifact) -> Judged:
        golden = goldens[artifact.path]
        rounds = artifact in rounding
        floors: Floors = golden.floors
        if rounds:
            check_runnable(artifact)  # before the emulator, which takes longer
            floors = run_within(EmulatedFloors(artifact, golden), time_limit, progress)
        request = JudgingRequest(
            artifact, golden.samples, golden.reference, floors, providers,
            golden=golden, emulate=not rounds and artifact not in vouched, laws=laws,
        )  # fmt: skip
        return run_within(request, time_limit, progress)

    judged, others = judge_each(artifacts, judge_one, beside=bool(devices))
    ran = {one.name for one in judged}
    vouched = [artifact for artifact in vouched if artifact.name in ran]
    if devices:  # they return outputs only at the golden file's sampled positions
        named = {artifact.name: goldens[artifact.path] for artifact in artifacts}
        judged = [replace(one, recording=at_sampled_positions(one.recording, named[one.name])) for one in judged]
    notes = [f"{a.name}: its rounding was emulated at export, not here: that needs the extra 'onnx'" for a in vouched]
    notes += [f"{a.name}: {SAMPLED_CHOICES}" for a in artifacts if _samples_choices(a, goldens[a.path])]
    notes += [f"{a.name}: {EMULATED_FLOORS.format(a.manifest.precision)}" for a in rounding if a.name in ran]
    if not devices:
        notes += [f"{a.name}: {BUNDLE_ONLY}" for a in artifacts if "bundle" in a.manifest.options]
    report = report_on([*judged, *devices], others)
    return replace(report, notes=(*report.notes, *notes), vouched=tuple(artifact.name for artifact in vouched))


@dataclass(frozen=True)
class EmulatedFloors:
    """Noise floors of the precision to which a runtime rounds an artifact: the errors of its own graph, emulated.

    The golden file holds floors of the artifact's own precision alone. In that one the same graph passed its gate, so the errors
    here are those of rounding.
    """

    artifact: Artifact
    golden: Golden

    def run(self, progress: Progress = silent) -> Floors:
        """Measures them in this process. ``ArtifactError``: the artifact did not pass its gate."""
        artifact, golden = self.artifact, self.golden
        if artifact.manifest.parity is None or not artifact.manifest.parity["passed"]:
            raise ArtifactError(
                f"{artifact.path}: did not pass its gate in {artifact.manifest.precision}, so its graph proves nothing in "
                f"{artifact.computed_precision}: judge it by {option('checkpoint')}"
            )
        signature = artifact.manifest.signature
        recording = record_runner(lambda: open_emulator(artifact), golden.samples, signature, progress)
        computed = at_sampled_positions(recording, golden)
        precision = artifact.computed_precision
        return {key: measure_floor(chunks, computed[key], precision) for key, chunks in golden.reference.items()}


def _is_emulated_here(artifact: Artifact) -> bool:
    emulator = artifact.target.emulator
    return emulator is not None and emulator.is_installed


def _emulated_at_export(artifact: Artifact) -> bool:
    parity = artifact.manifest.parity
    return parity is not None and parity["passed"] and all("emulated" in ways for ways in parity["outputs"].values())


def _samples_choices(artifact: Artifact, golden: Golden) -> bool:
    """Whether an int8 artifact's golden file keeps only samples of scores that are chosen from."""
    if artifact.manifest.precision != "int8":
        return False
    return any(
        output in CHOICE_OUTPUTS and not all(map(is_whole, shapes))
        for (_, output), shapes in golden.shapes.items()
    )  # fmt: skip
