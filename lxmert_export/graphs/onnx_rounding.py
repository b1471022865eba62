"""Building blocks of emulation: rounding a value to half precision, and a LayerNorm that rounds at every step."""

from __future__ import annotations

from itertools import count

import numpy as np
import onnx_ir as ir

HALF_TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
# Replaces an epsilon that fp16 would make 0. For any row that is not constant it serves as well.
LEAST_EPSILON = 2.0**-23


def rounded(graph: ir.Graph, value: ir.Value, half: ir.DataType, *, after: ir.Node | None) -> ir.Value:
    """Casts a value to half precision and back, after the node ``after``, or before all nodes if it is None."""
    name = value.name or (after.name if after is not None else None) or "value"
    down = ir.node("Cast", [value], {"to": int(half)}, name=f"{name}/round")
    back = ir.node("Cast", down.outputs, {"to": int(ir.DataType.FLOAT)}, name=f"{name}/widen")
    down.outputs[0].dtype, back.outputs[0].dtype = half, ir.DataType.FLOAT
    insert(graph, [down, back], after)
    return back.outputs[0]


def insert(graph: ir.Graph, nodes: list[ir.Node], after: ir.Node | None) -> None:
    """Inserts nodes after the node ``after``, or before all nodes if it is None."""
    if after is not None:
        graph.insert_after(after, nodes)
    else:
        graph.insert_before(graph[0], nodes)


def half_epsilon(epsilon: float, half: ir.DataType) -> float:
    """Returns the epsilon of a norm that computes in half precision: never 0."""
    return LEAST_EPSILON if half == ir.DataType.FLOAT16 and np.float16(epsilon) == 0 else epsilon


def stepwise_layer_norm(graph: ir.Graph, norm: ir.Node, half: ir.DataType, *, after: ir.Node | None = None) -> ir.Value:
    """Adds the steps of a LayerNormalization, each rounded to half precision; returns the result.

    The standard allows statistics in float32 (``stash_type``). Runtimes differ, so the least precise way is emulated.
    The nodes are inserted after ``norm``, or after ``after``.
    """
    axis = norm.attributes["axis"].as_int() if "axis" in norm.attributes else -1
    assert axis < 0, "our exporter counts the axis of a LayerNorm from the end"
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    last, steps = after or norm, count(1)

    def step(operator: str, *operands: ir.Value | None, **attributes: int) -> ir.Value:
        nonlocal last
        node = ir.node(operator, operands, attributes, name=f"{norm.name}/step_{next(steps)}")
        node.outputs[0].dtype = ir.DataType.FLOAT
        graph.insert_after(last, [node])
        result = rounded(graph, node.outputs[0], half, after=node)
        last = result.producer() or node
        return result

    def constant(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ir.Value:
        nonlocal last
        node = ir.node("Constant", [], {"value": ir.tensor(array)})
        graph.insert_after(last, [node])
        last = node
        return node.outputs[0]

    axes = constant(np.arange(axis, 0, dtype=np.int64))
    centred = step("Sub", norm.inputs[0], step("ReduceMean", norm.inputs[0], axes))
    variance = step("ReduceMean", step("Mul", centred, centred), axes)
    wide = constant(np.array(half_epsilon(epsilon, half), dtype=np.float32))
    result = step("Div", centred, step("Sqrt", step("Add", variance, wide)))
    for operator, operand in zip(("Mul", "Add"), norm.inputs[1:], strict=False):
        result = step(operator, result, operand) if operand is not None else result
    return result
