"""Calls the converter of each target. Each function returns the options for the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lxmert_export.artifact.directory import ONNX_FILE, STATIC, Artifact
from lxmert_export.artifact.manifest import Manifest
from lxmert_export.artifact.session_settings import CPU_SETTINGS, CUDA_OPTIONS, CUDA_PROVIDER
from lxmert_export.errors import ConversionError
from lxmert_export.exporting.calibration import Calibration
from lxmert_export.exporting.conversion import Conversion, signature_of
from lxmert_export.model.lxmert import MASK_BIAS
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.option_names import option
from lxmert_export.progress import Progress
from lxmert_export.spec.signature import Attention, Signature

if TYPE_CHECKING:
    from converters.to_tflite import Quantization

AUTO = "auto"  # of ``int8_keep``
TFLITE_QUANTIZATION: dict[str, Quantization] = {"fp32": "none", "fp16": "float16", "int8": "dynamic-range"}


def convert_to_onnx(conversion: Conversion, directory: Path, progress: Progress) -> dict[str, Any]:
    """Writes ``model.onnx``, and ``model.onnx.data`` unless all is to be in a single file; and its halves if they are wanted."""
    from converters import to_onnx
    from converters.onnx.split import write_halves

    described = _write_onnx(conversion, directory, progress)
    if conversion.options.split:
        described["split"] = write_halves(directory / ONNX_FILE).to_dict()
    if conversion.options.single_file:
        to_onnx.join_files(directory)
        described["single_file"] = True
    if conversion.options.optimize_for is not None:
        described["optimize_for"] = conversion.options.optimize_for
    if conversion.options.optimize_for == "cpu":
        described["session_settings"] = [setting.to_dict() for setting in CPU_SETTINGS]
    if conversion.options.optimize_for == "cuda":
        described["provider_options"] = {CUDA_PROVIDER: dict(CUDA_OPTIONS)}
    return described


def _write_onnx(conversion: Conversion, directory: Path, progress: Progress) -> dict[str, Any]:
    from converters import to_onnx

    options = conversion.options
    for_cuda = options.optimize_for == "cuda"
    # In float32 the fused attention is ONNX's operator.
    attention: Attention = "operator" if for_cuda and options.precision == "fp32" else options.attention
    opset = options.opset or to_onnx.DEFAULT_OPSETS[attention]
    if options.searches_islands:
        return {"opset": opset, **_convert_with_islands(conversion, opset, directory, progress)}
    if conversion.calibration is not None:
        return {"opset": opset, **_convert_to_int8(conversion, conversion.calibration, opset, directory, progress)}
    filled = _filled(conversion) if for_cuda else None
    to_onnx.convert_to_onnx(
        conversion.module,
        conversion.signature,
        conversion.limits,
        directory,
        precision=options.precision,
        opset=opset,
        attention=options.attention,
        for_cuda=for_cuda,
        filled=filled,
    )
    lengths = {} if filled is None else {"filled": filled.fixed_sizes}
    return {"opset": opset, "attention": "fused" if for_cuda else options.attention, **lengths}


def _filled(conversion: Conversion) -> Signature | None:
    """Returns the signature with the lengths that fused attentions take; None: they are so, not fixed, or of a module of others.

    Added tokens are masked. Whether a module of the user's own heeds its masks everywhere is not known.
    """
    from converters.onnx.cuda.lengths import filled_sizes

    fixed, longest = conversion.signature.fixed_sizes, conversion.limits.positions
    filled = filled_sizes(fixed, conversion.options.precision, longest)
    if filled == fixed or conversion.model.task is None:
        return None
    return signature_of(conversion.model, replace(conversion.options, signature=None, fixed=filled))


def _convert_with_islands(conversion: Conversion, opset: int, directory: Path, progress: Progress) -> dict[str, Any]:
    """Writes the fp16 file by way of a float32 file, in which the islands that the fp16 file needs are searched."""
    from converters.onnx.islands import write_with_islands
    from converters.to_onnx import convert_to_onnx
    from lxmert_export.exporting.fp32_islands import find_islands

    model, signature = conversion.model, conversion.signature
    half = [spec.name for spec in signature if spec.dtype == "float16"]
    manifest = Manifest("onnx", "fp16", signature.task, model.config, signature, model.checkpoint)
    with TemporaryDirectory(prefix="lxmert-export-float32-") as wide:
        path = Path(wide) / ONNX_FILE
        convert_to_onnx(
            model.module, signature.in_float32(), conversion.limits, path.parent, precision="fp32", opset=opset
        )
        keep_standard = conversion.options.fp32_islands == "standard+"
        planned = Artifact(directory, manifest, model.name)
        found = find_islands(path, planned, model.module, progress, keep_standard=keep_standard)
        write_with_islands(path, directory, found.nodes, half_values=half)
    added = {"fp32_islands_added": list(found.searched)} if keep_standard else {}
    return {"fp32_islands": list(found.nodes), "fp32_islands_minimal": found.minimal, **added}


def _convert_to_int8(
    conversion: Conversion, calibration: Calibration, opset: int, directory: Path, progress: Progress
) -> dict[str, Any]:
    """Writes the int8 file by way of a float32 file, in which activations are measured."""
    from converters.onnx.quantized import stored_matmuls, write_quantized
    from converters.to_onnx import convert_to_onnx
    from lxmert_export.exporting.activation_steps import apart
    from lxmert_export.exporting.int8_sensitivity import find_sensitive
    from lxmert_export.exporting.smoothing import choose_smoothed_steps
    from lxmert_export.graphs.int8_saturation import WEIGHT_RANGES, saturation_of
    from lxmert_export.graphs.onnx_facts import float32_matmuls

    options, signature = conversion.options, conversion.signature
    weight_range = WEIGHT_RANGES[options.int8_range]
    with TemporaryDirectory(prefix="lxmert-export-float32-") as wide:
        path = Path(wide) / ONNX_FILE
        convert_to_onnx(conversion.module, signature, conversion.limits, path.parent, precision="fp32", opset=opset)
        searches = options.int8_keep == (AUTO,)
        named = [] if searches else _named_matmuls(options.int8_keep, stored_matmuls(path))  # before what takes minutes
        measured, kept_back = apart(calibration.batches(signature))
        steps, factors = choose_smoothed_steps(path, measured, kept_back, weight_range, progress)
        kept = find_sensitive(path, steps, kept_back, weight_range, progress, factors) if searches else named
        chosen = {name: step for name, step in steps.items() if name not in kept}
        if not chosen:
            reason = (
                f"{option('int8_keep')} names them all" if steps else "it multiplies by no stored weight of two axes"
            )
            raise ConversionError(f"{conversion.model.name}: no matmul would compute in int8: {reason}")
        in_float32 = [name for name in stored_matmuls(path) if name not in chosen]
        chosen_steps = {name: step.step for name, step in chosen.items()}
        written = write_quantized(path, directory, chosen_steps, weight_range=weight_range, factors=factors)
    saturating = saturation_of(written)
    return {
        "quantization": STATIC,
        "arithmetic": "int8",
        "calibration": calibration.described,
        "int8_range": options.int8_range,
        "int8_keep": in_float32,
        "float32_matmuls": float32_matmuls(written),
        "int8_smoothed": len({step.smoothed for step in chosen.values()} - {None}),
        "int8_methods": dict(Counter(step.method for step in chosen.values())),
        "int8_saturating": {"columns": saturating.count, "of": saturating.all_columns},
    }


def _named_matmuls(names: Collection[str], known: Iterable[str]) -> list[str]:
    """Returns the names in the graph's order. ``ConversionError``: no matmul has one of them."""
    known = list(known)
    if unknown := sorted(set(names) - set(known)):
        near = get_close_matches(unknown[0], known, 3) or known[:1]
        such = f"; {' and '.join(near)} {'are' if len(near) > 1 else 'is'} among its {len(known)}" if known else ""
        raise ConversionError(f"{option('int8_keep')}: no matmul with weights is named {', '.join(unknown)}{such}")
    return [name for name in known if name in names]


def convert_to_tensorflow(conversion: Conversion, directory: Path, progress: Progress) -> dict[str, Any]:
    """Writes ``saved_model/`` or ``model.keras``."""
    options = conversion.options
    with quiet_native_logs():
        from converters.to_tensorflow import SIGNATURES, convert_to_keras, convert_to_saved_model, keras_twin

        model = keras_twin(conversion.module, conversion.model.config, conversion.lxmert_task, options.precision)
        if options.file_format == "keras":
            convert_to_keras(model, directory)
            return {"format": "keras"}
        convert_to_saved_model(model, conversion.signature, directory)
    return {"format": "saved-model", "signatures": list(SIGNATURES)}


def convert_to_tflite(conversion: Conversion, directory: Path, progress: Progress) -> dict[str, Any]:
    """Writes ``model.tflite``."""
    calibration, signature, integer = conversion.calibration, conversion.signature, conversion.calibration is not None
    quantization: Quantization = "full-integer" if integer else TFLITE_QUANTIZATION[conversion.options.precision]
    with quiet_native_logs():
        from converters import to_tflite
        from converters.to_tensorflow import keras_twin

        mask_bias = to_tflite.INTEGER_MASK_BIAS if integer else MASK_BIAS
        to_tflite.convert_to_tflite(
            lambda: keras_twin(conversion.module, conversion.model.config, conversion.lxmert_task, "fp32"),
            signature,
            directory,
            quantization=quantization,
            calibration=calibration.batches(signature) if calibration else (),
            mask_bias=mask_bias,
        )
    return {
        "quantization": quantization,
        # What matmuls compute in: any other quantization leaves float32 arithmetic in the graph.
        "arithmetic": "int8" if integer else "fp32",
        "calibration": calibration.described if calibration else None,
        "mask_bias": mask_bias,
    }
