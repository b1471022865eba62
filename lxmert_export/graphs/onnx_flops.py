"""Counts the operations of an ONNX file, from the shapes that ONNX's inference gives its operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from lxmert_export.artifact.directory import HALF_FILES, ONNX_FILE, Artifact
from lxmert_export.artifact.facts import read_as
from lxmert_export.graphs.onnx_decomposition import load_decomposed
from lxmert_export.graphs.onnx_types import UNREADABLE
from lxmert_export.spec.halves import Half
from lxmert_export.spec.signature import Signature

Shape = tuple[int, ...]
# The most values of a list of sizes.
MOST_SIZES = 64
# Operators on sizes: none of them makes more values than it reads.
ON_SIZES = frozenset(
    "Abs Add Cast Concat Constant Div Equal Gather Identity Max Min Mod Mul Neg ReduceProd ReduceSum Reshape Slice "
    "Squeeze Sub Unsqueeze Where".split()
)


# Operators that multiply matrices, or hold graphs that do, and are not counted.
UNCOUNTED = frozenset(
    "Conv ConvInteger ConvTranspose DeformConv Einsum GRU If LSTM Loop QLinearConv QLinearMatMul RNN Scan "
    "SequenceMap".split()
)
STANDARD = ("", "ai.onnx")


def count_flops(artifact: Artifact, sizes: Mapping[str, int], *, half: Half | None = None) -> int | None:
    """Returns the operations of a call, of the whole graph or of a split artifact's half.

    None: an operator's shape is not known before it runs, or its products are not. ``ArtifactError``: the file cannot be read.
    """
    file, signature = artifact.file(ONNX_FILE), artifact.manifest.signature
    if half is not None:
        assert artifact.halves is not None, f"{artifact.path} is whole"
        file = artifact.file(HALF_FILES[half])
        signature = artifact.halves.signature(half, signature)
    with read_as(artifact, file, UNREADABLE):
        if artifact.is_for_cuda:  # of operators that ONNX's inference of shapes does not know
            return count_graph(ir.to_proto(load_decomposed(file)), signature, sizes)
        return count_graph(onnx.load(file, load_external_data=False), signature, sizes)


def count_graph(model: onnx.ModelProto, signature: Signature, sizes: Mapping[str, int]) -> int | None:
    """Counts a graph without its weights, which is changed: its inputs get the sizes of the call."""
    if any(node.domain not in STANDARD or node.op_type in UNCOUNTED for node in model.graph.node):
        return None
    shapes = {spec.name: spec.shape(sizes) for spec in signature.inputs}
    for value in model.graph.input:
        value.type.tensor_type.ClearField("shape")
        for size in shapes[value.name]:
            value.type.tensor_type.shape.dim.add().dim_value = size
    del model.graph.value_info[:]  # the shapes of any size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    known = _inferred_shapes(model)
    total = 0
    for node in model.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        operands = [known.get(name) for name in node.input[:3]]
        needed = operands if node.op_type in ATTENTIONS else operands[:2]
        if None in needed:
            return None
        total += PRODUCTS[node.op_type](node, [shape for shape in operands if shape is not None])
    return total


def _inferred_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Infers shapes, computes the sizes that follow from them, and infers again, until nothing is new."""
    sizes: dict[str, NDArray[np.generic]] = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if not tensor.external_data and math.prod(tensor.dims) <= MOST_SIZES
    }
    while True:
        shapes = _known_shapes(onnx.shape_inference.infer_shapes(model, data_prop=True).graph)
        computed = {node.output[0] for node in model.graph.node if _compute(node, shapes, sizes)}
        if not computed:
            return shapes
        kept = [node for node in model.graph.node if node.output[0] not in computed]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        model.graph.initializer.extend(onnx.numpy_helper.from_array(sizes[name], name) for name in computed)


def _compute(node: onnx.NodeProto, shapes: Mapping[str, Shape], sizes: dict[str, NDArray[np.generic]]) -> bool:
    """Adds the result of an operator to the known sizes, if it follows from shapes and known sizes alone."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        ends = {attribute.name: attribute.i for attribute in node.attribute}
        sizes[node.output[0]] = np.array(shapes[node.input[0]][ends.get("start", 0) : ends.get("end")], np.int64)
        return True
    if node.op_type not in ON_SIZES or not all(name in sizes or not name for name in node.input):
        return False
    given = {name: sizes[name] for name in node.input if name}
    if node.domain or not all(array.dtype.kind in "iub" for array in given.values()):
        return False
    with np.errstate(all="ignore"):
        (result,) = map(np.asarray, ReferenceEvaluator(node).run(None, given))
    if result.dtype.kind not in "iub" or result.size > MOST_SIZES:
        return False
    sizes[node.output[0]] = result
    return True


def _known_shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Returns the shape of every value of which all sizes are known."""
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _matmul(node: onnx.NodeProto, operands: Sequence[Shape]) -> int:
    """[…, m, k] · […, k, n]; the leading axes are broadcast, and an operand of one axis is a row or a column."""
    left, right = operands[:2]
    left = left if len(left) > 1 else (1, *left)
    right = right if len(right) > 1 else (*right, 1)
    return 2 * math.prod(_broadcast(left[:-2], right[:-2])) * left[-2] * left[-1] * right[-1]


def _broadcast(left: Shape, right: Shape) -> list[int]:
    rank = max(len(left), len(right))
    padded = ((1,) * (rank - len(shape)) + shape for shape in (left, right))
    return [max(pair) for pair in zip(*padded, strict=True)]


def _gemm(node: onnx.NodeProto, operands: Sequence[Shape]) -> int:
    """[m, k] · [k, n], each of them transposed if the operator says so."""
    turned = {attribute.name: attribute.i for attribute in node.attribute}
    rows, length = reversed(operands[0]) if turned.get("transA") else operands[0]
    return 2 * rows * length * operands[1][0 if turned.get("transB") else 1]


def _attention(node: onnx.NodeProto, operands: Sequence[Shape]) -> int:
    """The scores and the mixing of query [B, N, Q, D], key [B, N, K, D] and value [B, N, K, E], or of [B, S, N * D] each."""
    query, key, value = operands[:3]
    queries = math.prod(query[:-1])  # in all heads, if they have an axis of their own
    return 2 * queries * key[-2] * (query[-1] + value[-1])


PRODUCTS: dict[str, Callable[[onnx.NodeProto, Sequence[Shape]], int]] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "Gemm": _gemm,
    "Attention": _attention,
}
ATTENTIONS = frozenset({"Attention"})
