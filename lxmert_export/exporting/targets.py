"""The converter of each target, and the options that it is called with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.artifact.manifest import Manifest
from lxmert_export.errors import ConversionError
from lxmert_export.exporting.calibration import Calibration
from lxmert_export.model.lxmert import MASK_BIAS
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.progress import Progress
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Attention, Precision, Signature, Task

if TYPE_CHECKING:
    from converters.to_tflite import Quantization
from lxmert_export.exporting.source import Source


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
    from converters.onnx.islands import write_with_islands
    from converters.to_onnx import convert_to_onnx
    from lxmert_export.exporting.fp32_islands import find_islands

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
