"""Emulates TF32 in an ONNX graph: what is multiplied in a matrix product is rounded to 10 bits behind the leading one.

A tensor core multiplies such numbers exactly, and adds the products in float32. The file's other operators stay in float32.
Source: NVIDIA A100 Tensor Core GPU Architecture, "TensorFloat-32"; cuBLAS documentation, ``CUBLAS_TF32_TENSOR_OP_MATH``.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lxmert_export.graphs.onnx_rounding import insert

TF32 = "tf32"
# The operators whose first two inputs tensor cores multiply.
PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "Conv"})
KEPT_BITS, BITS = 11, 24  # of a significand, the leading one included: in TF32 and in float32
# Veltkamp's splitting: x·s - (x·s - x) is x rounded to the nearest number of so many bits (Dekker, Numer. Math. 18, 1971).
SPLITTER = np.float32(2.0 ** (BITS - KEPT_BITS) + 1)


def round_products(graph: ir.Graph) -> None:
    """Rounds the inputs of every matrix product in a float32 graph."""
    known: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if node.op_type not in PRODUCTS:
            continue
        for place, value in enumerate(node.inputs[:2]):
            if value is None or value.dtype != ir.DataType.FLOAT:
                continue
            if value not in known:
                known[value] = _stored(graph, value) if value.is_initializer() else _rounded(graph, value)
            node.replace_input_with(place, known[value])
    for value in known:
        if value.is_initializer() and not value.uses() and value not in graph.outputs:
            del graph.initializers[value.name or ""]  # only its rounded copy is read


def rounded_to_tf32(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns float32 numbers, rounded to the nearest ones that TF32 holds; magnitudes above 2^114 overflow."""
    scaled = array * SPLITTER
    return np.asarray(scaled - (scaled - array), dtype=np.float32)


def _rounded(graph: ir.Graph, value: ir.Value) -> ir.Value:
    after, name = value.producer(), value.name or "value"
    splitter = ir.node("Constant", [], {"value": ir.tensor(np.array(SPLITTER))}, name=f"{name}/splitter")
    scaled = ir.node("Mul", [value, splitter.outputs[0]], name=f"{name}/scaled")
    rest = ir.node("Sub", [scaled.outputs[0], value], name=f"{name}/rest")
    result = ir.node("Sub", [scaled.outputs[0], rest.outputs[0]], name=f"{name}/tf32")
    nodes = [splitter, scaled, rest, result]
    for node in nodes:
        node.outputs[0].dtype = ir.DataType.FLOAT
    insert(graph, nodes, after)
    return result.outputs[0]


def _stored(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Returns a rounded copy of a weight; it is rounded when the file is written, not at every run."""
    stored = value.const_value
    assert stored is not None and value.shape is not None, "weights are in the file"
    twin = ir.Value(name=f"{value.name}/tf32", type=value.type, shape=value.shape)
    twin.const_value = ir.LazyTensor(
        lambda: ir.Tensor(rounded_to_tf32(stored.numpy())), dtype=stored.dtype, shape=value.shape, name=twin.name
    )
    graph.register_initializer(twin)
    return twin
