"""Makes the masks of fused attentions: what is added to the scores, of every query and key.

Each key's bias is shifted by its row's largest, as for ONNX's ``Attention`` (``converters/onnx/attention.py``): the softmax is
the same, fp16 holds the numbers exactly, and a row whose every key is masked has a bias of 0, so it attends to all of them, as
the original does. In a joint cross attention the own side's keys get ``AWAY``, far below the other side's, of which one has 0.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.onnx.attention import Traced
from converters.onnx.cuda.patterns import emit, sizes_of, stored

AWAY = -20000.0  # with a masked key's -10000 still in fp16's range
Tokens = int | ir.SymbolicDim


def tokens_of(source: ir.Value) -> Tokens:
    """Returns the number of tokens of a sequence [B, S, H]."""
    return sizes_of(source)[1]


def joined(first: Tokens, second: Tokens) -> Tokens:
    """Returns how many tokens two sequences have together."""
    return first + second if isinstance(first, int) and isinstance(second, int) else ir.SymbolicDim(None)


class Masks:
    """The masks of one graph; each is made once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._keys: dict[ir.Value, ir.Value] = {}
        self._own: dict[tuple[ir.Value, str], ir.Value] = {}
        self._joint: dict[tuple[ir.Value | None, ir.Value | None, str, str], ir.Value] = {}

    def own(self, traced: Traced, source: ir.Value) -> ir.Value:
        """Returns the mask [B, 1, S, S] of a self-attention."""
        tokens, like = tokens_of(source), traced.last
        place = traced.bias, str(tokens)
        if place not in self._own:
            keys = self._of_keys(traced)
            shape = [sizes_of(keys)[0], 1, tokens, tokens]
            if isinstance(
                tokens, int
            ):  # a sum: the CUDA provider has it in every precision, and Expand perhaps not in bf16
                rows, operator = (
                    stored(self._graph, f"attention/rows/{tokens}", np.zeros((1, 1, tokens, 1)), keys.dtype),
                    "Add",
                )
            else:
                pair = stored(self._graph, "attention/1x1", np.array([1, 1]))
                one = stored(self._graph, "attention/1", np.array([1]))
                rows, operator = self._list([pair, self._size(source, 1, like), one], like), "Expand"
            self._own[place] = emit(like, operator, [keys, rows], like=like, dtype=keys.dtype, shapes=[shape])[0]
        return self._own[place]

    def joint(self, traced: Traced, back: Traced | None, first: ir.Value, second: ir.Value) -> ir.Value:
        """Returns the mask [B, 1, F + S, F + S] of a cross attention of two sequences in both directions, or in one."""
        like, dtype = traced.last, traced.query.dtype
        place = traced.bias, None if back is None else back.bias, str(tokens_of(first)), str(tokens_of(second))
        if place not in self._joint:
            behind = self._of_keys(traced)
            before = self._none_masked(first, dtype, like) if back is None else self._of_keys(back)
            whole = joined(tokens_of(first), tokens_of(second))
            shape = [sizes_of(behind)[0], 1, 1, whole]
            (keys,) = emit(like, "Concat", [before, behind], {"axis": 3}, like=like, dtype=dtype, shapes=[shape])
            sides = self._sides(first, second, dtype, like)
            (self._joint[place],) = emit(
                like, "Add", [keys, sides], like=like, dtype=dtype, shapes=[[shape[0], 1, whole, whole]]
            )
        return self._joint[place]

    def sizes(self, first: ir.Value, second: ir.Value, like: ir.Node) -> ir.Value:
        """Returns how many tokens two sequences have, as a list."""
        one, two = tokens_of(first), tokens_of(second)
        if isinstance(one, int) and isinstance(two, int):
            return stored(self._graph, f"attention/sizes/{one}+{two}", np.array([one, two]))
        return self._list([self._size(first, 1, like), self._size(second, 1, like)], like)

    def _of_keys(self, traced: Traced) -> ir.Value:
        """The bias [B, 1, 1, K] of a sequence's keys: 0 and less, in the precision of the attention."""
        bias, dtype, like = traced.bias, traced.query.dtype, traced.last
        if bias in self._keys:
            return self._keys[bias]
        shape = sizes_of(bias)
        last = stored(self._graph, "attention/-1", np.array([-1]))
        row = [*shape[:-1], 1]
        (largest,) = emit(like, "ReduceMax", [bias, last], {"keepdims": 1}, like=like, dtype=bias.dtype, shapes=[row])
        (keys,) = emit(like, "Sub", [bias, largest], like=like, dtype=bias.dtype, shapes=[shape])
        if dtype != bias.dtype:
            assert dtype is not None
            (keys,) = emit(like, "Cast", [keys], {"to": int(dtype)}, like=like, dtype=dtype, shapes=[shape])
        self._keys[bias] = keys
        return keys

    def _none_masked(self, source: ir.Value, dtype: ir.DataType | None, like: ir.Node) -> ir.Value:
        """0 for every key of a sequence: [B, 1, 1, K]."""
        batch, tokens = sizes_of(source)[0], tokens_of(source)
        if isinstance(batch, int) and isinstance(tokens, int):
            return stored(self._graph, f"attention/seen/{batch}x{tokens}", np.zeros((batch, 1, 1, tokens)), dtype)
        ones = stored(self._graph, "attention/1x1", np.array([1, 1]))
        shape = self._list([self._size(source, 0, like), ones, self._size(source, 1, like)], like)
        zero = stored(self._graph, "attention/0", np.zeros((1, 1, 1, 1)), dtype)
        return emit(like, "Expand", [zero, shape], like=like, dtype=dtype, shapes=[[batch, 1, 1, tokens]])[0]

    def _sides(self, first: ir.Value, second: ir.Value, dtype: ir.DataType | None, like: ir.Node) -> ir.Value:
        """[1, 1, F + S, F + S]: 0 where query and key are of different sequences, else ``AWAY``."""
        one, two = tokens_of(first), tokens_of(second)
        if isinstance(one, int) and isinstance(two, int):
            numbered = np.repeat([0, 1], [one, two])
            alike = numbered[:, None] == numbered[None, :]
            return stored(self._graph, f"attention/sides/{one}+{two}", np.where(alike, AWAY, 0.0)[None, None], dtype)
        length = ir.SymbolicDim(None)
        numbers: list[ir.Value] = []
        for number, source in enumerate((first, second)):
            one_number = stored(self._graph, f"attention/side/{number}", np.array([float(number)]), dtype)
            inputs, shapes = [one_number, self._size(source, 1, like)], [[tokens_of(source)]]
            numbers += emit(like, "Expand", inputs, like=like, dtype=dtype, shapes=shapes)
        (side,) = emit(like, "Concat", numbers, {"axis": 0}, like=like, dtype=dtype, shapes=[[length]])
        column = stored(self._graph, "attention/1", np.array([1]))
        (queries,) = emit(like, "Unsqueeze", [side, column], like=like, dtype=dtype, shapes=[[length, 1]])
        (between,) = emit(like, "Sub", [queries, side], like=like, dtype=dtype, shapes=[[length, length]])
        (other,) = emit(like, "Mul", [between, between], like=like, dtype=dtype, shapes=[[length, length]])  # 1, or 0
        away = stored(self._graph, "attention/away", np.array([AWAY]), dtype)
        (lifted,) = emit(like, "Mul", [other, away], like=like, dtype=dtype, shapes=[[length, length]])
        (sides,) = emit(like, "Sub", [away, lifted], like=like, dtype=dtype, shapes=[[length, length]])
        return sides

    def _size(self, source: ir.Value, axis: int, like: ir.Node) -> ir.Value:
        size = sizes_of(source)[axis]
        if isinstance(size, int):
            return stored(self._graph, f"attention/size/{size}", np.array([size]))
        attributes = {"start": axis, "end": axis + 1}
        return emit(like, "Shape", [source], attributes, like=like, dtype=ir.DataType.INT64, shapes=[[1]])[0]

    def _list(self, sizes: list[ir.Value], like: ir.Node) -> ir.Value:
        count = sum(int(size) for value in sizes for size in sizes_of(value) if isinstance(size, int))
        return emit(like, "Concat", sizes, {"axis": 0}, like=like, dtype=ir.DataType.INT64, shapes=[[count]])[0]
