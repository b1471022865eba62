"""From a checkpoint or a module to an artifact on disk: load, convert, carry companions over, pass the gate, describe.

Each converter is imported when its target is asked for: nobody needs the other targets' frameworks.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.manifest import Manifest, write_manifest
from lxmert_export.exporting.source import Source
from lxmert_export.exporting.targets import (
    CONVERTERS,
    Request,
)
from lxmert_export.graphs.precision import check_precision, delegation
from lxmert_export.parity.decisions import Decisions
from lxmert_export.parity.report import ParityError, ParityReport
from lxmert_export.progress import Progress, silent
from lxmert_export.reference.gate import pass_gate
from lxmert_export.spec.signature import Signature

if TYPE_CHECKING:
    pass


def write_artifact(
    source: Source,
    request: Request,
    signature: Signature,
    directory: Path,
    *,
    name: str,
    parity: bool,
    providers: Sequence[str],
    progress: Progress = silent,
) -> Artifact:
    """Fills an empty directory with an artifact; ``ParityError`` where it does not pass its gate.

    ``name`` is what reports call it: the directory is a temporary one.
    """
    step = f"converting {source.name} to {request.target} {request.precision}"
    progress(step, 0, 1)
    options = CONVERTERS[request.target](source, request, signature, directory, progress)
    progress(step, 1, 1)
    for file in source.companions:
        shutil.copyfile(file, directory / file.name)
    manifest = Manifest(
        target=request.target,
        precision=request.precision,
        task=signature.task,
        config=source.config,
        signature=signature,
        checkpoint=source.checkpoint,
        options={**options, "io_dtype": signature.outputs[0].dtype},
    )
    artifact = Artifact(directory, manifest, name)
    facts = check_precision(artifact)
    if request.target == "tflite":  # what runs where on a device that has only the file
        manifest = replace(manifest, options={**manifest.options, **delegation(facts)})
        artifact = replace(artifact, manifest=manifest)
    if not parity:
        return replace(artifact, manifest=write_manifest(directory, manifest))
    samples = request.calibration.judged(signature) if request.calibration else None
    report = pass_gate(artifact, source.module, providers, progress, samples=samples)
    if not report.passed:
        raise ParityError(report.summary(), report)
    return replace(artifact, manifest=write_manifest(directory, _with_parity(manifest, report)), report=report)


def _with_parity(manifest: Manifest, report: ParityReport) -> Manifest:
    """The manifest with the gate's figures, in each arithmetic: of each output where it fared worst, and of the decisions."""
    outputs: dict[str, Any] = {}
    for cell in report.worst_cells():
        if cell.kind != "reference":  # a SavedModel's further signatures, beside its first
            continue
        outputs.setdefault(cell.output, {})[cell.arithmetic] = {
            "score": cell.score,
            "threshold": cell.threshold,
            "inputs": cell.family,
            "error_rms": cell.error_rms,
            "error_max": cell.error_max,
            "floor": cell.floor,
            "samples": cell.samples,
            "values": cell.values,
        }
    parity = {
        "passed": report.passed,
        "outputs": outputs,
        "families_not_run": list(report.families_not_run),
        "decisions": {decisions.arithmetic: _figures(decisions) for decisions in report.decisions},
    }
    return replace(manifest, parity=parity)


def _figures(decisions: Decisions) -> dict[str, Any]:
    named = ("runner", "arithmetic", "status", "reason")  # the manifest says these elsewhere, of the whole artifact
    return {name: value for name, value in decisions.to_dict().items() if name not in named}
