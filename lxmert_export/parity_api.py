"""The Python interface to parity: what ``lxmert-export parity`` and ``verify`` do, as functions.

As in ``api``, a framework is brought in by the function that needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lxmert_export.api import check_own_converters, check_providers, require, source_of
from lxmert_export.artifact import TARGETS, Artifact, open_artifact
from lxmert_export.errors import ArtifactError, BuiltNotRun, InputError
from lxmert_export.judging import Judged, Progress, silent
from lxmert_export.matrix import NAMED_RUNNERS, check_comparable, report_on, with_names_apart
from lxmert_export.own_inputs import RECORDINGS, read_own_inputs
from lxmert_export.parity.report import ParityReport, RunnerFacts
from lxmert_export.replaying import check_against_golden
from lxmert_export.runners.providers import CPU
from lxmert_export.signature import TASKS
from lxmert_export.weight_names import same_network

if TYPE_CHECKING:
    from torch import nn

    from lxmert_export.exporting import Source


def check_parity(
    artifacts: Sequence[str | Path],
    *,
    checkpoint: str | Path | nn.Module | None = None,
    revision: str | None = None,
    num_attention_heads: int | None = None,
    allow_other_checkpoint: bool = False,
    inputs: str | Path | None = None,
    require_targets: Sequence[str] = (),
    device_reports: Sequence[str | Path] = (),
    time_limit: float | None = None,
    providers: Sequence[str] = (CPU,),
    progress: Progress = silent,
) -> ParityReport:
    """Judges artifacts against the float64 reference of a checkpoint, and each pair of them against each other.

    Without a checkpoint each artifact is judged against its own golden file. With one, ``artifacts`` may also name
    ``canonical-fp32`` (``-fp64``, ``-fp16``, ``-bf16``), ``transformers``, and files of inputs with outputs that some program
    recorded; ``inputs`` is a file of inputs of yours to judge on, too (.npz, .safetensors, or
    Polygraphy's JSON). ``require_targets`` are those of which an artifact must be
    there and pass. ``device_reports`` are report.json files that came back of bundles among the
    artifacts. Each artifact is judged in a process of its own that may take ``time_limit`` seconds; None: in this one.
    ``ArtifactError``: artifacts that cannot be compared, that were written without the gate and so have no golden file, or that
    came from another checkpoint, unless ``allow_other_checkpoint``.
    """
    directories = [path for path in artifacts if not _is_beside(path)]
    if not directories:
        raise ArtifactError("no artifact to check: name at least one directory")
    opened = with_names_apart([open_artifact(path) for path in directories])
    check_comparable(opened)
    check_providers(opened, providers)
    if unknown := [target for target in require_targets if target not in TARGETS]:
        raise InputError(f"no target is called {', '.join(unknown)}; they are {', '.join(TARGETS)}")
    if checkpoint is None:
        if inputs is not None or len(directories) < len(artifacts):
            raise InputError(
                "your own inputs, recorded outputs and models are judged by a checkpoint: give --checkpoint"
            )
        devices = _judge_devices(device_reports, opened)
        report = check_against_golden(opened, providers, progress, time_limit=time_limit, devices=devices)
        return replace(report, required=tuple(require_targets))
    if device_reports:
        raise InputError("device reports are judged by the golden files of their bundles: leave the checkpoint out")
    require("the reference", torch="torch")
    check_own_converters()
    from lxmert_export.checkpoint_parity import Contest, check_against_module

    first = opened[0].manifest
    task = next((known for known in TASKS if known == first.task), None)  # a user's own module has a task of its own
    source = source_of(checkpoint, task, None, revision, num_attention_heads)
    if not same_network(source.config, first.config, first.task):
        raise ArtifactError(f"{opened[0].path}: its config is not that of {source.name}: it is another checkpoint's")
    notes = _other_checkpoints(opened, source, allow=allow_other_checkpoint)
    contest = Contest(
        opened,
        [str(path) for path in artifacts if str(path) in NAMED_RUNNERS],
        [read_own_inputs(path, first.signature) for path in artifacts if Path(path).suffix in RECORDINGS],
        None if inputs is None else read_own_inputs(inputs, first.signature),
    )
    report = check_against_module(contest, source.module, providers, progress, time_limit=time_limit)
    return replace(report, notes=(*report.notes, *notes), required=tuple(require_targets))


def _is_beside(path: str | Path) -> bool:
    """Whether a name is not of an artifact, but of what is judged beside them; what exists as a directory is an artifact."""
    if Path(path).is_dir():
        return False
    return str(path) in NAMED_RUNNERS or Path(path).suffix in RECORDINGS


def _other_checkpoints(artifacts: Sequence[Artifact], source: Source, *, allow: bool) -> list[str]:
    """A line for each artifact that was made from other weights than are judged by; ``ArtifactError`` unless that is allowed."""
    ours = source.checkpoint["sha256"]
    lines = [
        f"{artifact.path}: was made from {artifact.manifest.checkpoint['name']} (sha256 {theirs[:12]}), "
        f"not from {source.name} (sha256 {ours[:12]})"
        for artifact in artifacts
        if ours and (theirs := artifact.manifest.checkpoint.get("sha256")) and theirs != ours
    ]
    if lines and not allow:
        raise ArtifactError(f"{lines[0]}; to judge it by that one all the same: --allow-other-checkpoint")
    return lines


def verify(
    path: str | Path,
    *,
    polygraphy: str | Path | None = None,
    providers: Sequence[str] = (CPU,),
    progress: Progress = silent,
) -> ParityReport:
    """Checks an artifact's hashes and replays its golden file, with numpy and its own runtime alone.

    ``polygraphy`` is a new directory to write the golden file of an ONNX artifact to as Polygraphy's JSON, whatever the verdict;
    notes of the report name what is left out there.
    """
    if polygraphy is not None:
        require("writing Polygraphy's files", polygraphy="polygraphy")
    artifact = open_artifact(path)
    check_providers([artifact], providers)
    notes: list[str] = []
    if polygraphy is not None:
        from lxmert_export.polygraphy_files import write_polygraphy

        notes = [f"{polygraphy}: {line}" for line in write_polygraphy(artifact, Path(polygraphy))]
    report = check_against_golden([artifact], providers, progress)
    return replace(report, notes=(*report.notes, *notes))


def check_device_report(path: str | Path, report: str | Path) -> ParityReport:
    """Judges what a device sent back of a bundle: ``path`` is the bundle or its ONNX artifact, ``report`` its report.json.

    The raw outputs beside it are scored here. ``ArtifactError``: built and not run, of another bundle, or damaged.
    """
    from lxmert_export.device_report import judge_device

    return report_on([judge_device(open_artifact(path), Path(report))])


def _judge_devices(
    reports: Sequence[str | Path], artifacts: Sequence[Artifact]
) -> tuple[list[Judged], list[RunnerFacts]]:
    """What devices computed of bundles among the artifacts, and what they built and did not run."""
    from lxmert_export.device_report import judge_device, origin_of

    judged, others = [], []
    for path in map(Path, reports):
        artifact = origin_of(path, artifacts)
        try:
            judged.append(judge_device(artifact, path))
        except BuiltNotRun as error:
            name, precision = f"{artifact.name} ({path})", artifact.manifest.precision
            others.append(RunnerFacts(name, "device", "tensorrt", precision, "built-not-run", str(error)))
    return judged, others
