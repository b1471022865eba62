"""Stores the weights of a TFLite file in float16, and leaves every other constant in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from lxmert_export.errors import ConversionError

# A weight is a matrix. Vectors and scalars stay in float32: they are a thousandth of the file, and float16 cannot hold
# LayerNorm's eps. TFLite's own float16 conversion stores 1e-12 as 0, and then divides 0 by 0.
LEAST_AXES = 2


def store_weights_in_half(content: bytes) -> bytes:
    """Returns the file with each weight in float16 and a ``DEQUANTIZE`` after it; arithmetic stays in float32.

    ``ConversionError``: a weight does not fit float16.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(content)
    operator_code = _dequantize_code(model)
    halves: dict[int, int] = {}  # float32 buffers → float16 buffers; tied weights share one
    for graph in model.subgraphs:
        widening = []
        for index, tensor in enumerate(list(graph.tensors)):
            if not _is_weight(tensor, model.buffers):
                continue
            if tensor.buffer not in halves:
                halves[tensor.buffer] = len(model.buffers)
                model.buffers.append(_half(model.buffers[tensor.buffer], tensor.name.decode()))
            graph.tensors.append(_stored(tensor, halves[tensor.buffer]))
            tensor.buffer = 0  # the empty buffer: from now on the operator below computes it
            widening.append(_operator(operator_code, len(graph.tensors) - 1, index))
        graph.operators = widening + graph.operators
    for buffer in halves:
        model.buffers[buffer].data = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _is_weight(tensor: Any, buffers: Any) -> bool:
    data = buffers[tensor.buffer].data
    is_constant = tensor.buffer != 0 and data is not None and len(data) > 0
    return is_constant and tensor.type == schema.TensorType.FLOAT32 and len(tensor.shape) >= LEAST_AXES


def _half(buffer: Any, name: str) -> Any:
    values = np.frombuffer(buffer.data, "<f4")
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    if not np.isfinite(half).all():
        largest = float(np.abs(values).max())
        raise ConversionError(f"{name} does not fit float16: its largest magnitude is {largest:.4g}")
    stored = schema.BufferT()
    stored.data = half.view(np.uint8)
    return stored


def _stored(tensor: Any, buffer: int) -> Any:
    half = schema.TensorT()
    half.shape, half.type, half.buffer = tensor.shape, schema.TensorType.FLOAT16, buffer
    half.name = tensor.name + b"/half"
    return half


def _operator(code: int, source: int, target: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, [source], [target]
    operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = schema.DequantizeOptionsT()
    return operator


def _dequantize_code(model: Any) -> int:
    """Returns the place of ``DEQUANTIZE`` in the file's table of operators, where it is appended."""
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # the first that takes float16
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
