"""Puts other weights into a converted TFLite file: finds each buffer that depends on weights once, then overwrites it.

The converter folds a LayerNorm's gain and shift into the linear layers that read it, and the half of the visual sum
into the first vision layer. So each buffer of a real file is compared with everything that it could hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema
from torch import nn

from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from converters.to_tensorflow import keras_twin
from converters.to_tflite import convert_to_tflite
from lxmert_export.errors import ConversionError
from lxmert_export.exporting.targets import TFLITE_QUANTIZATION
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.parity.recording import Run
from lxmert_export.runners.tflite.litert import SERVED
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Precision, Signature, Task
from lxmert_export.spec.weight_names import TIED_DECODER, WORD_EMBEDDING

Weights = Mapping[str, NDArray[np.float32]]
Formula = Callable[[Weights], NDArray[np.float32]]
INT8 = 9
NUMPY_TYPES = {0: np.float32, 1: np.float16, INT8: np.int8}  # the values of TFLite's TensorType that store weights
LANGUAGE_TABLES = "lxmert.embeddings."
HALF = 0.5  # the factor of the visual sum, which the first vision layer reads
WORD_BIAS = "masked_language_head.bias"
# A buffer holds the nearest formula, if that is no farther away than rounding to fp16, or half a step of int8.
NEAR = {np.float32: 1e-5, np.float16: 1e-3, np.int8: 0.51}


@dataclass(frozen=True)
class Slot:
    """A buffer that depends on weights: views of its values and int8 scales; ``formula`` computes what it holds."""

    values: NDArray[Any]
    scales: NDArray[np.float32] | None
    formula: Formula
    followers: tuple[NDArray[np.float32], ...] = ()  # the scales of what is looked up in an int8 table

    def write(self, weights: Weights) -> None:
        """Overwrites the buffer, quantised as the converter does it."""
        numbers = self.formula(weights)
        if self.scales is None:
            self.values[...] = numbers.astype(self.values.dtype)
            return
        self.scales[...], self.values[...] = quantized(numbers, len(self.scales))
        for follower in self.followers:
            follower[...] = self.scales


def quantized(numbers: NDArray[np.float32], channels: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Quantises as TFLite's converter does: symmetric int8, one scale per row or one for all."""
    rows = numbers.reshape(channels, -1)
    largest = np.abs(rows).max(axis=1)
    scales = np.where(largest > 0, largest / np.float32(127), 1).astype(np.float32)  # a row of zeros may have any scale
    steps = np.round(rows / scales[:, None])
    return scales, np.clip(steps, -127, 127).astype(np.int8).reshape(numbers.shape)


class TfliteFile:
    """One architecture's TFLite file in a precision, to be run with other weights."""

    def __init__(self, module: nn.Module, config: LxmertConfig, signature: Signature, precision: Precision) -> None:
        with quiet_native_logs():
            twin = keras_twin(module, config, cast(Task, signature.task), "fp32")
        self.content = bytearray(converted(twin, signature, precision))
        self.slots = list(find_slots(self.content, numpy_weights(module), config.head_size))

    def with_weights(self, module: nn.Module) -> Run:
        """Runs this file with a module's weights."""
        weights = numpy_weights(module)
        for slot in self.slots:
            slot.write(weights)
        return served(bytes(self.content))


def converted(twin: PreTrainedTFLxmert, signature: Signature, precision: Precision) -> bytes:
    """Converts a Keras model to TFLite."""
    with quiet_native_logs(), tempfile.TemporaryDirectory(prefix="lxmert-export-study-") as place:
        quantization = TFLITE_QUANTIZATION[precision]
        return convert_to_tflite(lambda: twin, signature, Path(place), quantization=quantization).read_bytes()


def served(content: bytes) -> Run:
    """Returns a function that runs a TFLite file."""
    with quiet_native_logs():
        serve = Interpreter(model_content=content, num_threads=1).get_signature_runner(SERVED)
    return lambda inputs: {**serve(**inputs)}


def numpy_weights(module: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Returns every parameter by its full name, the backbone's prefix included."""
    prefix = "lxmert." if getattr(module, "task", "") == "model" else ""
    return {prefix + name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def find_slots(content: bytearray, weights: Weights, head_size: int) -> Iterator[Slot]:
    """Finds what each buffer of a file made from these weights holds. ``ConversionError``: nothing explains one."""
    model = schema.Model.GetRootAsModel(content, 0)
    tensors = [model.Subgraphs(0).Tensors(number) for number in range(model.Subgraphs(0).TensorsLength())]
    tensors = [tensor for tensor in tensors if tensor.Type() in NUMPY_TYPES]
    formulas = list(candidates(weights, head_size))
    stored = [tensor for tensor in tensors if model.Buffers(tensor.Buffer()).DataLength()]
    computed_scales = [
        tensor.Quantization().ScaleAsNumpy() for tensor in tensors if tensor not in stored and tensor.Type() == INT8
    ]
    for tensor in stored:
        shape = tuple(int(size) for size in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
        values = model.Buffers(tensor.Buffer()).DataAsNumpy().view(NUMPY_TYPES[tensor.Type()]).reshape(shape)
        if values.size < 2:  # a constant of the graph
            continue
        scales = tensor.Quantization().ScaleAsNumpy() if tensor.Type() == INT8 else None
        followers = () if scales is None else tuple(s for s in computed_scales if np.array_equal(s, scales))
        formula = nearest(values, scales, formulas, weights, tensor.Name().decode())
        yield Slot(values, scales, formula, followers)


def nearest(
    values: NDArray[Any], scales: NDArray[np.float32] | None, formulas: list[Formula], weights: Weights, name: str
) -> Formula:
    """Returns the formula whose result a buffer holds."""
    found, least = None, np.inf
    wide = values.astype(np.float64)
    for formula in formulas:
        numbers = formula(weights)
        if numbers.shape != values.shape:
            continue
        if scales is None:
            unit = np.abs(numbers).max()
            distance = np.abs(wide - numbers).max() / unit
        else:
            steps = numbers.reshape(len(scales), -1) / scales[:, None]
            distance = np.abs(wide.reshape(steps.shape) - steps).max()
        if distance < least:
            found, least = formula, distance
    if found is None or least > NEAR[values.dtype.type]:
        raise ConversionError(
            f"{name} {values.shape} {values.dtype}: no formula of the weights gives it; the nearest is off by {least:.3g}"
        )
    return found


def candidates(weights: Weights, head_size: int) -> Iterator[Formula]:
    """Yields what a buffer could hold: a weight, plain or with a number or a LayerNorm folded into it."""
    norms = [name.removesuffix(".weight") for name in weights if name.endswith("layer_norm.weight")]
    for name, values in weights.items():
        yield partial(plain, name)
        factors = [1.0, *((head_size**-0.5,) if ".query." in name else ()), *((HALF,) if values.ndim == 2 else ())]
        for factor in factors[1:]:
            yield partial(multiplied, name, factor)
        if values.ndim < 2 or (name.startswith(LANGUAGE_TABLES) and name != WORD_EMBEDDING):
            continue
        bias = WORD_BIAS if name in (WORD_EMBEDDING, TIED_DECODER) else name.replace(".weight", ".bias")
        for norm, factor in product(norms, factors):
            if len(weights[f"{norm}.weight"]) == values.shape[1]:
                yield partial(scaled, name, norm, factor)
                if bias in weights:
                    yield partial(shifted, name, bias, norm, factor)


def plain(name: str, weights: Weights) -> NDArray[np.float32]:
    """A weight as it is."""
    return weights[name]


def multiplied(name: str, factor: float, weights: Weights) -> NDArray[np.float32]:
    """A weight into which a number is folded: the half of the visual sum, or the scale of attention."""
    folded: NDArray[np.float32] = weights[name] * np.float32(factor)
    return folded


def scaled(name: str, norm: str, factor: float, weights: Weights) -> NDArray[np.float32]:
    """A kernel into which a LayerNorm's gain is folded."""
    folded: NDArray[np.float32] = weights[name] * weights[f"{norm}.weight"] * np.float32(factor)
    return folded


def shifted(name: str, bias: str, norm: str, factor: float, weights: Weights) -> NDArray[np.float32]:
    """A bias into which a LayerNorm's shift is folded; the converter adds in another order: the last bit may differ."""
    exact = weights[name].astype(np.float64) @ weights[f"{norm}.bias"].astype(np.float64) + weights[bias]
    return (exact * factor).astype(np.float32)
