"""Reads and writes pieces of a traced graph; casts between float32 and half precision are looked through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lxmert_export.graphs.onnx_launches import MICROSOFT

Sizes = Sequence[int | ir.SymbolicDim]


def uncast(value: ir.Value | None) -> ir.Value | None:
    """Returns what a value was cast from, or the value."""
    node = None if value is None else value.producer()
    return node.inputs[0] if node is not None and node.op_type == "Cast" else value


def producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    """Returns the node that computes a value, directly or before a cast, if it is of this operator."""
    value = uncast(value)
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == operator else None


def only_reader(value: ir.Value, operator: str) -> ir.Node | None:
    """Returns the one node that reads a value, directly or after a cast, if it is of this operator and nothing else reads it."""
    if value.is_graph_output():
        return None
    readers = [use.node for use in value.uses()]
    if len(readers) != 1:
        return None
    if readers[0].op_type == "Cast" and operator != "Cast":
        return only_reader(readers[0].outputs[0], operator)
    return readers[0] if readers[0].op_type == operator else None


def is_vector(value: ir.Value | None) -> bool:
    """Whether a value is a stored vector, such as a bias."""
    return value is not None and value.is_initializer() and value.shape is not None and len(value.shape) == 1


def with_bias(value: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """Returns (sum without a stored vector, the vector) of a sum that only one node reads; None: it is something else."""
    node = producer(value, "Add")
    if value is None or node is None or node.outputs[0].is_graph_output() or len(node.outputs[0].uses()) != 1:
        return None
    for one, other in (node.inputs, node.inputs[::-1]):
        if is_vector(other) and not is_vector(one):
            assert one is not None and other is not None
            return one, other
    return None


def stored_as(value: ir.Value | None, dtype: ir.DataType | None) -> ir.Value | None:
    """Returns a stored parameter in a dtype: a cast is taken away, or the file stores the parameter so; None: it cannot be."""
    value = uncast(value)
    if value is None or dtype is None or not value.is_initializer():
        return None
    if value.dtype == dtype:
        return value
    if value.const_value is not None or any(use.node.op_type not in NORMS for use in value.uses()):
        return None
    value.dtype = dtype
    return value


NORMS = frozenset({"LayerNormalization", "SkipLayerNormalization"})


def emit(
    before: ir.Node,
    operator: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, int | float | Sequence[int]] | None = None,
    *,
    like: ir.Node,
    dtype: ir.DataType | None,
    shapes: Sequence[Sizes],
) -> tuple[ir.Value, ...]:
    """Inserts a node before another one, as part of the module of ``like``; returns its outputs, one for each shape."""
    domain = MICROSOFT if operator in CONTRIBUTED else ""
    node = ir.node(operator, inputs, dict(attributes or {}), domain=domain, num_outputs=len(shapes))
    node.metadata_props.update(like.metadata_props)
    for value, shape in zip(node.outputs, shapes, strict=True):
        assert dtype is not None, "the exporter states every dtype"
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
    assert before.graph is not None
    before.graph.insert_before(before, node)
    return tuple(node.outputs)


CONTRIBUTED = frozenset({"MultiHeadAttention", "SkipLayerNormalization", "BiasGelu"})


def stored(graph: ir.Graph, name: str, array: NDArray[np.generic], dtype: ir.DataType | None = None) -> ir.Value:
    """Returns a constant of the graph, which is stored once under its name; floating-point ones in ``dtype``."""
    if name not in graph.initializers:
        wanted = ir.DataType.from_numpy(array.dtype) if dtype is None else dtype
        tensor = ir.tensor(array.astype(wanted.numpy()), name=name)
        graph.initializers[name] = ir.Value(
            name=name, type=ir.TensorType(wanted), shape=ir.Shape(array.shape), const_value=tensor
        )
    return graph.initializers[name]


def sizes_of(value: ir.Value) -> list[int | ir.SymbolicDim]:
    """Returns a value's shape, which the exporter states."""
    assert value.shape is not None
    return list(value.shape)
