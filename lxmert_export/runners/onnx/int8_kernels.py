"""Whether onnxruntime multiplies int8 exactly on this CPU: its kernels are held to whole numbers that numpy computes.

Kernels of x86 CPUs without VNNI add two products in 16 bits, and saturate if the weights are large. An onnxruntime was wrong
with AMX, too (microsoft/onnxruntime#26324).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# Rows, inputs and outputs of each trial: sizes of this network, and sizes that leave a rest in every kernel's blocks.
SHAPES = ((1, 768, 768), (20, 768, 129), (36, 3072, 65), (7, 65, 33))
OPSET, IR_VERSION = 18, 8


@cache
def is_exact(weight_range: int) -> bool:
    """Whether every product is exact if weights reach a magnitude; activations reach 127."""
    return all(_is_exact(weight_range, *shape) for shape in SHAPES)


def _is_exact(weight_range: int, rows: int, inputs: int, outputs: int) -> bool:
    generator = np.random.default_rng(rows)
    # The largest magnitudes in every second number, where a sum of two products saturates first.
    values = generator.integers(-127, 128, (rows, inputs)).astype(np.int8)
    values[:, ::3] = 127
    weight = generator.integers(-weight_range, weight_range + 1, (inputs, outputs)).astype(np.int8)
    weight[:, ::2] = np.where(weight[:, ::2] < 0, -weight_range, weight_range)
    wanted = (values.astype(np.int64) @ weight.astype(np.int64)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(_product(weight), options, providers=["CPUExecutionProvider"])
    return bool(np.array_equal(session.run(None, {"values": values.astype(np.float32)})[0], wanted))


def _product(weight: NDArray[np.int8]) -> bytes:
    """A model that multiplies in int8, with steps of 1: in the form that our exports have."""
    inputs, outputs = weight.shape
    constants: dict[str, NDArray[np.generic]] = {
        "step": np.array(1, np.float32), "zero": np.array(0, np.int8), "weight": weight,
        "steps": np.ones(outputs, np.float32), "zeros": np.zeros(outputs, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["values", "step", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "step", "zero"], ["given"]),
        helper.make_node("DequantizeLinear", ["weight", "steps", "zeros"], ["whole"], axis=1),
        helper.make_node("MatMul", ["given", "whole"], ["result"]),
    ]
    graph = helper.make_graph(
        nodes,
        "int8",
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    content: bytes = model.SerializeToString()
    return content
