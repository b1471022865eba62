"""Groups the products of GELU so that runtimes see one operator in them.

    before    x · (½ · (1 + erf(x / √2)))
    after     (½ · x) · (1 + erf(x / √2))

Both are the same numbers, bit for bit: a product with ½ is exact, but for numbers that are almost too small to be held.
onnxruntime makes one kernel of the second form, with the addition of the bias before it, and leaves the first one, which the
exporter writes, in five (onnxruntime/core/optimizer/gelu_fusion.cc).
"""

from __future__ import annotations

import math

import onnx_ir as ir

CLOSE = 2**-13  # relative: √2 and ½√2 in fp16 and in bf16 are off by 1.07e-4


def group_gelu(graph: ir.Graph) -> None:
    """Regroups every GELU that is written with ``Erf``, in place."""
    for erf in [node for node in graph if node.op_type == "Erf"]:
        add = _only_reader(erf, "Add")
        half = _only_reader(add, "Mul")
        product = _only_reader(half, "Mul")
        if add is None or half is None or product is None or not _has_constant(add, 1.0):
            continue
        place = next((place for place in (0, 1) if _is_constant(half.inputs[place], 0.5)), None)
        others = [value for value in product.inputs if value is not half.outputs[0]]
        if place is None or len(others) != 1 or not _is_over_root_two(erf.inputs[0], others[0]):
            continue
        half.replace_input_with(1 - place, others[0])
        product.replace_input_with(0, half.outputs[0])
        product.replace_input_with(1, add.outputs[0])
        halved = half.outputs[0]
        halved.type, halved.shape = product.outputs[0].type, product.outputs[0].shape


def _only_reader(node: ir.Node | None, kind: str) -> ir.Node | None:
    """The one node that reads a node's result, if it is of this kind."""
    if node is None or node.outputs[0].is_graph_output():
        return None
    readers = [use.node for use in node.outputs[0].uses()]
    return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None


def _is_over_root_two(scaled: ir.Value | None, plain: ir.Value | None) -> bool:
    """Whether a value is x / √2 or x · ½√2 of ``plain``, x."""
    node = None if scaled is None else scaled.producer()
    if node is None or node.op_type not in ("Div", "Mul") or plain is None:
        return False
    first, second = node.inputs
    if node.op_type == "Div":
        return first is plain and _is_near(second, math.sqrt(2))
    return (first is plain and _is_near(second, math.sqrt(0.5))) or (
        second is plain and _is_near(first, math.sqrt(0.5))
    )


def _has_constant(node: ir.Node, number: float) -> bool:
    return any(_is_constant(value, number) for value in node.inputs)


def _is_constant(value: ir.Value | None, number: float) -> bool:
    return _number_of(value) == number


def _is_near(value: ir.Value | None, number: float) -> bool:
    found = _number_of(value)
    return found is not None and math.isclose(found, number, rel_tol=CLOSE)


def _number_of(value: ir.Value | None) -> float | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return float(tensor.numpy().reshape(())) if tensor is not None and tensor.size == 1 else None
