"""Judging artifacts: what ``lxmert-export parity`` and ``verify`` do, as functions.

No framework is imported at module level: each function imports what it needs.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lxmert_export.artifact.directory import Artifact, open_artifact, open_named
from lxmert_export.artifact.manifest import TOOLS, tool_versions
from lxmert_export.artifact.targets import TARGETS
from lxmert_export.errors import ArtifactError, BuiltNotRun, InputError, MissingExtra
from lxmert_export.extras import POLYGRAPHY, TORCH, check_own_converters, require
from lxmert_export.judging.artifact import Judged, Laws, artifact_facts
from lxmert_export.judging.by_golden import check_against_golden
from lxmert_export.judging.by_laws import law_not_run
from lxmert_export.judging.own_inputs import RECORDINGS, read_own_inputs, read_recording
from lxmert_export.judging.own_process import TIME_LIMIT, run_within
from lxmert_export.judging.pairs import NAMED_RUNNERS, check_comparable, check_opened_once, report_on, with_names_apart
from lxmert_export.option_names import option
from lxmert_export.parity.divergence import Divergence
from lxmert_export.parity.rejudging import judge_again, read_report, regressions
from lxmert_export.parity.report import ParityReport
from lxmert_export.progress import Progress, silent
from lxmert_export.runners.intermediates import check_visible
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.opening import check_takes_providers
from lxmert_export.spec.weight_names import network_differences, same_network

if TYPE_CHECKING:
    from torch import nn

    from lxmert_export.exporting.model_to_export import ModelToExport
    from lxmert_export.reference.by_checkpoint import Contest


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
    """Judges artifacts against the float64 outputs of a checkpoint, and each pair of them against each other.

    | parameter | meaning |
    |---|---|
    | ``artifacts`` | artifact directories (``DIR`` or ``DIR@RUNTIME``); with ``checkpoint`` also the names and files below |
    | ``checkpoint`` | a file, directory, hub name or model; default: each artifact's own golden file |
    | ``allow_other_checkpoint`` | accept artifacts that were made from other weights than ``checkpoint`` |
    | ``inputs`` | with ``checkpoint``: also judge on this file of your inputs, and labels (docs/parity.md) |
    | ``require_targets`` | targets (``onnx``, or ``onnx:fp16`` in one precision) that must each have an artifact here and pass |
    | ``device_reports`` | without ``checkpoint``: report.json files that devices sent back for bundles among the artifacts |
    | ``laws`` | also check the laws, as ``check_laws`` does |
    | ``find_divergence`` | with ``checkpoint``: also find where each artifact goes wrong, as ``locate`` does |
    | ``time_limit`` | seconds that each artifact may run, in another process; None: in this process, without a limit |

    With ``checkpoint``, ``artifacts`` may also name ``canonical-fp32`` (``-fp64``, ``-fp16``, ``-bf16``), ``transformers``, and
    files that hold inputs together with outputs that some program computed from them (.npz, .safetensors).

    A failed comparison raises no error: see the report's ``passed``. Errors: ``ArtifactError``: artifacts cannot be compared,
    were made from another checkpoint, or have no golden file because they were written without the gate. ``InputError``: options
    or inputs that do not fit. ``MissingExtra``: a library is not installed.
    """
    asked: Laws = "all" if laws else "none"
    directories = [path for path in artifacts if not _is_beside(path)]
    beside = [path for path in artifacts if _is_beside(path)]
    _check_named_once(beside)
    if not directories:
        raise ArtifactError("no artifact to check: name at least one directory")
    opened = with_names_apart([open_named(path) for path in directories])
    check_opened_once(directories, opened)
    check_comparable(opened)
    check_takes_providers(opened, providers)
    _check_required(require_targets)
    if checkpoint is None:
        _check_needs_no_checkpoint(find_divergence, own=inputs is not None or bool(beside))
        devices = _judge_devices(device_reports, opened)
        report = check_against_golden(opened, providers, progress, laws=asked, time_limit=time_limit, devices=devices)
        provenance = _provenance(reference="golden files")
        return replace(report, required=tuple(require_targets), provenance=provenance)
    if device_reports:
        raise InputError(f"device reports are judged by their bundles' golden files: leave {option('checkpoint')} out")
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
    report = check_against_module(contest, source.module, providers, progress, laws=asked, time_limit=time_limit)
    # A module in memory may be of a class that another process cannot import.
    limit = time_limit if isinstance(checkpoint, str | Path) else None
    divergences, hidden = _divergences(contest, source, progress, time_limit=limit) if find_divergence else ([], [])
    return replace(
        report,
        divergences=tuple(divergences),
        notes=(*report.notes, *notes, *hidden),
        required=tuple(require_targets),
        provenance=_provenance(reference=source.name, **source.checkpoint),
    )


def _check_needs_no_checkpoint(find_divergence: bool, *, own: bool) -> None:
    if find_divergence:
        raise InputError(
            f"{option('find_divergence')}: compares each layer with the checkpoint's: give {option('checkpoint')}"
        )
    if own:
        raise InputError(
            f"your own inputs, recorded outputs and named models are judged by a checkpoint: give {option('checkpoint')}"
        )


def _provenance(**judged_by: Any) -> dict[str, Any]:
    """When, where and with which tools a report was made, and what it was judged by."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "judged_by": judged_by,
        "tools": tool_versions(TOOLS),
    }


def _check_required(required: Sequence[str]) -> None:
    """``InputError``: a target that does not exist, or that has no such precision."""
    named = [name.partition(":") for name in required]
    if unknown := [target for target, _, _ in named if target not in TARGETS]:
        raise InputError(
            f"{option('require_targets')}: unknown target {', '.join(unknown)}; choose from {', '.join(TARGETS)}"
        )
    for target, colon, precision in named:
        if colon and precision not in (known := TARGETS[target].precisions):
            raise InputError(
                f"{option('require_targets')}: {target} has no precision {precision!r}; choose from {', '.join(known)}"
            )


def _divergences(
    contest: Contest, source: ModelToExport, progress: Progress, *, time_limit: float | None
) -> tuple[list[Divergence], list[str]]:
    """Where each artifact goes wrong, and a line for each artifact whose layers cannot be read."""
    from lxmert_export.reference.locating import Search

    found, hidden = [], []
    for artifact in contest.artifacts:
        try:
            check_visible(artifact)
            found.append(run_within(Search(artifact, source.module, contest.files), time_limit, progress))
        except (ArtifactError, MissingExtra) as error:
            hidden.append(str(error))
    return found, hidden


def _source_of(
    artifact: Artifact, checkpoint: str | Path | nn.Module, revision: str | None, num_attention_heads: int | None
) -> ModelToExport:
    """Reads a checkpoint in an artifact's task. ``ArtifactError``: the artifact is of another network."""
    manifest = artifact.manifest
    task = manifest.signature.lxmert_task
    from lxmert_export.exporting.model_to_export import model_of_checkpoint, model_of_module

    if isinstance(checkpoint, str | Path):
        source = model_of_checkpoint(
            checkpoint, task, revision=revision, num_attention_heads=num_attention_heads, ignore_other_parts=True
        )
    else:
        source = model_of_module(checkpoint)
    if not same_network(source.config, manifest.config, task):
        differing = network_differences(manifest.config, source.config, task)
        listed = "; ".join(f"{field} {here} here, {there} there" for field, here, there in differing)
        raise ArtifactError(f"{artifact.path}: its config differs from that of {source.name}: {listed}")
    return source


def _check_named_once(names: Sequence[str | Path]) -> None:
    """``InputError``: a model is named twice, or two recordings have the same name. A report could not tell them apart."""
    keys = [Path(name).name for name in names]
    if twice := [str(name) for name, key in zip(names, keys, strict=True) if keys.count(key) > 1]:
        raise InputError(f"{', '.join(dict.fromkeys(twice))}: named twice; name each once")


def _is_beside(path: str | Path) -> bool:
    """Whether a name is that of a model or a recording, which are judged beside artifacts. A directory is an artifact."""
    if Path(path).is_dir():
        return False
    return str(path) in NAMED_RUNNERS or Path(path).suffix in RECORDINGS


def _other_checkpoints(artifacts: Sequence[Artifact], source: ModelToExport, *, allow: bool) -> list[str]:
    """Returns a line for each artifact that was made from other weights than the checkpoint's.

    ``ArtifactError``: there is one, and ``allow`` is False.
    """
    ours = source.checkpoint["sha256"]
    lines = [
        f"{artifact.path}: was made from {artifact.manifest.checkpoint['name']} (sha256 {theirs[:12]}), "
        f"not from {source.name} (sha256 {ours[:12]})"
        for artifact in artifacts
        if ours and (theirs := artifact.manifest.checkpoint.get("sha256")) and theirs != ours
    ]
    if lines and not allow:
        raise ArtifactError(
            f"{lines[0]}; give {option('allow_other_checkpoint', True)} to judge it by that checkpoint all the same"
        )
    return lines


def verify(
    path: str | Path,
    *,
    polygraphy: str | Path | None = None,
    providers: Sequence[str] = (CPU,),
    progress: Progress = silent,
) -> ParityReport:
    """Checks an artifact's hashes, runs its golden inputs again, and compares the outputs with its golden file.

    ``path`` is ``DIR`` or ``DIR@RUNTIME``. Needs no PyTorch, only numpy and the runtime. Checks a slice of the laws;
    ``check_laws`` and ``check_parity`` check all of them.
    ``polygraphy`` is a new directory: an ONNX artifact's golden file is also written there as Polygraphy's JSON, whatever the
    verdict. The report's notes name what that JSON leaves out.

    A failed comparison raises no error: see the report's ``passed``. Errors: ``ArtifactError``: the artifact is damaged or has
    no golden file. ``BuiltNotRun``: an engine that cannot run here. ``MissingExtra``: its runtime is not installed.
    """
    if polygraphy is not None:
        require("writing Polygraphy's files", POLYGRAPHY)
    artifact = open_named(path)
    check_takes_providers([artifact], providers)
    notes: list[str] = []
    if polygraphy is not None:
        from lxmert_export.judging.polygraphy_files import write_polygraphy

        notes = [f"{polygraphy}: {line}" for line in write_polygraphy(artifact, Path(polygraphy))]
    report = check_against_golden([artifact], providers, progress, laws="slice")
    return replace(report, notes=(*report.notes, *notes))


def report_not_run(path: str | Path, error: BuiltNotRun) -> ParityReport:
    """The report on an engine that ``verify`` could not run: it does not pass, and it gives the reason."""
    facts = replace(artifact_facts(open_named(path)), not_judged="built-not-run", reason=str(error))
    return report_on([], [facts])


def judge_report(
    report: str | Path,
    *,
    threshold: float | None = None,
    pair_threshold: float | None = None,
    require_targets: Sequence[str] = (),
) -> ParityReport:
    """Judges a JSON report again, under other thresholds. Nothing is run.

    ``threshold`` is the largest score that passes, ``pair_threshold`` the same for pairs of runners and for laws; default: the
    report's own. ``ArtifactError``: the file cannot be read as a report of this version.
    """
    _check_required(require_targets)
    known = read_report(report)
    return replace(judge_again(known, threshold, pair_threshold), required=tuple(require_targets) or known.required)


def compare_with_baseline(report: ParityReport, baseline: ParityReport | str | Path) -> ParityReport:
    """Returns the report with a failure for each way in which it is worse than an earlier report, the baseline.

    ``baseline`` is a report, or the JSON file of one. A score is worse if it is above 1.5 × the baseline's (baselines below 0.5
    count as 0.5). If the baseline was judged by other weights, a note says so. ``ArtifactError``: the two have no cell in common.
    """
    known = baseline if isinstance(baseline, ParityReport) else read_report(baseline)
    now, before = (side.provenance.get("judged_by", {}).get("sha256") for side in (report, known))
    other = now and before and now != before
    note = f"the baseline was judged by another checkpoint (sha256 {before[:12]}, not {now[:12]})" if other else ""
    return replace(report, regressions=regressions(report, known), notes=(*report.notes, *([note] if note else [])))


def locate(
    path: str | Path,
    checkpoint: str | Path | nn.Module,
    *,
    inputs: str | Path | None = None,
    revision: str | None = None,
    num_attention_heads: int | None = None,
    progress: Progress = silent,
) -> Divergence:
    """Finds where an artifact goes wrong: the first layer whose score jumps, the operator in it, and every layer's drift.

    The layers are read from the artifact's own graph: ONNX, SavedModel or TFLite. ``inputs``: also look on this file of your
    inputs. ``ArtifactError``: the layers cannot be read
    (an engine, a ``.keras`` file, your own module, or a graph without our names), or the checkpoint is of another network.
    """
    artifact = open_artifact(path)
    check_visible(artifact)
    require("the reference", TORCH)
    check_own_converters()
    from lxmert_export.reference import locating

    files = () if inputs is None else (read_own_inputs(inputs, artifact.manifest.signature),)
    source = _source_of(artifact, checkpoint, revision, num_attention_heads)
    return locating.locate(artifact, source.module, progress, files=files)


def check_laws(path: str | Path, *, providers: Sequence[str] = (CPU,), progress: Progress = silent) -> ParityReport:
    """Checks an artifact by laws: rules that LXMERT obeys whatever its weights. Needs no checkpoint and no golden file.

    The laws are about padding, the order of objects, other rows of the batch, masked inputs, fully masked rows, repeated calls
    and thread counts. The report's ``laws_not_run`` names the laws that were not run, and why. A broken law proves a fault;
    keeping all laws does not prove parity.
    """
    from lxmert_export.judging.by_laws import judge_laws

    artifact = open_named(path)
    check_takes_providers([artifact], providers)
    cells, not_run = judge_laws(artifact, providers, progress)
    return ParityReport(tuple(cells), laws_not_run=tuple(law_not_run(artifact.name, law) for law in not_run))


def check_device_report(path: str | Path, report: str | Path) -> ParityReport:
    """Judges what a device computed from a bundle.

    ``path`` is the bundle, or the ONNX artifact from which it was made. ``report`` is the report.json that the device sent back,
    with its raw outputs beside it; they are scored here. ``ArtifactError``: the report is damaged or of another bundle.
    ``BuiltNotRun``: the device built the engine but did not run it.
    """
    from lxmert_export.judging.device_report import judge_device

    return report_on([judge_device(open_artifact(path), Path(report))])


def _judge_devices(reports: Sequence[str | Path], artifacts: Sequence[Artifact]) -> list[Judged]:
    """Judges each device report by its bundle among the artifacts. ``BuiltNotRun``: its engine was not run."""
    from lxmert_export.judging.device_report import judge_device, origin_of

    return [judge_device(origin_of(path, artifacts), path) for path in map(Path, reports)]
