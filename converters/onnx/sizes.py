"""Shortens what a graph computes of the sizes of its axes.

before    Gather(table, Range(0, Squeeze(Shape(ids)), 1))
after     Slice(table, [0], Shape(ids))       a text of any length
          table, of that many rows            a text of fixed length: the file stores the rows that are read

before    Reshape(Squeeze(Shape(ids)), [-1])
after     Shape(ids)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

# Marks an initializer, in memory only: the file stores this many of the first rows of the parameter that it is named after.
FIRST_ROWS = "lxmert-export.first-rows"


def unwrap_sizes(graph: ir.Graph) -> None:
    """Replaces each size that was made a number, and then a list of one again, by the list, in place."""
    for node in graph:
        if node.op_type == "Reshape" and not _is_output(node) and _list_of(node.inputs[1]) in ([-1], [1]):
            size = _size_of_axis(node.inputs[0])
            if size is not None:
                node.outputs[0].replace_all_uses_with(size)


def slice_positions(graph: ir.Graph) -> None:
    """Replaces each look-up of the rows 0, 1, 2, … of a weight, in place. The Range is left without a reader.

    A table of one row stays as it is: a Slice of it would be broadcast to any length, and a Gather refuses all but one.
    """
    for node in list(graph):
        if node.op_type != "Gather" or _is_output(node):
            continue
        if "axis" in node.attributes and node.attributes["axis"].as_int() != 0:
            continue
        table, places = node.inputs
        if table is None or not table.is_initializer() or table.shape is None or table.shape[0] == 1:
            continue
        length = _length_of_range(places)
        if isinstance(length, int) and _has_rows(table, length) and _read_once_from_the_state(table):
            _cut(table, length)
            node.outputs[0].replace_all_uses_with(table)
            graph.remove(node, safe=True)
        elif isinstance(length, ir.Value):
            _replace_by_slice(graph, node, table, length)


def _is_output(node: ir.Node) -> bool:
    return node.outputs[0].is_graph_output()


def _length_of_range(places: ir.Value | None) -> ir.Value | int | None:
    """Returns n of ``Range(0, n, 1)``: its number, or the value of one element that holds it; None: it is something else."""
    counting = None if places is None else places.producer()
    if counting is None or counting.op_type != "Range":
        return None
    start, limit, step = counting.inputs
    if (_number(start), _number(step)) != (0, 1) or limit is None:
        return None
    size = _size_of_axis(limit)
    return _number(limit) if size is None else size


def _size_of_axis(number: ir.Value | None) -> ir.Value | None:
    """Returns the list of one size of which a number was made."""
    squeeze = None if number is None else number.producer()
    shape = squeeze.inputs[0] if squeeze is not None and squeeze.op_type == "Squeeze" else None
    node = None if shape is None else shape.producer()
    if node is None or node.op_type != "Shape" or not {"start", "end"} <= set(node.attributes):
        return None
    start, end = (node.attributes[name].as_int() for name in ("start", "end"))
    return shape if end == start + 1 else None


def _number(value: ir.Value | None) -> int | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return int(tensor.numpy()) if tensor is not None and tensor.size == 1 and tensor.dtype.is_integer() else None


def _list_of(value: ir.Value | None) -> list[int] | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return tensor.numpy().tolist() if tensor is not None and len(tensor.shape) == 1 and tensor.size == 1 else None


def _has_rows(table: ir.Value, rows: int) -> bool:
    return table.shape is not None and isinstance(table.shape[0], int) and rows <= table.shape[0]


def _read_once_from_the_state(table: ir.Value) -> bool:
    return len(table.uses()) == 1 and table.const_value is None


def _cut(table: ir.Value, rows: int) -> None:
    assert table.shape is not None
    table.meta[FIRST_ROWS] = rows
    table.shape = ir.Shape([rows, *tuple(table.shape)[1:]])


def _replace_by_slice(graph: ir.Graph, node: ir.Node, table: ir.Value, length: ir.Value) -> None:
    zero = ir.node("Constant", [], {"value": ir.tensor(np.array([0], dtype=np.int64))})
    zero.outputs[0].dtype, zero.outputs[0].shape = ir.DataType.INT64, ir.Shape([1])
    slice_node = ir.node("Slice", [table, zero.outputs[0], length, zero.outputs[0]])
    slice_node.metadata_props.update(node.metadata_props)
    result, replaced = slice_node.outputs[0], node.outputs[0]
    result.type, result.shape = replaced.type, replaced.shape
    graph.insert_before(node, [zero, slice_node])
    replaced.replace_all_uses_with(result)
    graph.remove(node, safe=True)
