"""Converts a Keras model to one ``.tflite`` file of built-in operators, with every shape known before it runs."""

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
from converters.tflite.half_weights import store_weights_in_half
from converters.to_tensorflow import DEFAULT, convert_to_saved_model
from lxmert_export.artifact.directory import TFLITE_FILE
from lxmert_export.errors import ConversionError, first_line
from lxmert_export.files.glob_free import glob_free
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import Signature

# float16: weights in float16, arithmetic in float32.
# dynamic-range: weights in int8, activations quantised at run time.
# full-integer: every operator in int8, with ranges measured on calibration inputs.
Quantization = Literal["none", "float16", "dynamic-range", "full-integer"]
# One int8 scale covers the scores of masked and seen keys. With -10000, all seen keys would fall into one step of it.
# -40 is enough: exp(-40) is 0 in int8, where the smallest softmax value is 1/256.
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

    ``make_model`` is called here, so that the model can be freed before TFLite's converter needs the memory.
    ``calibration``: batches of real inputs by name, for full-integer. ``ConversionError``: TFLite lacks an operator, a
    shape would be known only at run time, or a weight does not fit float16.
    """
    with (
        glob_free(directory) as plain,
        tempfile.TemporaryDirectory(prefix=".saved-model-", dir=plain) as temporary,
    ):
        saved = _write_saved_model(make_model(), signature, Path(temporary), mask_bias)
        gc.collect()  # frees the model, which has reference cycles: the converter needs seven times its weights
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[DEFAULT])
        # Versions are in the manifest. To add them here, the converter would read and write the whole file in Python again.
        converter.exclude_conversion_metadata = True
        _quantize(converter, quantization, calibration)
        try:
            with warnings.catch_warnings():
                # the converter itself uses this deprecated class when it calibrates
                warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
                content = converter.convert()
        except (ConverterError, ValueError, RuntimeError) as error:
            raise ConversionError(f"the model cannot be converted to TFLite: {first_line(error)}") from error
    path = directory / TFLITE_FILE
    path.write_bytes(store_weights_in_half(content) if quantization == "float16" else content)
    return path


def _write_saved_model(model: PreTrainedTFLxmert, signature: Signature, directory: Path, mask_bias: float) -> Path:
    model.backbone().mask_bias = mask_bias
    _make_shapes_static(model, signature)
    return convert_to_saved_model(model, signature, directory, served=[DEFAULT])


def _make_shapes_static(model: PreTrainedTFLxmert, signature: Signature) -> None:
    """Keeps hidden states three-dimensional if a reshape would have two unknown sizes.

    A shape that TFLite computes at run time makes tensors dynamic. XNNPACK on two threads then returned wrong numbers
    from the second call on, without an error (ai-edge-litert 2.3.0; in a trial an RMS error of 5 instead of 1e-6).
    ``ConversionError``: nlvr2 with two unknown sizes; it cannot do without the reshape.
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
    if quantization in ("none", "float16"):  # the weights are stored in half afterwards
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "full-integer":

        def batches() -> Iterator[tuple[str, Arrays]]:
            for batch in calibration:
                yield DEFAULT, batch

        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = batches
