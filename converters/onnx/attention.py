"""Replaces the nodes of each traced attention by ONNX's ``Attention`` operator (opset 23)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lxmert_export.errors import ConversionError


@dataclass(frozen=True)
class Traced:
    """One traced attention: its inputs, its scale, and the node that computes its result."""

    query: ir.Value
    key: ir.Value
    value: ir.Value
    bias: ir.Value
    scale: float
    last: ir.Node


def use_attention_operator(graph: ir.Graph) -> None:
    """Replaces every attention of a graph: Softmax(scaled query · key + the mask's bias) · value.

    ``ConversionError``: the graph has no such attention.
    """
    attentions = [match for node in graph if node.op_type == "Softmax" and (match := match_attention(node))]
    if not attentions:
        raise ConversionError(
            "attention operator: the graph has no attention with a mask; choose --attention decomposed"
        )
    shifted: dict[ir.Value, ir.Value] = {}
    masks: dict[tuple[ir.Value, str], ir.Value] = {}
    for attention in attentions:
        assert attention.query.shape is not None, "the exporter states every shape"
        bias, queries = attention.bias, str(attention.query.shape[2])
        if bias not in shifted:
            shifted[bias] = shifted_bias(graph, attention)
        if (bias, queries) not in masks:
            masks[bias, queries] = _expand(graph, attention, shifted[bias])
        operands = [attention.query, attention.key, attention.value, masks[bias, queries]]
        operator = ir.node("Attention", operands, {"scale": attention.scale})  # TensorRT refuses softmax_precision
        old, new = attention.last.outputs[0], _insert(graph, attention.last, [operator], attention.last)
        new.type, new.shape = old.type, old.shape
        old.replace_all_uses_with(new)


def match_attention(softmax: ir.Node) -> Traced | None:
    """Returns the attention around a Softmax, or None if the nodes around it are not an attention."""
    added = _producer(softmax.inputs[0], "Add")
    scores = _producer(added.inputs[0], "MatMul") if added else None
    scaled = _producer(scores.inputs[0], "Mul") if scores else None
    transposed = _producer(scores.inputs[1], "Transpose") if scores else None
    last = next((use.node for use in _uncast(softmax.outputs[0]).uses()), None)
    if added is None or scaled is None or transposed is None or last is None or last.op_type != "MatMul":
        return None
    query, key, value, bias = scaled.inputs[0], transposed.inputs[0], last.inputs[1], added.inputs[1]
    factor = scaled.inputs[1].const_value if scaled.inputs[1] is not None else None
    if factor is None or factor.size != 1 or query is None or key is None or value is None or bias is None:
        return None
    return Traced(query, key, value, bias, float(factor.numpy().item()), last)


def _producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    """Returns the node that computes a value, directly or before a cast; None if it is not of this operator."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Cast":
        return _producer(node.inputs[0], operator)
    return node if node is not None and node.op_type == operator else None


def _uncast(value: ir.Value) -> ir.Value:
    """Returns the cast of a value if a Cast is its only reader, else the value."""
    readers = [use.node for use in value.uses()]
    return readers[0].outputs[0] if len(readers) == 1 and readers[0].op_type == "Cast" else value


def shifted_bias(graph: ir.Graph, attention: Traced) -> ir.Value:
    """Subtracts from the bias [B, 1, 1, K] the largest value of each row, and casts it to the query's dtype.

    The operator adds the bias in that dtype; in fp16, -10000 plus a score is rounded to steps of 8. Subtracting one
    number from a whole row does not change its softmax. A row with every key masked now has a bias of 0.
    """
    bias, kind = attention.bias, attention.query.dtype
    assert kind is not None, "the exporter states every dtype"
    largest = ir.node("ReduceMax", [bias, _constant(graph, [-1])], {"keepdims": 1})
    shifted = ir.node("Sub", [bias, largest.outputs[0]])
    largest.outputs[0].type = shifted.outputs[0].type = bias.type
    cast = [ir.node("Cast", shifted.outputs, {"to": int(kind)})] if kind != bias.dtype else []
    return _insert(graph, attention.last, [largest, shifted, *cast], bias.producer())


def _expand(graph: ir.Graph, attention: Traced, bias: ir.Value) -> ir.Value:
    """[B, 1, 1, K] → [B, 1, Q, K]: onnxruntime needs a row per query; the standard allows broadcasting."""
    assert attention.query.shape is not None
    queries = attention.query.shape[2]
    if isinstance(queries, int):
        expand = ir.node("Expand", [bias, _constant(graph, [1, 1, queries, 1])])
        return _insert(graph, attention.last, [expand], bias.producer())
    size = ir.node("Shape", [attention.query], {"start": 2, "end": 3})
    ones = _constant(graph, [1, 1]), _constant(graph, [1])
    shape = ir.node("Concat", [ones[0], size.outputs[0], ones[1]], {"axis": 0})
    size.outputs[0].dtype = shape.outputs[0].dtype = ir.DataType.INT64
    expand = ir.node("Expand", [bias, shape.outputs[0]])
    return _insert(graph, attention.last, [size, shape, expand], bias.producer())


def _insert(graph: ir.Graph, before: ir.Node, nodes: Sequence[ir.Node], like: ir.Node | None) -> ir.Value:
    """Inserts nodes before another one, as part of the module of ``like``; returns the last node's output."""
    for node in nodes:
        node.metadata_props.update(like.metadata_props if like is not None else {})
    graph.insert_before(before, nodes)
    return nodes[-1].outputs[0]


def _constant(graph: ir.Graph, numbers: Sequence[int]) -> ir.Value:
    name = f"attention/{'x'.join(map(str, numbers))}"
    if name not in graph.initializers:
        tensor = ir.tensor(np.array(numbers, dtype=np.int64), name=name)
        graph.initializers[name] = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape([len(numbers)]), const_value=tensor
        )
    return graph.initializers[name]
