"""Replaces ONNX's ``Attention`` operator by the nodes that define it, so each inner value has a name and a dtype."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lxmert_export.graphs.onnx_types import load_typed

OPERATOR = "Attention"


def load_decomposed(path: Path) -> ir.Model:
    """Reads a file as ``load_typed`` does, and replaces the attention operators of our exporter by nodes."""
    model = load_typed(path)
    for node in model.graph:
        if node.op_type == OPERATOR and _is_ours(node):
            _take_apart(model.graph, node)
    return model


def _is_ours(attention: ir.Node) -> bool:
    """Returns whether the inputs are query, key, value and mask in one dtype, and the scale is the only attribute."""
    types = {value.dtype if value is not None else None for value in attention.inputs}
    return (
        set(attention.attributes) == {"scale"} and len(attention.inputs) == 4 and len(types) == 1 and None not in types
    )


def _take_apart(graph: ir.Graph, attention: ir.Node) -> None:
    """Replaces the operator: Softmax(query · √scale × key · √scale + mask), in steps, × value; in the input's dtype.

    A runtime may compute the steps more precisely; the least precise runtime is assumed here.
    """
    query, key, value, mask = attention.inputs
    assert query is not None and query.dtype is not None, "_is_ours was true"
    kind, steps = query.dtype, count(1)

    def step(operator: str, *operands: ir.Value | None, of: ir.DataType = kind, **attributes: object) -> ir.Value:
        node = ir.node(operator, operands, attributes, name=f"{attention.name}/step_{next(steps)}")  # type: ignore[arg-type]
        node.outputs[0].name, node.outputs[0].dtype = node.name, of
        graph.insert_before(attention, node)
        return node.outputs[0]

    root = attention.attributes["scale"].as_float() ** 0.5
    factor = step("Constant", value=ir.tensor(np.array(root, dtype=kind.numpy())))
    transposed = step("Transpose", step("Mul", key, factor), perm=[0, 1, 3, 2])
    scores = step("Add", step("MatMul", step("Mul", query, factor), transposed), mask)
    last = step("Constant", of=ir.DataType.INT64, value=ir.tensor(np.array([-1], dtype=np.int64)))
    powers = step("Exp", step("Sub", scores, step("ReduceMax", scores, last)))
    result = step("MatMul", step("Div", powers, step("ReduceSum", powers, last)), value)
    attention.outputs[0].replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(attention, safe=True)
