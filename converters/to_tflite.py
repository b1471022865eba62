"""Keras model → SavedModel → one ``.tflite`` file of built-in operators, every shape known before it runs."""

from __future__ import annotations

import gc
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from converters.tensorflow_model.layers import MASK_BIAS
from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from converters.to_tensorflow import DEFAULT, convert_to_saved_model
from lxmert_export.artifact.directory import TFLITE_FILE
from lxmert_export.errors import ConversionError, first_line
from lxmert_export.files.glob_free import glob_free
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import Signature

# float16: weights halved, arithmetic in float32. dynamic-range: weights int8, activations quantised as they come.
# full-integer: every operator in int8, ranges measured on calibration inputs.
Quantization = Literal["none", "float16", "dynamic-range", "full-integer"]
# One int8 scale must hold a masked key's score and the others: -10000 would leave all of these one step. exp(-40) is 0 in
# int8, whose softmax ends at 1/256.
INTEGER_MASK_BIAS = -40.0


def convert_to_tflite(
    make_model: Callable[[], PreTrainedTFLxmert],
    signature: Signature,
    directory: Path,
    *,
    quantization: Quantization = "none",
    calibration: Sequence[Arrays] = (),
    mask_bias: float = MASK_BIAS,
) -> Path:
    """Writes ``model.tflite`` with the signature ``serving_default``, and returns its path.

    The model is made here, so that nothing else holds it: it is let go before TFLite's converter takes its memory.
    ``calibration`` are batches of real inputs, for full-integer. ``ConversionError``: an operator that TFLite has not, or a
    signature whose shapes it could only tell while it runs.
    """
    with (
        glob_free(directory) as plain,
        tempfile.TemporaryDirectory(prefix=".saved-model-", dir=plain) as temporary,
    ):
        saved = _write_saved_model(make_model(), signature, Path(temporary), mask_bias)
        gc.collect()  # a Keras model is held by itself, in cycles, and the converter takes seven times its weights
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[DEFAULT])
        _quantize(converter, quantization, calibration)
        try:
            with warnings.catch_warnings():
                # the converter's own use, while it calibrates, of its own deprecated class
                warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
                content = converter.convert()
        except (ConverterError, ValueError, RuntimeError) as error:
            raise ConversionError(f"TFLite cannot express it: {first_line(error)}") from error
    path = directory / TFLITE_FILE
    path.write_bytes(content)
    return path


def _write_saved_model(model: PreTrainedTFLxmert, signature: Signature, directory: Path, mask_bias: float) -> Path:
    model.backbone().mask_bias = mask_bias
    _make_shapes_static(model, signature)
    return convert_to_saved_model(model, signature, directory, served=[DEFAULT])


def _make_shapes_static(model: PreTrainedTFLxmert, signature: Signature) -> None:
    """Where a reshape would have two unknown sizes, hidden states keep their axes and are never reshaped.

    A shape that TFLite computes while it runs makes tensors dynamic, and XNNPACK on two threads then gave wrong numbers from
    the second call on (ai-edge-litert 2.3.0; in a trial an RMS error of 5 where 1e-6 is usual), without a word.
    """
    fixed = signature.fixed_sizes
    one_unknown = "batch" in fixed or {"text", "objects"} <= set(fixed)
    if signature.task == "nlvr2" and not one_unknown:
        raise ConversionError(
            "the two pictures of nlvr2 need fixed axes in TFLite: add --batch N, or --text N --objects N"
        )
    model.backbone().matrices = one_unknown


def _quantize(converter: Any, quantization: Quantization, calibration: Sequence[Arrays]) -> None:
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if quantization == "none":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization == "full-integer":

        def batches() -> Iterator[tuple[str, Arrays]]:
            for batch in calibration:
                yield DEFAULT, batch

        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = batches
