"""From a checkpoint or a module to an artifact on disk: load, convert, carry companions over, pass the gate, describe.

Each converter is imported when its target is asked for: nobody needs the other targets' frameworks.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from torch import nn

from lxmert_export.artifact import COMPANION_FILES, ONNX_FILE, Artifact, Manifest, write_manifest
from lxmert_export.calibration import Calibration
from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.config import LxmertConfig
from lxmert_export.errors import ConversionError, ParityError
from lxmert_export.gate import pass_gate
from lxmert_export.graph_facts import check_precision, delegation
from lxmert_export.judging import Progress, silent
from lxmert_export.model import MASK_BIAS, MODELS, LxmertModel
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.parity.decisions import Decisions
from lxmert_export.parity.report import ParityReport
from lxmert_export.pretrained import PreTrainedLxmert
from lxmert_export.runners.runner import InputLimits
from lxmert_export.signature import Attention, Precision, Signature, Task

if TYPE_CHECKING:
    from converters.to_tflite import Quantization


@dataclass(frozen=True)
class Source:
    """What is converted: a module, its config and task, and where it came from."""

    module: nn.Module
    config: LxmertConfig
    task: Task | None
    name: str
    checkpoint: Mapping[str, Any]
    companions: tuple[Path, ...] = ()


def source_of_checkpoint(
    name_or_path: str | Path, task: Task | None, *, revision: str | None, num_attention_heads: int | None
) -> Source:
    """Reads a checkpoint into a model of its task; its tokenizer and label files come along."""
    checkpoint = read_checkpoint(name_or_path, task=task, revision=revision, num_attention_heads=num_attention_heads)
    origin = checkpoint.source
    directory = origin.paths[0].parent
    return Source(
        module=MODELS[checkpoint.task].from_checkpoint(checkpoint),
        config=checkpoint.config,
        task=checkpoint.task,
        name=origin.name,
        checkpoint={
            "dialect": origin.dialect,
            "name": origin.name,
            "sha256": origin.sha256,
            "unused_heads": list(checkpoint.unused),
        },
        companions=tuple(directory / name for name in COMPANION_FILES if (directory / name).is_file()),
    )


def source_of_module(module: nn.Module, config: LxmertConfig | None) -> Source:
    """A module in memory: one of our models, or a user's own that holds an ``LxmertModel`` somewhere."""
    backbone = next((part for part in module.modules() if isinstance(part, LxmertModel)), None)
    if backbone is None and config is None:
        raise ConversionError(f"{type(module).__name__} holds no LxmertModel; pass its config to say what ids it takes")
    return Source(
        module=module,
        config=config or backbone.config,  # type: ignore[union-attr]  # one of the two is there
        task=module.task if isinstance(module, PreTrainedLxmert) else None,
        name=type(module).__name__,
        checkpoint={"dialect": None, "name": type(module).__name__, "sha256": None, "unused_heads": []},
    )


@dataclass(frozen=True)
class Request:
    """What an artifact is to be: its target and precision, and the options that each target has of its own.

    ``opset`` is ONNX's, and ``fp32_islands``: ``standard``, or ``auto`` to search them; and ``attention``: ``decomposed`` or
    ``operator``. ``file_format`` is TensorFlow's, ``saved-model`` or ``keras``; ``calibration`` makes int8 TFLite full-integer.
    """

    target: str
    precision: Precision
    opset: int | None = None
    fp32_islands: str = "standard"
    attention: Attention = "decomposed"
    file_format: str = "saved-model"
    calibration: Calibration | None = None


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


def _convert_to_onnx(
    source: Source, request: Request, signature: Signature, directory: Path, progress: Progress
) -> dict[str, Any]:
    from converters.to_onnx import DEFAULT_OPSETS, convert_to_onnx

    opset = request.opset or DEFAULT_OPSETS[request.attention]
    if request.fp32_islands == "auto":
        return {"opset": opset, **_convert_with_islands(source, opset, signature, directory, progress)}
    limits = InputLimits.of(source.config)
    convert_to_onnx(
        source.module,
        signature,
        limits,
        directory,
        precision=request.precision,
        opset=opset,
        attention=request.attention,
    )
    return {"opset": opset, "attention": request.attention}


def _convert_with_islands(
    source: Source, opset: int, signature: Signature, directory: Path, progress: Progress
) -> dict[str, Any]:
    """An fp16 file of the float32 one, in which the nodes that must be are islands."""
    from converters.onnx_islands import write_with_islands
    from converters.to_onnx import convert_to_onnx
    from lxmert_export.fp32_islands import find_islands

    half = [spec.name for spec in signature if spec.dtype == "float16"]
    manifest = Manifest("onnx", "fp16", signature.task, source.config, signature, source.checkpoint)
    with TemporaryDirectory(prefix="lxmert-export-float32-") as wide:
        path = Path(wide) / ONNX_FILE
        limits = InputLimits.of(source.config)
        convert_to_onnx(source.module, signature.in_float32(), limits, path.parent, precision="fp32", opset=opset)
        found = find_islands(path, Artifact(directory, manifest, source.name), source.module, progress)
        write_with_islands(path, directory, found.nodes, half_values=half)
    return {"fp32_islands": list(found.nodes), "fp32_islands_minimal": found.minimal}


def _convert_to_tensorflow(
    source: Source, request: Request, signature: Signature, directory: Path, progress: Progress
) -> dict[str, Any]:
    with quiet_native_logs():
        from converters.to_tensorflow import SIGNATURES, convert_to_keras, convert_to_saved_model, keras_twin

        model = keras_twin(source.module, source.config, _own_task(source), request.precision)
        if request.file_format == "keras":
            convert_to_keras(model, directory)
            return {"format": "keras"}
        convert_to_saved_model(model, signature, directory)
    return {"format": "saved-model", "signatures": list(SIGNATURES)}


def _convert_to_tflite(
    source: Source, request: Request, signature: Signature, directory: Path, progress: Progress
) -> dict[str, Any]:
    calibration, integer = request.calibration, request.calibration is not None
    quantization: Quantization = "full-integer" if integer else TFLITE_QUANTIZATION[request.precision]
    with quiet_native_logs():
        from converters.to_tensorflow import keras_twin
        from converters.to_tflite import INTEGER_MASK_BIAS, convert_to_tflite

        mask_bias = INTEGER_MASK_BIAS if integer else MASK_BIAS
        convert_to_tflite(
            lambda: keras_twin(source.module, source.config, _own_task(source), "fp32"),
            signature,
            directory,
            quantization=quantization,
            calibration=calibration.batches(signature) if calibration else (),
            mask_bias=mask_bias,
        )
    return {
        "quantization": quantization,
        # What matmuls compute in: only full-integer has no float32 arithmetic left.
        "arithmetic": "int8" if integer else "fp32",
        "calibration": calibration.described if calibration else None,
        "mask_bias": mask_bias,
    }


TFLITE_QUANTIZATION: dict[str, Quantization] = {"fp32": "none", "fp16": "float16", "int8": "dynamic-range"}
CONVERTERS = {"onnx": _convert_to_onnx, "tensorflow": _convert_to_tensorflow, "tflite": _convert_to_tflite}


def _own_task(source: Source) -> Task:
    """``ConversionError``: a module of the user's own, of which there is no Keras twin."""
    if source.task is None:
        raise ConversionError(
            f"{source.name} is a module of your own: only ONNX takes such; TensorFlow and TFLite take LXMERT's own classes"
        )
    return source.task


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
