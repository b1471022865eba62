"""What a failed gate says beside its figures: where fp16 overflows, and the next command. Keeps what was refused for a look."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from shlex import quote

from torch import nn

from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.artifact.manifest import write_manifest
from lxmert_export.errors import PACKAGE, ArtifactError, MissingExtra
from lxmert_export.exporting.activation_ranges import lint_ranges
from lxmert_export.exporting.options import ExportOptions
from lxmert_export.files.atomic_directory import atomic_directory
from lxmert_export.files.converted_files import manifest_of
from lxmert_export.files.listing import files_below
from lxmert_export.files.replacing import check_replaceable
from lxmert_export.option_names import option
from lxmert_export.parity.report import ParityError, ParityReport
from lxmert_export.reference.overflow import LARGEST_HALF, first_overflow
from lxmert_export.runners.intermediates import check_visible


def check_keep_failed(options: ExportOptions) -> None:
    """``ArtifactError``: the directory for a refused artifact holds more than an artifact refused earlier."""
    if options.keep_failed is None or not (place := Path(options.keep_failed)).exists():
        return
    if not ((manifest_of(place) or {}).get("parity") or {"passed": True})["passed"]:
        check_replaceable(place, "artifact")
        return
    raise ArtifactError(
        f"{place}: exists and holds no refused artifact, so it is not replaced; give {option('keep_failed')} another directory"
    )


def refused(artifact: Artifact, module: nn.Module, options: ExportOptions, report: ParityReport) -> ParityError:
    """Returns the error of a failed gate, and keeps the artifact if asked to. Its manifest says that it failed."""
    notes = []
    kept = options.keep_failed
    if kept is not None:
        write_manifest(artifact.path, artifact.manifest)
        needed = sum(path.stat().st_size for path in files_below(artifact.path))
        with atomic_directory(Path(kept), overwrite=True, needed=needed) as temporary:
            shutil.copytree(artifact.path, temporary, dirs_exist_ok=True)
        notes.append(f"kept the refused artifact: {kept}")
    if _can_be_located(artifact):
        source = artifact.manifest.checkpoint
        checkpoint = quote(source["name"]) if source["sha256"] else "CHECKPOINT"
        keep = "" if kept is not None else f"{option('keep_failed', 'DIR')}, then "
        command = f"{PACKAGE} parity {'DIR' if kept is None else quote(str(kept))} --checkpoint {checkpoint} --locate"
        notes.append(f"to see which layer goes wrong: {keep}{command}")
    cause = _overflow(artifact, module, options, report) or _saturation(options)
    message = report.summary() + (f"; {cause}" if cause else "")
    return ParityError(message, replace(report, notes=(*report.notes, *notes)))


def _overflow(artifact: Artifact, module: nn.Module, options: ExportOptions, report: ParityReport) -> str | None:
    """Where an fp16 artifact leaves fp16's range first, and the option that helps; None if it does not."""
    manifest = artifact.manifest
    if manifest.precision != "fp16" or all(cell.reason != "NaN or infinity" for cell in report.failures):
        return None
    batches = [batch for family in artifact.drawn_inputs().families for batch in family.batches]
    if manifest.target != "onnx":
        found = first_overflow(module, manifest.signature, manifest.limits, batches)
        mend = f"export to onnx with {_searches()}, which keeps such parts in float32"
        return (
            found and f"fp16 overflows in {found[0]} (reaches {found[1]:.4g}, beyond fp16's {LARGEST_HALF:.0f}): {mend}"
        )
    findings = [found for found in lint_ranges(artifact.file(ONNX_FILE), batches) if found.severity == "error"]
    if not findings:
        return None
    first = findings[0]  # in the graph's order
    mend = _searches()
    if options.attention == "operator":
        mend = f"{option('attention', 'decomposed')} with {mend}"
    return f"fp16 overflows in {first.module or first.node} ({first.seen}, at {first.node}): {mend} keeps such nodes in float32"


def _saturation(options: ExportOptions) -> str | None:
    """Whether an int8 ONNX artifact was judged by kernels that saturate on its weights, and the option that helps."""
    if options.target != "onnx" or options.precision != "int8" or options.int8_range != "8bit":
        return None
    from lxmert_export.graphs.int8_saturation import WEIGHT_RANGES
    from lxmert_export.runners.onnx.int8_kernels import is_exact

    if is_exact(WEIGHT_RANGES[options.int8_range]):
        return None
    return f"onnxruntime's int8 kernels saturate on this CPU: {option('int8_range', '7bit')} keeps weights small enough"


def _searches() -> str:
    return f"{option('fp32_islands', 'auto')} or {option('fp32_islands', 'standard+')}"


def _can_be_located(artifact: Artifact) -> bool:
    try:
        check_visible(artifact)
    except (ArtifactError, MissingExtra):
        return False
    return artifact.manifest.signature.lxmert_task is not None
