"""Writes a TensorRT engine artifact: builds the engine from an ONNX artifact, copies its golden file, writes a manifest."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from converters.to_tensorrt import BuiltEngine, convert_to_tensorrt
from lxmert_export.artifact.directory import (
    GOLDEN_FILE,
    NOT_RUN,
    ONNX_DATA_FILE,
    ONNX_FILE,
    WEIGHTLESS,
    Artifact,
)
from lxmert_export.artifact.manifest import Manifest, write_manifest
from lxmert_export.artifact.precision import check_precision
from lxmert_export.engines.devices import EngineDevice
from lxmert_export.engines.gpus import find_gpus, is_among, why_not_run
from lxmert_export.engines.plan_text import mismatch
from lxmert_export.engines.profiles import Profile
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.exporting.fp16_lint import lint
from lxmert_export.files.beside_weights import COMPANION_FILES
from lxmert_export.option_names import option
from lxmert_export.parity.prediction import predicted_by_manifest
from lxmert_export.progress import Progress, silent
from lxmert_export.spec.halves import HALVES
from lxmert_export.spec.signature import Precision

LOGGER = logging.getLogger(__name__)


def check_source(
    artifact: Artifact,
    precision: Precision | None,
    onnx_options: Mapping[str, Any],
    calibration: str | Path | None = None,
) -> None:
    """Checks that an engine can be built from an artifact with these options.

    Raises ``ArtifactError`` if it is not an ONNX artifact. Raises ``ConversionError`` if it has another precision, or if
    ``onnx_options`` holds options that apply only to an export, or there is a ``calibration`` for int8.
    """
    manifest = artifact.manifest
    if manifest.target != "onnx":
        raise ArtifactError(
            f"{artifact.path}: is a {manifest.target} artifact; an engine is built from a checkpoint or an ONNX artifact"
        )
    if artifact.is_for_cuda:
        raise ArtifactError(
            f"{artifact.path}: was made with {option('optimize_for', 'cuda')}: TensorRT does not know onnxruntime's own "
            f"operators, and fuses standard ones itself: export it again without {option('optimize_for')}"
        )
    if manifest.parity is not None and not manifest.parity["passed"]:
        raise ArtifactError(
            f"{artifact.path}: failed its parity gate and was kept for a look: no engine is built from it"
        )
    if precision is not None and precision != manifest.precision:
        raise ConversionError(
            f"{artifact.path}: is {manifest.precision}, and an engine has its ONNX graph's precision: "
            f"leave {option('precision', precision)} out, or export the graph in {precision}"
        )
    if calibration is not None and manifest.precision == "int8":
        raise ConversionError(
            f"{artifact.path}: is calibrated already: leave {option('calibration')} out, or give its checkpoint"
        )
    if onnx_options:
        raise ConversionError(
            f"{artifact.path}: {', '.join(map(option, onnx_options))} cannot be changed in an ONNX artifact: export it "
            "again, or give its checkpoint"
        )


def write_engine(
    onnx: Artifact,
    device: EngineDevice,
    profiles: Sequence[Profile],
    directory: Path,
    *,
    name: str,
    calibration: str | Path | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Fills an empty directory with an engine artifact.

    ``name`` is the artifact's name in reports, because ``directory`` is a temporary one. The manifest's ``parity`` is None:
    only the ONNX graph has been judged, and ``options["onnx"]["parity"]`` holds its result. ``verify`` judges the engine on the
    GPU that runs it. Raises ``ConversionError`` if the graph does not compute in its precision, would give wrong numbers in
    fp16, or cannot be built.
    """
    check_precision(onnx)
    facts, whole = facts_of_graph(onnx, calibration), unsplit(onnx.manifest)
    step = f"building {device.precision} engine for {device.name}"
    progress(step, 0, 1)
    built = convert_to_tensorrt(
        onnx.file(ONNX_FILE),
        onnx.manifest.signature,
        profiles,
        device,
        directory,
        weights_size=onnx.weights_size,
        islands=frozenset(onnx.float32_matmuls),
    )
    progress(step, 1, 1)
    if told := mismatch(built.plan, built.network.matmuls):
        LOGGER.warning("%s: %s", name, told)
    for file in (GOLDEN_FILE, *COMPANION_FILES):
        if file in onnx.manifest.files:
            shutil.copyfile(onnx.file(file), directory / file)
    options = {
        **{name: value for name, value in whole.options.items() if name != "bundle"},
        **facts,
        "engine": device.to_dict(),
        "profiles": [profile.to_dict() for profile in profiles],
        "build": _described(built, onnx),
        "onnx": {
            "files": {
                file: onnx.manifest.files[file]["sha256"]
                for file in (ONNX_FILE, ONNX_DATA_FILE)
                if file in onnx.manifest.files
            },
            "parity": onnx.manifest.parity,
        },
        "status": status_of(device),
    }
    counted = whole.flops and {**whole.flops, "file": None}  # what was built of it is not known
    manifest = replace(whole, target="tensorrt", options=options, parity=None, flops=counted)
    return Artifact(directory, write_manifest(directory, manifest), name, report=onnx.report)


def unsplit(manifest: Manifest) -> Manifest:
    """Returns the manifest of the whole graph, without what is of onnxruntime: engines and bundles are made of that."""
    flops = manifest.flops and {name: count for name, count in manifest.flops.items() if name not in HALVES}
    options = {name: value for name, value in manifest.options.items() if name not in ("split", "launches")}
    return replace(manifest, options=options, flops=flops)


def status_of(device: EngineDevice) -> str:
    """Returns the status of an engine that was just built: not run, and why."""
    if device.options.strip:
        return WEIGHTLESS
    try:
        gpus = find_gpus()
    except ConversionError as error:
        return f"{NOT_RUN} ({why_not_run(error)})"
    known, later = device.compute_capabilities, device.and_later
    if any(gpu.capability is None or is_among(gpu.capability, known, and_later=later) for gpu in gpus):
        return f"{NOT_RUN} yet: lxmert-export verify runs it"
    return f"{NOT_RUN} (it is not for the GPU here: {gpus[0]})"


def facts_of_graph(onnx: Artifact, calibration: str | Path | None = None) -> dict[str, Any]:
    """Returns what the manifest records before an engine is built: the fp16 linter's findings and the predicted errors.

    The linter measures ranges on the inputs in ``calibration``, by default on drawn ones. Raises ``ConversionError`` if the
    graph would give wrong numbers in fp16.
    """
    findings = lint(onnx, calibration) if onnx.manifest.precision == "fp16" else []
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ConversionError(f"the ONNX graph would give wrong numbers in fp16: {errors[0]}{more}")
    return {
        "lint": [asdict(finding) for finding in findings],
        "lint_inputs": None
        if onnx.manifest.precision != "fp16"
        else Path(calibration).name
        if calibration
        else "drawn",
        "predicted_errors": predicted_by_manifest(onnx.manifest.parity),
    }


def _described(built: BuiltEngine, onnx: Artifact) -> Mapping[str, Any]:
    return {
        "runtime_version": built.runtime_version,
        "flags": list(built.flags),
        "tf32": "TF32" in built.flags,
        "engine_bytes": built.size,
        "weight_bytes": onnx.weights_size,
        "layers": built.network.layers,
        "matmuls": built.network.matmuls,
        "matmul_weights": built.network.matmul_weights,
        "float32_matmuls": list(built.network.float32_matmuls),
        "plan_matmuls": built.plan,
    }
