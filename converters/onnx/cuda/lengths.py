"""Fills fixed lengths up to what the kernel of a fused attention takes: a multiple of 8 tokens, in float32 of 4.

A filled graph is traced with more tokens than its inputs have. They are appended to the inputs, masked with -1, and left out of
the outputs. A mask of -1 makes a bias of -20000, where 0 makes -10000: so in a row whose every given key is masked, which attends
to all of them, the added keys are still not seen.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from lxmert_export.spec.signature import Signature, TensorSpec

ADDED_MASK = -1
# Of how many tokens the kernels take multiples, by the bytes of a number
# (onnxruntime/contrib_ops/cuda/bert/multihead_attention.cc; core/providers/cuda/llm/attention.cc).
MULTIPLES = {"fp32": 4, "fp16": 8, "bf16": 8}


def filled_sizes(fixed: Mapping[str, int], precision: str, longest_text: int) -> dict[str, int]:
    """Returns fixed sizes with the numbers of tokens filled up; a text that would be too long stays, and all without a batch."""
    if "batch" not in fixed:
        return dict(fixed)
    multiple = MULTIPLES[precision]
    filled = {axis: -(-size // multiple) * multiple if axis in LENGTHS else size for axis, size in fixed.items()}
    if filled.get("text", 0) > longest_text:
        filled["text"] = fixed["text"]
    return filled


LENGTHS = ("text", "objects")


def give_lengths(graph: ir.Graph, signature: Signature, filled: Signature) -> None:
    """Gives a graph that was traced under ``filled`` the inputs and outputs of ``signature``, in place."""
    for place, (given, traced) in enumerate(zip(signature.inputs, filled.inputs, strict=True)):
        if given.axes != traced.axes:
            _append(graph, place, given, traced)
    for place, (given, traced) in enumerate(zip(signature.outputs, filled.outputs, strict=True)):
        if given.axes != traced.axes:
            _leave_out(graph, place, given, traced)


def _append(graph: ir.Graph, place: int, given: TensorSpec, traced: TensorSpec) -> None:
    value, axis = graph.inputs[place], _differing(given, traced)
    added = [_size(given, number) for number in range(len(given.axes))]
    added[axis] = _size(traced, axis) - _size(given, axis)
    assert value.dtype is not None, "the exporter states dtypes"
    number = ADDED_MASK if given.name.endswith("mask") else 0
    constant = ir.node("Constant", [], {"value": ir.tensor(np.full(added, number, value.dtype.numpy()))})
    constant.outputs[0].type, constant.outputs[0].shape = value.type, ir.Shape(added)
    taken = ir.Value(name=given.name, type=value.type, shape=ir.Shape(given.axes))
    joined = ir.node("Concat", [taken, constant.outputs[0]], {"axis": axis})
    joined.outputs[0].type, joined.outputs[0].shape = value.type, ir.Shape(traced.axes)
    graph.insert_before(graph[0], [constant, joined])
    value.replace_all_uses_with(joined.outputs[0])
    graph.inputs[place] = taken


def _leave_out(graph: ir.Graph, place: int, given: TensorSpec, traced: TensorSpec) -> None:
    value, axis = graph.outputs[place], _differing(given, traced)
    bounds = [
        ir.node("Constant", [], {"value": ir.tensor(np.array([number]))}) for number in (0, _size(given, axis), axis)
    ]
    for bound in bounds:
        bound.outputs[0].dtype, bound.outputs[0].shape = ir.DataType.INT64, ir.Shape([1])
    cut = ir.node("Slice", [value, *(bound.outputs[0] for bound in bounds)])
    cut.outputs[0].type, cut.outputs[0].shape = value.type, ir.Shape(given.axes)
    cut.outputs[0].name, value.name = value.name, None
    graph.extend([*bounds, cut])
    graph.outputs[place] = cut.outputs[0]


def _differing(given: TensorSpec, traced: TensorSpec) -> int:
    return next(axis for axis, (one, other) in enumerate(zip(given.axes, traced.axes, strict=True)) if one != other)


def _size(spec: TensorSpec, axis: int) -> int:
    size = spec.axes[axis]
    assert isinstance(size, int), "only fixed axes are filled up"
    return size
