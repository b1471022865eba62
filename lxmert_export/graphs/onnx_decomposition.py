"""Replaces fused operators by the nodes that define them, so that each inner value has a name and a dtype.

Where an operator computes in float32 inside, so do its nodes, between a cast to float32 and one back: rounding each node's result then
rounds what the operator's kernel rounds. Sources are files of onnxruntime below `onnxruntime/contrib_ops/cuda`.

| operator | what its CUDA kernel rounds to half precision |
|---|---|
| ``MultiHeadAttention`` | query, key and value with their biases (bert/add_bias_transpose.cu); probabilities and result (cutlass_fmha); where its sizes fit no fused kernel, also the scores |
| ``SkipLayerNormalization``, strict | the result (bert/skip_layer_norm.cc: HostApplyLayerNorm computes in float) |
| ``SkipLayerNormalization``, plain | every sum (bert/skip_layer_norm_impl.cu) |
| ``LayerNormalization`` beside these | the result (``stash_type`` 1) |
| ``BiasGelu`` | x + bias; fp16: every step; bf16: the normal distribution and the product (core/providers/cuda/cu_inc/common.cuh) |
| ONNX's ``Attention`` | every step: the least precise runtime is assumed |
"""  # noqa: E501

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lxmert_export.graphs.onnx_launches import MICROSOFT, fits_one_kernel
from lxmert_export.graphs.onnx_types import load_typed

OPERATOR = "Attention"
WIDE, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def load_decomposed(path: Path, *, strict: bool = True) -> ir.Model:
    """Reads a file as ``load_typed`` does, and replaces the fused operators of our exporter by nodes.

    ``strict``: whether SkipLayerNormalization runs in strict mode, which is an option of onnxruntime's CUDA provider.
    """
    model = load_typed(path)
    for_cuda = is_for_cuda(model)
    for node in list(model.graph):
        if (take_apart := _decomposition(node, for_cuda=for_cuda, strict=strict)) is not None:
            steps = _Steps(model.graph, node)
            node.outputs[0].replace_all_uses_with(take_apart(steps, node), replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
    return model


def is_for_cuda(model: ir.Model) -> bool:
    """Whether a graph was written for onnxruntime's CUDA provider: it holds operators that the standard lacks."""
    return MICROSOFT in model.opset_imports


class _Steps:
    """Adds nodes in place of an operator, each of the operator's module."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self._graph, self._node, self._count = graph, node, 0
        assert node.outputs[0].dtype is not None, "load_typed infers dtypes"
        self.kind = node.outputs[0].dtype
        self.module = (node.name or "").rpartition("/")[0]

    def __call__(
        self,
        operator: str,
        *operands: ir.Value | None,
        of: ir.DataType | None = None,
        name: str | None = None,
        **attributes: object,
    ) -> ir.Value:
        """Adds a node with one result of dtype ``of``, by default the operator's own."""
        return self.several(operator, operands, 1, of=of, name=name, **attributes)[0]

    def several(
        self,
        operator: str,
        operands: tuple[ir.Value | None, ...],
        results: int,
        *,
        of: ir.DataType | None = None,
        name: str | None = None,
        **attributes: object,
    ) -> list[ir.Value]:
        """Adds a node with some results."""
        self._count += 1
        own = f"{self._node.name}/step_{self._count}"
        node = ir.node(operator, operands, attributes, name=name or own, num_outputs=results)  # type: ignore[arg-type]
        for place, value in enumerate(node.outputs):
            value.name, value.dtype = f"{own}:{place}" if place else own, of or self.kind
        self._graph.insert_before(self._node, node)
        return list(node.outputs)

    def constant(self, array: NDArray[np.generic], of: ir.DataType) -> ir.Value:
        """Adds a constant."""
        return self("Constant", of=of, value=ir.tensor(array.astype(of.numpy())))

    def sizes(self, *numbers: int) -> ir.Value:
        """Adds a list of sizes."""
        return self.constant(np.array(numbers, dtype=np.int64), ir.DataType.INT64)

    def cast(self, value: ir.Value | None, to: ir.DataType) -> ir.Value:
        """Casts a value, unless it has the dtype."""
        assert value is not None
        return value if value.dtype == to else self("Cast", value, of=to, to=int(to))

    def wide(self, value: ir.Value | None) -> ir.Value:
        """Casts a value to float32."""
        return self.cast(value, WIDE)


TakeApart = Callable[[_Steps, ir.Node], ir.Value]


def _decomposition(node: ir.Node, *, for_cuda: bool, strict: bool) -> TakeApart | None:
    """Returns what takes a node apart; None: it stays."""
    if node.domain == MICROSOFT and node.op_type == "SkipLayerNormalization":
        return partial(_skip_norm, strict=strict)
    if node.domain == MICROSOFT:
        return {"MultiHeadAttention": _packed_attention, "BiasGelu": _bias_gelu}.get(node.op_type)
    if node.op_type == "LayerNormalization" and for_cuda and node.outputs[0].dtype != WIDE:
        return _norm
    return _attention if node.op_type == OPERATOR and _is_ours(node) else None


def _is_ours(attention: ir.Node) -> bool:
    """Whether the inputs are query, key, value and mask in one dtype, with a scale, and heads if there are 3 axes."""
    types = {value.dtype if value is not None else None for value in attention.inputs}
    known = set(attention.attributes) in ({"scale"}, {"scale", "q_num_heads", "kv_num_heads"})
    return known and len(attention.inputs) == 4 and len(types) == 1 and None not in types


def _attention(step: _Steps, node: ir.Node) -> ir.Value:
    """Softmax(query · √scale × key · √scale + mask), in steps, × value; in the input's dtype.

    A runtime may compute the steps more precisely; the least precise runtime is assumed here.
    """
    query, key, value, mask = node.inputs
    heads = node.attributes["q_num_heads"].as_int() if "q_num_heads" in node.attributes else 0
    if heads:
        query, key, value = (_by_head(step, operand, heads) for operand in (query, key, value))
    factor = step.constant(np.array(node.attributes["scale"].as_float() ** 0.5), step.kind)
    transposed = step("Transpose", step("Mul", key, factor), perm=[0, 1, 3, 2])
    scores = step("Add", step("MatMul", step("Mul", query, factor), transposed), mask)
    last = step.sizes(-1)
    powers = step("Exp", step("Sub", scores, step("ReduceMax", scores, last)))
    result = step("MatMul", step("Div", powers, step("ReduceSum", powers, last)), value)
    return _merged(step, result) if heads else result


def _packed_attention(step: _Steps, node: ir.Node) -> ir.Value:
    """[B, S, N, 3, D] + biases → query, key, value → Softmax(scores · scale + mask) × value, [B, S, N · D]."""
    packed, bias, mask = node.inputs[0], node.inputs[3], node.inputs[5]
    heads = node.attributes["num_heads"].as_int()
    parts = step.several("Split", (packed, step.sizes(1, 1, 1)), 3, axis=3)
    rows = [step("Reshape", part, step.sizes(0, 0, -1)) for part in parts]
    if bias is not None:
        size = bias.shape[0] if bias.shape is not None else None
        assert isinstance(size, int), "a stored bias"
        width = size // 3
        biases = step.several("Split", (bias, step.sizes(width, width, width)), 3, axis=0)
        names = [f"{step.module}.{name}/Add" for name in ("query", "key", "value")]
        rows = [step("Add", row, one, name=name) for row, one, name in zip(rows, biases, names, strict=True)]
    query, key, value = (step.wide(_by_head(step, row, heads)) for row in rows)
    factor = step.constant(np.array(node.attributes["scale"].as_float()), WIDE)
    scores = step(
        "MatMul", step("Mul", query, factor, of=WIDE), step("Transpose", key, of=WIDE, perm=[0, 1, 3, 2]), of=WIDE
    )
    if packed is None or not fits_one_kernel(list(packed.shape or ())):
        scores = step.wide(step.cast(scores, step.kind))
    shares = step(
        "Softmax", step("Add", scores, step.wide(mask), of=WIDE), of=WIDE, name=f"{step.module}/Softmax", axis=-1
    )
    result = step("MatMul", step.wide(step.cast(shares, step.kind)), value, of=WIDE)
    return _merged(step, step.cast(result, step.kind))


def _by_head(step: _Steps, rows: ir.Value | None, heads: int) -> ir.Value:
    """[B, S, N · D] → [B, N, S, D]."""
    return step("Transpose", step("Reshape", rows, step.sizes(0, 0, heads, -1)), perm=[0, 2, 1, 3])


def _merged(step: _Steps, by_head: ir.Value) -> ir.Value:
    """[B, N, S, D] → [B, S, N · D]."""
    return step("Reshape", step("Transpose", by_head, perm=[0, 2, 1, 3]), step.sizes(0, 0, -1))


def _skip_norm(step: _Steps, node: ir.Node, *, strict: bool) -> ir.Value:
    """Norm of (x + bias) + residual: in float32, or (plain mode) in the operator's own precision."""
    value, skip, gain, shift, bias = (*node.inputs, None)[:5]
    kind = WIDE if strict else step.kind
    total = step.cast(value, kind)
    if bias is not None:
        total = step("Add", total, step.cast(bias, kind), of=kind, name=_beside(value, "Add"))
    total = step("Add", total, step.cast(skip, kind), of=kind)
    return step.cast(_normed(step, node, total, gain, shift, kind), step.kind)


def _norm(step: _Steps, node: ir.Node) -> ir.Value:
    """A LayerNorm in half precision, whose kernel computes in float32."""
    value, gain, shift = (*node.inputs, None)[:3]
    return step.cast(_normed(step, node, step.wide(value), gain, shift, WIDE), step.kind)


def _normed(
    step: _Steps, node: ir.Node, value: ir.Value, gain: ir.Value | None, shift: ir.Value | None, kind: ir.DataType
) -> ir.Value:
    parameters = [step.cast(one, kind) for one in (gain, shift) if one is not None]
    epsilon = node.attributes["epsilon"].as_float()
    name = f"{step.module}/LayerNormalization"
    return step("LayerNormalization", value, *parameters, of=kind, name=name, axis=-1, epsilon=epsilon)


def _bias_gelu(step: _Steps, node: ir.Node) -> ir.Value:
    """x + bias = a; a · ½ · (1 + erf(a / √2)), or a · (½ + ½ · erf(a / √2)) with what is in brackets in float32 (bf16)."""
    value, bias = node.inputs
    total = step("Add", value, bias, name=_beside(value, "Add"))
    inner = WIDE if step.kind != HALF else HALF
    root, one, half = (step.constant(np.array(number), inner) for number in (math.sqrt(0.5), 1.0, 0.5))
    scaled = step("Mul", step.cast(total, inner), root, of=inner)
    raised = step("Add", step("Erf", scaled, of=inner), one, of=inner)
    if step.kind == HALF:
        return step("Mul", step("Mul", total, half), raised)
    return step("Mul", total, step.cast(step("Mul", raised, half, of=inner), step.kind))


def _beside(value: ir.Value | None, operator: str) -> str | None:
    """Returns the name of a node of the module that computes a value: a bias is added by the module of its product."""
    node = None if value is None else value.producer()
    return None if node is None else f"{(node.name or '').rpartition('/')[0]}/{operator}"
