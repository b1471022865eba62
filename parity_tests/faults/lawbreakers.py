"""Faults that break a law of LXMERT, planted into a written ONNX file by editing its nodes: never by exporting again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from parity_tests.faults.onnx_faults import (
    PlantInFile,
    change,
    ignored_language_mask,
    ignored_vision_mask,
    last_token_pooled,
    node,
)

Change = Callable[["Edit", ir.Value], ir.Value]
LANGUAGE_BIAS, VISION_BIAS = "lxmert/Mul", "lxmert/Mul_2"  # [B, K]: 0 where a key is seen, -10000 where it is not
VISUAL_EMBEDDINGS = "lxmert.visual_embeddings/Div"  # [B, O, H]
WORD_POSITIONS = "lxmert.embeddings.position/Slice"  # [L, H]
HEADS = "constant/int64[4]=0x0x4x8"  # the shape that parts [B, S, H] into heads, 0 keeping a size
MASK_BIAS = "constant/float[]=10000.0"


class Edit:
    """Adds nodes to a graph, one operator at a time; numbers become initializers."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph

    def __call__(
        self, operator: str, *inputs: Any, gives: ir.DataType = ir.DataType.FLOAT, **attributes: Any
    ) -> ir.Value:
        """The output of a new node, of type ``gives``; its shape is left to the runtime."""
        values = [value if isinstance(value, ir.Value) else self._constant(np.asarray(value)) for value in inputs]
        added = ir.node(operator, values, attributes)
        added.outputs[0].name, added.outputs[0].dtype = f"planted/{len(self.graph)}", gives
        self.graph.append(added)
        return added.outputs[0]

    def _constant(self, array: np.ndarray) -> ir.Value:
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        tensor = ir.Tensor(array)
        value = ir.Value(name=f"planted/constant/{len(self.graph.initializers)}", const_value=tensor)
        value.dtype, value.shape = tensor.dtype, tensor.shape
        self.graph.register_initializer(value)
        return value


def _in_place_of(find: Callable[[ir.Graph], ir.Value], make: Change) -> PlantInFile:
    """Lets whatever reads a value read what is made of it."""

    def plant(graph: ir.Graph) -> None:
        value = find(graph)
        readers = [(use.node, use.idx) for use in value.uses()]
        made = make(Edit(graph), value)
        for reader, place in readers:
            reader.replace_input_with(place, made)
        graph.sort()

    return plant


def _output(name: str) -> Callable[[ir.Graph], ir.Value]:
    return lambda graph: node(graph, name).outputs[0]


def _input(name: str) -> Callable[[ir.Graph], ir.Value]:
    return lambda graph: next(value for value in graph.inputs if value.name == name)


def _numbered(axis: int) -> Change:
    """Adds a tenth of its number along an axis to each entry."""

    def make(edit: Edit, value: ir.Value) -> ir.Value:
        tenths = edit("Add", edit("Mul", value, 0.0), 0.1)
        return edit("Add", value, edit("CumSum", tenths, np.array(axis)))

    return make


def _less_its_mean(axis: int) -> Change:
    return lambda edit, value: edit("Sub", value, edit("ReduceMean", value, np.array([axis])))


def _quantised_over_the_batch(edit: Edit, value: ir.Value) -> ir.Value:
    """One int8 scale for the whole batch, as a runtime that quantises activations per tensor has."""
    step = edit("Div", edit("ReduceMax", edit("Abs", value), keepdims=0), 127.0)
    return edit("Mul", edit("Round", edit("Div", value, step)), step)


def _relative_to_the_largest(edit: Edit, boxes: ir.Value) -> ir.Value:
    return edit("Div", boxes, edit("ReduceMax", boxes, np.array([1, 2])))


def _as_lengths(edit: Edit, mask: ir.Value) -> ir.Value:
    """As many objects are seen as the mask says, but always the first ones."""
    length = edit("ReduceSum", mask, np.array([1]))
    number = edit("CumSum", edit("Add", edit("Mul", mask, 0.0), 1.0), np.array(1))
    return edit("Cast", edit("LessOrEqual", number, length, gives=ir.DataType.BOOL), to=int(ir.DataType.FLOAT))


def _from_the_end(edit: Edit, positions: ir.Value) -> ir.Value:
    return edit("Slice", positions, np.array([-1]), np.array([-(2**31)]), np.array([0]), np.array([-1]))


def _minus_infinity(edit: Edit, bias: ir.Value) -> ir.Value:
    return edit("Log", edit("Add", edit("Div", bias, 10000.0), 1.0))


def _with_noise(edit: Edit, value: ir.Value) -> ir.Value:
    """Dropout left on, in effect: another number at every call, far below the floor."""
    return edit("Add", value, edit("RandomNormalLike", value, scale=1e-7, dtype=int(ir.DataType.FLOAT)))


def _with_mask_bias(bias: float) -> PlantInFile:
    return lambda graph: change(graph, MASK_BIAS, lambda number: np.full_like(number, bias))


LAW_FAULTS: dict[str, PlantInFile] = {
    "ignored language mask": ignored_language_mask,
    "ignored vision mask": ignored_vision_mask,
    "weak mask": _with_mask_bias(5.0),
    "last token pooled": last_token_pooled,
    "positions from the end": _in_place_of(_output(WORD_POSITIONS), _from_the_end),
    "object positions": _in_place_of(_output(VISUAL_EMBEDDINGS), _numbered(axis=1)),
    "masks as lengths": _in_place_of(_input("visual_attention_mask"), _as_lengths),
    "boxes relative to masked ones": _in_place_of(_input("visual_pos"), _relative_to_the_largest),
    "features less their mean": _in_place_of(_input("visual_feats"), _less_its_mean(axis=1)),
    "normalised over the batch": _in_place_of(_output(VISUAL_EMBEDDINGS), _less_its_mean(axis=0)),
    "row numbers": _in_place_of(_output(VISUAL_EMBEDDINGS), _numbered(axis=0)),
    "frozen batch": lambda graph: change(graph, HEADS, lambda shape: np.array([8, *shape[1:]])),
    "quantised over the batch": _in_place_of(_output(VISUAL_EMBEDDINGS), _quantised_over_the_batch),
    "lowest number as mask": _with_mask_bias(float(np.finfo(np.float32).max)),
    "words masked by infinity": _in_place_of(_output(LANGUAGE_BIAS), _minus_infinity),
    "objects masked by infinity": _in_place_of(_output(VISION_BIAS), _minus_infinity),
    "random noise": _in_place_of(_output(VISUAL_EMBEDDINGS), _with_noise),
}
