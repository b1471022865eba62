"""Computes only the rows that are read: a head over [CLS] needs one row of whatever nothing else reads.

The trace computes a whole sequence and reads row 0 of it. The read moves towards the inputs, through every operator that
computes each row by itself, up to a value whose other rows are needed:

    before    x → query, attention, feed-forward [B, L, H] → Gather(row 0) → pooler
    after     x → Slice(row 0) → query, attention, feed-forward [B, 1, H] → Gather(row 0) → pooler
              x → key, value [B, L, H], which attention reads whole

No result of a row depends on the other rows of the same operator, so the answers are the same up to the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lxmert_export.graphs.onnx_launches import MICROSOFT

# Operators that compute each element from the elements at its place in the inputs, broadcast.
ELEMENTWISE = frozenset(
    (
        "Abs", "Add", "Cast", "Clip", "Cos", "Div", "Erf", "Exp", "Gelu", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mul",
        "Neg", "Pow", "Reciprocal", "Relu", "Sigmoid", "Sin", "Sqrt", "Sub", "Sum", "Tanh", "Where",
    )
)  # fmt: skip
# Marks, in memory only, a Slice that was put there.
OURS = "lxmert-export.row"
# What to read of each input instead: the place of the input → its axis.
Reads = dict[int, int]


def read_rows_early(graph: ir.Graph) -> None:
    """Moves each read of row 0 towards the inputs, in place. A value that anything else reads stays whole.

    ONNX's ``Attention`` operator stays whole too: TensorRT has no fused kernel of it for one query.
    """
    complete_shapes(graph)
    for node in reversed(list(graph)):
        axis = _axis_that_all_read(node, graph)
        if axis is None:
            continue
        reads = REWRITES[_kind(node)](node, axis)
        if reads is None:
            continue
        for place, input_axis in reads.items():
            node.replace_input_with(place, _sliced(graph, node, place, input_axis))
        _keep_one_row(node.outputs[0], axis)


def complete_shapes(graph: ir.Graph) -> None:
    """Sets shapes that the trace leaves out: those of constants, of products with weights, and inside of activations."""
    for node in graph:
        value = node.outputs[0]
        if value.shape is None and (found := _shape_of_result(node)) is not None:
            value.shape = found
            value.type = node.inputs[-1].type if node.inputs and node.inputs[-1] is not None else value.type


def _shape_of_result(node: ir.Node) -> ir.Shape | None:
    shapes = [read.shape for read in node.inputs if read is not None and read.shape is not None]
    if node.op_type == "Constant":
        tensor = ir.convenience.get_const_tensor(node.outputs[0])
        return None if tensor is None else ir.Shape(tensor.numpy().shape)
    if len(shapes) < len(node.inputs) or not shapes:
        return None
    if node.op_type == "MatMul" and len(shapes[1]) == 2:
        return ir.Shape([*shapes[0][:-1], shapes[1][1]])
    return _broadcast(shapes) if node.op_type in ELEMENTWISE - {"Cast"} else None


def _broadcast(shapes: Sequence[ir.Shape]) -> ir.Shape:
    sizes: list[int | ir.SymbolicDim] = [1] * max(map(len, shapes))
    for shape in shapes:
        for place in range(1, len(shape) + 1):
            if shape[-place] != 1:
                sizes[-place] = shape[-place]
    return ir.Shape(sizes)


def _kind(node: ir.Node) -> str:
    return "elementwise" if node.op_type in ELEMENTWISE else node.op_type


def _axis_that_all_read(node: ir.Node, graph: ir.Graph) -> int | None:
    """Returns the axis whose row 0 is all that is read of a node's one output; None: more is read, or it cannot be known."""
    value = node.outputs[0]
    known = (
        node.domain in ("", MICROSOFT)
        and len(node.outputs) == 1
        and value.shape is not None
        and _kind(node) in REWRITES
    )
    if not known or value.is_graph_output():
        return None
    axes = {_axis_of_read(use.node, use.idx) for use in value.uses()}
    (axis,) = axes if len(axes) == 1 else (None,)
    return None if axis is None or value.shape is None or value.shape[axis] == 1 else axis


def _axis_of_read(node: ir.Node, place: int) -> int | None:
    """Returns the axis of which a node reads row 0 of its first input, and no more."""
    if place != 0 or node.domain != "":
        return None
    if node.op_type == "Gather":
        index = _constant(node.inputs[1])
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        return axis if axis > 0 and index is not None and index.tolist() == 0 else None
    if OURS in node.meta:
        start, end, axes = (_constant(value) for value in node.inputs[1:])
        if start is not None and end is not None and axes is not None and start.tolist() == [0] and end.tolist() == [1]:
            return int(axes[0]) if axes[0] > 0 else None
    return None


def _of_elementwise(node: ir.Node, axis: int) -> Reads | None:
    shapes = [None if value is None else value.shape for value in node.inputs]
    rank = len(node.outputs[0].shape or ())
    reads = {}
    for place, shape in enumerate(shapes):
        if shape is None:
            return None
        own_axis = axis - (rank - len(shape))
        if own_axis >= 0 and shape[own_axis] != 1:
            reads[place] = own_axis
    return reads


def _of_matmul(node: ir.Node, axis: int) -> Reads | None:
    """Row i of a product is row i of the first factor times the second."""
    rank, first = len(node.outputs[0].shape or ()), node.inputs[0]
    if first is None or first.shape is None or len(first.shape) < 2 or axis != rank - 2:
        return None
    second = node.inputs[1]
    if second is None or second.shape is None or len(second.shape) < 2:
        return None
    return {0: len(first.shape) - 2}


def _of_row_function(node: ir.Node, axis: int) -> Reads | None:
    """Softmax, LayerNormalization, BiasGelu: from their axis on, or along it, elements depend on one another."""
    rank = len(node.outputs[0].shape or ())
    own = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    return {0: axis} if axis < own % rank else None


def _of_transpose(node: ir.Node, axis: int) -> Reads | None:
    return {0: node.attributes["perm"].as_ints()[axis]} if "perm" in node.attributes else None


def _of_reshape(node: ir.Node, axis: int) -> Reads | None:
    """The rows must be an axis of their own before and after, at the same place; the constant shape gets one row."""
    source, result, target = node.inputs[0], node.outputs[0], _constant(node.inputs[1])
    if source is None or source.shape is None or result.shape is None or target is None:
        return None
    for place in range(axis + 1):
        if place >= len(source.shape) or not _same_size(source.shape[place], result.shape[place]):
            return None
    if target[axis] != 0:
        one = target.copy()
        one[axis] = 1
        node.replace_input_with(1, _new_constant(node, one))
    return {0: axis}


def _of_skip_norm(node: ir.Node, axis: int) -> Reads | None:
    """Both summands have the shape of the result."""
    reads = _of_row_function(node, axis)
    return None if reads is None else {**reads, 1: axis}


REWRITES: dict[str, Callable[[ir.Node, int], Reads | None]] = {
    "elementwise": _of_elementwise,
    "MatMul": _of_matmul,
    "Softmax": _of_row_function,
    "LayerNormalization": _of_row_function,
    "SkipLayerNormalization": _of_skip_norm,
    "BiasGelu": _of_row_function,
    "Transpose": _of_transpose,
    "Reshape": _of_reshape,
}


def _same_size(one: int | ir.SymbolicDim, other: int | ir.SymbolicDim) -> bool:
    return one == other and (isinstance(one, int) or one.value is not None)


def _sliced(graph: ir.Graph, reader: ir.Node, place: int, axis: int) -> ir.Value:
    """Returns row 0 of an input along an axis, as ``[…, 1, …]``; a Slice that is there is used again."""
    value = reader.inputs[place]
    assert value is not None and value.shape is not None
    for use in value.uses():
        if OURS in use.node.meta and _axis_of_read(use.node, use.idx) == axis:
            return use.node.outputs[0]
    slice_node = ir.node("Slice", [value])
    slice_node.meta[OURS] = True
    slice_node.metadata_props.update(reader.metadata_props)
    constants = [_constant_node(np.array([number])) for number in (0, 1, axis)]
    slice_node.resize_inputs(4)
    for number, constant in enumerate(constants, 1):
        slice_node.replace_input_with(number, constant.outputs[0])
    producer = value.producer()
    nodes = [*constants, slice_node]
    if producer is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(producer, nodes)
    result = slice_node.outputs[0]
    result.type, result.shape = value.type, value.shape.copy()
    _set_size(result, axis)
    return result


def _keep_one_row(value: ir.Value, axis: int) -> None:
    """Sets the size of a value that has one row now, and takes the Slices of it away."""
    _set_size(value, axis)
    for use in list(value.uses()):
        if OURS in use.node.meta:
            use.node.outputs[0].replace_all_uses_with(value)
            assert use.node.graph is not None
            use.node.graph.remove(use.node, safe=True)


def _set_size(value: ir.Value, axis: int) -> None:
    assert value.shape is not None
    value.shape = ir.Shape([1 if place == axis else size for place, size in enumerate(value.shape)])


def _constant(value: ir.Value | None) -> NDArray[np.int64] | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.size > 8 else tensor.numpy()


def _constant_node(numbers: NDArray[np.int64]) -> ir.Node:
    node = ir.node("Constant", [], {"value": ir.tensor(numbers)})
    node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.INT64, ir.Shape(numbers.shape)
    return node


def _new_constant(reader: ir.Node, numbers: NDArray[np.int64]) -> ir.Value:
    node = _constant_node(numbers)
    assert reader.graph is not None
    reader.graph.insert_before(reader, node)
    return node.outputs[0]
