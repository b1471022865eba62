"""Makes one product of query, key and value, and one operator of the attention that reads them.

    before    x → three products with weights, three biases, heads, scores, mask, softmax, product, heads joined
    after     x → one product with the three weights side by side → MultiHeadAttention (half precision) or Attention (float32)

Half precision: ``com.microsoft.MultiHeadAttention`` takes the packed product as it is, adds the bias, and has no kernel on a
CPU. Float32: ONNX's ``Attention`` on the three parts, because the packed operator's fused kernel is for 16 bits, or 256 tokens
and more.

A cross attention in both directions has one set of weights. Its two sides become one sequence, and the mask leaves each token
the other side's keys: one product, one attention, one product for both directions (``joint``). Where only one direction is
computed, the other side's queries are computed in vain, which costs less than more kernels.

The mask is added to the scores: it is the form that the fused kernels take for keys that are masked anywhere in a sequence
(onnxruntime/contrib_ops/cuda/bert/multihead_attention.cc: a ``key_padding_mask`` of two axes excludes them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converters.onnx.attention import Traced, match_attention
from converters.onnx.cuda.masks import Masks, joined, tokens_of
from converters.onnx.cuda.patterns import emit, is_vector, only_reader, sizes_of, stored
from converters.onnx.packed import PACKED, TRANSPOSED, Packed
from lxmert_export.errors import ConversionError
from lxmert_export.option_names import option


@dataclass(frozen=True)
class Projection:
    """A product with a stored weight, and the bias added to it."""

    source: ir.Value
    weight: ir.Value
    bias: ir.Value | None


@dataclass(frozen=True)
class Block:
    """One traced attention with its projections: ``merged`` is its result, with the heads joined again."""

    softmax: ir.Node
    traced: Traced
    query: Projection
    key: Projection
    value: Projection
    heads: int
    merged: ir.Value

    @property
    def weights(self) -> tuple[Projection, ...]:
        """Its three projections."""
        return self.query, self.key, self.value

    @property
    def crosses(self) -> bool:
        """Whether its queries come from another sequence than its keys."""
        return self.query.source is not self.key.source


def fuse_attentions(graph: ir.Graph, masks: Masks, wrapper: str) -> None:
    """Rewrites every attention of a graph, in place. ``ConversionError``: it has none of the form that is known."""
    softmaxes = [node for node in graph if node.op_type == "Softmax"]
    done: set[ir.Node] = set()
    for place, softmax in enumerate(softmaxes):
        # Matched only now: what came before has replaced values that it reads.
        block = None if softmax in done else _block_of(softmax)
        if block is None:
            continue
        done.add(softmax)
        if block.crosses:
            later = [other for node in softmaxes[place + 1 :] if (other := _block_of(node)) is not None]
            back = next((other for other in later if _is_way_back(block, other)), None)
            done |= set() if back is None else {back.softmax}
            _join(graph, block, back, masks, wrapper)
        else:
            merged = _attend(graph, block, block.query.source, masks.own(block.traced, block.query.source), wrapper)
            block.merged.replace_all_uses_with(merged)
    if not done:
        raise ConversionError(
            f"the graph has no attention with a mask that could be one operator: leave {option('optimize_for')} out"
        )


def _block_of(softmax: ir.Node) -> Block | None:
    """Returns the attention around a Softmax, with its projections; None: what is around it is something else."""
    traced = match_attention(softmax)
    if traced is None:
        return None
    found = [_projection_of(value) for value in (traced.query, traced.key, traced.value)]
    query, key, value = found
    last = only_reader(traced.last.outputs[0], "Transpose")
    merge = None if last is None else only_reader(last.outputs[0], "Reshape")
    if query is None or key is None or value is None or merge is None or traced.query.shape is None:
        return None
    heads, kinds = traced.query.shape[1], {projection.bias is None for projection in (query, key, value)}
    widths = {str(projection.weight.shape) for projection in (query, key, value)}
    if key.source is not value.source or len(kinds) > 1 or len(widths) > 1 or not isinstance(heads, int):
        return None
    return Block(softmax, traced, query, key, value, heads, merge.outputs[0])


def _projection_of(operand: ir.Value) -> Projection | None:
    """x · w + b, split into heads: [B, S, H] → [B, S, N, D] → [B, N, S, D]."""
    node = operand.producer()
    if node is None or node.op_type != "Transpose" or node.attributes["perm"].as_ints() != (0, 2, 1, 3):
        return None
    split = None if node.inputs[0] is None else node.inputs[0].producer()
    if split is None or split.op_type != "Reshape" or split.inputs[0] is None:
        return None
    projected, bias = split.inputs[0], None
    add = projected.producer()
    if add is not None and add.op_type == "Add":
        first, second = add.inputs if is_vector(add.inputs[1]) else add.inputs[::-1]
        if first is None or second is None or not is_vector(second):
            return None
        projected, bias = first, second
    product = projected.producer()
    if product is None or product.op_type != "MatMul":
        return None
    source, weight = product.inputs
    if source is None or weight is None or not weight.is_initializer() or len(weight.shape or ()) != 2:
        return None
    return Projection(source, weight, bias) if len(source.shape or ()) == 3 else None


def _is_way_back(block: Block, other: Block) -> bool:
    """Whether another attention has the same weights, with the sides exchanged."""
    return (
        block.query.source is other.key.source
        and block.key.source is other.query.source
        and all(
            one.weight is two.weight and one.bias is two.bias
            for one, two in zip(block.weights, other.weights, strict=True)
        )
    )


def _attend(graph: ir.Graph, block: Block, source: ir.Value, mask: ir.Value, wrapper: str) -> ir.Value:
    """Adds the packed product and the attention; returns its result [B, S, H]."""
    like, dtype, batch_and_tokens = block.traced.last, source.dtype, sizes_of(source)[:2]
    width = block.query.weight.shape[1] if block.query.weight.shape is not None else 0
    assert isinstance(width, int)
    half = dtype != ir.DataType.FLOAT
    heads = block.heads if half else None
    weight = _packed(graph, [p.weight for p in block.weights], heads, wrapper)
    biases = [p.bias for p in block.weights if p.bias is not None]
    bias = _packed(graph, biases, None, wrapper) if biases else None
    (product,) = emit(like, "MatMul", [source, weight], like=like, dtype=dtype, shapes=[[*batch_and_tokens, 3 * width]])
    scale = {"scale": block.traced.scale}
    if half:
        view = stored(graph, f"attention/view/{block.heads}", np.array([0, 0, block.heads, 3, width // block.heads]))
        shape = [*batch_and_tokens, block.heads, 3, width // block.heads]
        (packed,) = emit(like, "Reshape", [product, view], like=like, dtype=dtype, shapes=[shape])
        inputs = [packed, None, None, bias, None, mask]
        attributes = {"num_heads": block.heads, **scale}
        return emit(
            like, "MultiHeadAttention", inputs, attributes, like=like, dtype=dtype, shapes=[[*batch_and_tokens, width]]
        )[0]
    if bias is not None:
        (product,) = emit(like, "Add", [product, bias], like=like, dtype=dtype, shapes=[sizes_of(product)])
    parts = stored(graph, f"attention/parts/{width}", np.array([width] * 3))
    three = emit(
        like, "Split", [product, parts], {"axis": 2}, like=like, dtype=dtype, shapes=[[*batch_and_tokens, width]] * 3
    )
    attributes = {"q_num_heads": block.heads, "kv_num_heads": block.heads, **scale}
    return emit(like, "Attention", [*three, mask], attributes, like=like, dtype=dtype, shapes=[sizes_of(three[0])])[0]


def _packed(graph: ir.Graph, parts: Sequence[ir.Value], heads: int | None, wrapper: str) -> ir.Value:
    """Returns the parameter that the file stores for three: side by side, or head by head if ``heads`` is given."""
    names = tuple((part.name or "").removeprefix(f"{wrapper}.") for part in parts)
    packed = Packed(names, heads, tuple(bool(part.meta.get(TRANSPOSED)) for part in parts))
    if packed.name not in graph.initializers:
        *rows, width = sizes_of(parts[0])
        assert isinstance(width, int), "a stored parameter"
        value = ir.Value(name=packed.name, type=parts[0].type, shape=ir.Shape([*rows, 3 * width]))
        value.meta[PACKED] = packed
        graph.initializers[packed.name] = value
    return graph.initializers[packed.name]


def _join(graph: ir.Graph, block: Block, back: Block | None, masks: Masks, wrapper: str) -> None:
    """Computes a cross attention on both sides as one sequence, with what follows if that is the same on both sides."""
    like, first, second = block.traced.last, block.query.source, block.key.source
    tokens = tokens_of(first), tokens_of(second)
    *_, width = sizes_of(first)
    batch, whole = sizes_of(first)[0], joined(*tokens)
    (both,) = emit(
        like, "Concat", [first, second], {"axis": 1}, like=like, dtype=first.dtype, shapes=[[batch, whole, width]]
    )
    result = _attend(
        graph, block, both, masks.joint(block.traced, None if back is None else back.traced, first, second), wrapper
    )
    ends = [block.merged, None if back is None else back.merged]
    tails = [_tail_of(block), None if back is None else _tail_of(back)]
    if tails[0] is not None and tails[1] is not None and _are_alike(*tails):
        product, norm = tails[0]
        (result,) = emit(
            like, "MatMul", [result, product.inputs[1]], like=product, dtype=first.dtype, shapes=[sizes_of(both)]
        )
        inputs = [result, both, *norm.inputs[2:]]
        (result,) = emit(
            like, norm.op_type, inputs, _epsilon(norm), like=norm, dtype=first.dtype, shapes=[sizes_of(both)]
        )
        ends = [tail[1].outputs[0] for tail in tails if tail is not None]
    shapes = [[batch, number, *sizes_of(result)[2:]] for number in tokens]
    parts = emit(
        like,
        "Split",
        [result, masks.sizes(first, second, like)],
        {"axis": 1},
        like=like,
        dtype=first.dtype,
        shapes=shapes,
    )
    for end, part in zip(ends, parts, strict=True):
        if end is not None:
            end.replace_all_uses_with(part, replace_graph_outputs=True)


def _tail_of(block: Block) -> tuple[ir.Node, ir.Node] | None:
    """Returns the output's product and the norm of it and the block's queries."""
    product = only_reader(block.merged, "MatMul")
    norm = None if product is None else only_reader(product.outputs[0], "SkipLayerNormalization")
    if product is None or norm is None or norm.inputs[1] is not block.query.source:
        return None
    return product, norm


def _are_alike(one: tuple[ir.Node, ir.Node] | None, other: tuple[ir.Node, ir.Node] | None) -> bool:
    """Whether two tails have the same parameters."""
    if one is None or other is None:
        return False
    return (
        one[0].inputs[1] is other[0].inputs[1]
        and tuple(one[1].inputs[2:]) == tuple(other[1].inputs[2:])
        and _epsilon(one[1]) == _epsilon(other[1])
    )


def _epsilon(norm: ir.Node) -> dict[str, float]:
    return {"epsilon": norm.attributes["epsilon"].as_float()}
