"""The Python interface to parity: what ``lxmert-export parity`` and ``verify`` do, as functions.

As in ``api``, a framework is brought in by the function that needs it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lxmert_export.api.artifact import check_providers
from lxmert_export.artifact.directory import Artifact, open_artifact
from lxmert_export.artifact.manifest import TOOLS, tool_versions
from lxmert_export.artifact.targets import TARGETS
from lxmert_export.errors import ArtifactError, BuiltNotRun, InputError, MissingExtra
from lxmert_export.extras import POLYGRAPHY, TORCH, check_own_converters, require
from lxmert_export.judging.artifact import Judged, artifact_facts
from lxmert_export.judging.by_golden import check_against_golden
from lxmert_export.judging.by_laws import law_not_run
from lxmert_export.judging.own_inputs import RECORDINGS, read_own_inputs, read_recording
from lxmert_export.judging.own_process import TIME_LIMIT, run_within
from lxmert_export.judging.pairs import NAMED_RUNNERS, check_comparable, report_on, with_names_apart
from lxmert_export.parity.divergence import Divergence
from lxmert_export.parity.rejudging import judge_again, read_report, regressions
from lxmert_export.parity.report import ParityReport
from lxmert_export.progress import Progress, silent
from lxmert_export.runners.intermediates import check_visible
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.spec.signature import TASKS
from lxmert_export.spec.weight_names import same_network

if TYPE_CHECKING:
    from torch import nn

    from lxmert_export.exporting.model_to_export import ModelToExport


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
    laws: bool = True,
    find_divergence: bool = False,
    time_limit: float | None = TIME_LIMIT,
    providers: Sequence[str] = (CPU,),
    progress: Progress = silent,
) -> ParityReport:
    """Judges artifacts against the float64 reference of a checkpoint, and each pair of them against each other.

    Without a checkpoint each artifact is judged against its own golden file. With one, ``artifacts`` may also name
    ``canonical-fp32`` (``-fp64``, ``-fp16``, ``-bf16``), ``transformers``, and files of inputs with outputs that some program
    recorded; ``inputs`` is a file of inputs of yours to judge on, too (.npz, .safetensors, or
    Polygraphy's JSON). ``require_targets`` are those of which an artifact must be
    there and pass. ``device_reports`` are report.json files that came back of bundles among the
    artifacts. With ``laws`` each artifact is held to the reference-free laws, too. Each is judged in a process of its own that
    may take ``time_limit`` seconds; None: in this one. ``find_divergence`` looks into each artifact as ``locate`` does, too.

    ``ArtifactError``: artifacts that cannot be compared, that were written without the gate and so have no golden file, or that
    came from another checkpoint, unless ``allow_other_checkpoint``.
    """
    directories = [path for path in artifacts if not _is_beside(path)]
    beside = [path for path in artifacts if _is_beside(path)]
    _check_named_once(artifacts)
    if not directories:
        raise ArtifactError("no artifact to check: name at least one directory")
    opened = with_names_apart([open_artifact(path) for path in directories])
    check_comparable(opened)
    check_providers(opened, providers)
    _check_targets(require_targets)
    if checkpoint is None:
        if find_divergence:
            raise InputError("locating compares with the model's own layers: give --checkpoint")
        if inputs is not None or beside:
            raise InputError(
                "your own inputs, recorded outputs and models are judged by a checkpoint: give --checkpoint"
            )
        devices = _judge_devices(device_reports, opened)
        report = check_against_golden(opened, providers, progress, laws=laws, time_limit=time_limit, devices=devices)
        provenance = _provenance(reference="golden files")
        return replace(report, required=tuple(require_targets), provenance=provenance)
    if device_reports:
        raise InputError("device reports are judged by the golden files of their bundles: leave the checkpoint out")
    require("the reference", TORCH)
    check_own_converters()
    from lxmert_export.reference.by_checkpoint import Contest, check_against_module

    first = opened[0].manifest
    source = _source_of(opened[0], checkpoint, revision, num_attention_heads)
    notes = _other_checkpoints(opened, source, allow=allow_other_checkpoint)
    contest = Contest(
        opened,
        [str(path) for path in beside if str(path) in NAMED_RUNNERS],
        [read_recording(path, first.signature) for path in beside if Path(path).suffix in RECORDINGS],
        None if inputs is None else read_own_inputs(inputs, first.signature),
    )
    report = check_against_module(contest, source.module, providers, progress, laws=laws, time_limit=time_limit)
    divergences, hidden = _divergences(opened, source, progress, time_limit=time_limit) if find_divergence else ([], [])
    return replace(
        report,
        divergences=tuple(divergences),
        notes=(*report.notes, *notes, *hidden),
        required=tuple(require_targets),
        provenance=_provenance(reference=source.name, **source.checkpoint),
    )


def _provenance(**judged_by: Any) -> dict[str, Any]:
    """By what, when and where a report came about, and what it is judged by."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "judged_by": judged_by,
        "tools": tool_versions(TOOLS),
    }


def _check_targets(names: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in TARGETS]:
        raise InputError(f"no target is called {', '.join(unknown)}; they are {', '.join(TARGETS)}")


def _divergences(
    artifacts: Sequence[Artifact], source: ModelToExport, progress: Progress, *, time_limit: float | None
) -> tuple[list[Divergence], list[str]]:
    """Where each artifact leaves its checkpoint, and a line for each that cannot be looked into."""
    from lxmert_export.reference.locating import Search

    found, hidden = [], []
    for artifact in artifacts:
        try:
            check_visible(artifact)
            found.append(run_within(Search(artifact, source.module), time_limit, progress))
        except (ArtifactError, MissingExtra) as error:
            hidden.append(str(error))
    return found, hidden


def _source_of(
    artifact: Artifact, checkpoint: str | Path | nn.Module, revision: str | None, num_attention_heads: int | None
) -> ModelToExport:
    """A checkpoint in an artifact's task; ``ArtifactError``: it is another network's."""
    manifest = artifact.manifest
    task = next((known for known in TASKS if known == manifest.task), None)  # a user's own module has a task of its own
    from lxmert_export.exporting.model_to_export import model_of_checkpoint, model_of_module

    if isinstance(checkpoint, str | Path):
        source = model_of_checkpoint(checkpoint, task, revision=revision, num_attention_heads=num_attention_heads)
    else:
        source = model_of_module(checkpoint)
    if not same_network(source.config, manifest.config, manifest.task):
        raise ArtifactError(f"{artifact.path}: its config is not that of {source.name}: it is another checkpoint's")
    return source


def _check_named_once(names: Sequence[str | Path]) -> None:
    """``InputError``: the same runner twice, or two recordings of one name, which reports could not tell apart."""
    keys = [Path(name).name if _is_beside(name) else str(Path(name).resolve()) for name in names]
    if twice := [str(name) for name, key in zip(names, keys, strict=True) if keys.count(key) > 1]:
        raise InputError(f"{', '.join(dict.fromkeys(twice))}: named twice; name each once")


def _is_beside(path: str | Path) -> bool:
    """Whether a name is not of an artifact, but of what is judged beside them; what exists as a directory is an artifact."""
    if Path(path).is_dir():
        return False
    return str(path) in NAMED_RUNNERS or Path(path).suffix in RECORDINGS


def _other_checkpoints(artifacts: Sequence[Artifact], source: ModelToExport, *, allow: bool) -> list[str]:
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
        require("writing Polygraphy's files", POLYGRAPHY)
    artifact = open_artifact(path)
    check_providers([artifact], providers)
    notes: list[str] = []
    if polygraphy is not None:
        from lxmert_export.judging.polygraphy_files import write_polygraphy

        notes = [f"{polygraphy}: {line}" for line in write_polygraphy(artifact, Path(polygraphy))]
    report = check_against_golden([artifact], providers, progress)
    return replace(report, notes=(*report.notes, *notes))


def report_not_run(path: str | Path, error: BuiltNotRun) -> ParityReport:
    """The report on an engine that ``verify`` could not run: it passes nothing, and gives the reason."""
    facts = replace(artifact_facts(open_artifact(path)), not_judged="built-not-run", reason=str(error))
    return report_on([], [facts])


def judge_report(
    report: str | Path,
    *,
    threshold: float | None = None,
    pair_threshold: float | None = None,
    require_targets: Sequence[str] = (),
) -> ParityReport:
    """Judges a report again that was written as JSON, under other thresholds (in noise floors); nothing is run.

    ``ArtifactError``: no such report.
    """
    _check_targets(require_targets)
    known = read_report(report)
    return replace(judge_again(known, threshold, pair_threshold), required=tuple(require_targets) or known.required)


def compare_with_baseline(report: ParityReport, baseline: ParityReport | str | Path) -> ParityReport:
    """The report, failing where it is worse than an earlier one, or than the file that it was written to as JSON.

    A baseline of other weights is compared too, and a note says so.
    """
    known = baseline if isinstance(baseline, ParityReport) else read_report(baseline)
    now, before = (one.provenance.get("judged_by", {}).get("sha256") for one in (report, known))
    other = now and before and now != before
    note = f"the baseline was judged by another checkpoint (sha256 {before[:12]}, not {now[:12]})" if other else ""
    return replace(report, regressions=regressions(report, known), notes=(*report.notes, *([note] if note else [])))


def locate(
    path: str | Path,
    checkpoint: str | Path | nn.Module,
    *,
    revision: str | None = None,
    num_attention_heads: int | None = None,
    progress: Progress = silent,
) -> Divergence:
    """Where an artifact leaves its checkpoint: the first layer whose score jumps, the operator in it, and every layer's drift.

    It looks into the artifact's own graph: ONNX, SavedModel or TFLite. ``ArtifactError``: an engine or a ``.keras`` file, whose
    insides do not show; a file without our names; a module of the user's own.
    """
    artifact = open_artifact(path)
    check_visible(artifact)
    require("the reference", TORCH)
    check_own_converters()
    from lxmert_export.reference import locating

    return locating.locate(artifact, _source_of(artifact, checkpoint, revision, num_attention_heads).module, progress)


def check_laws(path: str | Path, *, providers: Sequence[str] = (CPU,), progress: Progress = silent) -> ParityReport:
    """Holds an artifact to laws that LXMERT obeys whatever its weights: no checkpoint and no golden file is needed.

    Padding, object order, rows beside one another, masked inputs, fully masked rows, repeats and thread counts. The report's
    ``laws_not_run`` names those that were not tried, and why. Keeping them is necessary, and proves no parity by itself.
    """
    from lxmert_export.judging.by_laws import judge_laws

    artifact = open_artifact(path)
    check_providers([artifact], providers)
    cells, not_run = judge_laws(artifact, providers, progress)
    return ParityReport(tuple(cells), laws_not_run=tuple(law_not_run(artifact.name, one) for one in not_run))


def check_device_report(path: str | Path, report: str | Path) -> ParityReport:
    """Judges what a device sent back of a bundle: ``path`` is the bundle or its ONNX artifact, ``report`` its report.json.

    The raw outputs beside it are scored here. ``ArtifactError``: built and not run, of another bundle, or damaged.
    """
    from lxmert_export.judging.device_report import judge_device

    return report_on([judge_device(open_artifact(path), Path(report))])


def _judge_devices(reports: Sequence[str | Path], artifacts: Sequence[Artifact]) -> list[Judged]:
    """What devices computed of bundles among the artifacts; ``BuiltNotRun``: a report of an engine that was not run."""
    from lxmert_export.judging.device_report import judge_device, origin_of

    return [judge_device(origin_of(path, artifacts), path) for path in map(Path, reports)]
