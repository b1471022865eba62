"""Rewrites a float32 ONNX graph in fp16, except for named nodes (islands), which compute in float32.

Islands read float32 weights, not weights rounded to fp16: a weight that overflows or is subnormal in fp16 may be the
reason for the island. Values between neighbouring islands stay float32. Other values are cast at the island's border.
Operators that only move values take the dtype of their input.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import count
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.to_onnx import save_onnx
from lxmert_export.errors import ConversionError
from lxmert_export.graphs.onnx_rounding import half_epsilon
from lxmert_export.graphs.onnx_types import MOVES, computes, is_float, load_typed

WIDE, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
DEFAULT_EPSILON = 1e-5  # LayerNormalization's default in the ONNX standard
# Float32 in every standard half-precision export: norms, Softmax (with the mask's addition), GELU.
ISLAND_OPERATORS = frozenset({"LayerNormalization", "Softmax", "Erf", "Gelu"})


def computing_nodes(path: Path) -> list[str]:
    """Returns the names of the nodes that compute floating-point numbers, in graph order: each can be an island."""
    return [node.name or "" for node in load_typed(path).graph if computes(node)]


def standard_islands(path: Path) -> list[str]:
    """Returns the names of a float32 file's nodes that a standard fp16 export computes in float32."""
    graph = load_typed(path).graph
    islands = set()
    for node in graph:
        if node.op_type in ISLAND_OPERATORS:
            islands.add(node)
        if node.op_type == "Softmax":  # with the mask's addition, and all nodes that make the mask
            islands |= _before(node.inputs[0], ("Add", "Mul", "Sub", "Cast", "Unsqueeze"))
        if node.op_type == "Erf":
            islands |= _around_erf(node)
    return [node.name or "" for node in graph if node in islands and computes(node)]


def readers_of(path: Path, names: Collection[str]) -> set[str]:
    """Returns the computing nodes that read a result of ``names``, directly or after operators that only move it."""
    found: set[ir.Node] = set()
    pending = [node for node in load_typed(path).graph if node.name in names]
    while pending:
        for value in pending.pop().outputs:
            readers = {use.node for use in value.uses()} - found
            found |= readers
            pending += [reader for reader in readers if reader.op_type in MOVES]
    return {node.name or "" for node in found if computes(node)}


def write_with_islands(
    source: Path, directory: Path, islands: Iterable[str], *, half_values: Collection[str] = ()
) -> Path:
    """Writes a float32 file in fp16 with float32 islands, as ``model.onnx`` and its data; returns the first path.

    ``directory`` must not be the source's. ``half_values`` names the inputs and outputs that become float16; the others
    stay float32. ``ConversionError``: no computing node has the name of an island, or a weight outside the islands
    overflows fp16.
    """
    model = load_typed(source)
    names = set(islands)
    if unknown := sorted(names - {node.name or "" for node in model.graph if computes(node)}):
        raise ConversionError(f"{source}: no computing node is named {', '.join(unknown)}")
    _HalfRewriter(model.graph, names, half_values).rewrite()
    return save_onnx(model, directory)[0]


def _before(value: ir.Value | None, operators: tuple[str, ...]) -> set[ir.Node]:
    """Returns the unbroken chain of nodes of these operators that computes a value."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in operators:
        return set()
    return {node}.union(*(_before(read, operators) for read in node.inputs))


def _around_erf(erf: ir.Node) -> set[ir.Node]:
    """Returns the nodes of an exact GELU: x / √2 → Erf → + 1 → · ½ → · x."""
    found, value = {erf}, erf.outputs[0]
    before = erf.inputs[0].producer() if erf.inputs[0] is not None else None
    if before is not None:
        found.add(before)
    for operator in ("Add", "Mul", "Mul"):
        after = next((use.node for use in value.uses() if use.node.op_type == operator), None)
        if after is None:
            break
        found.add(after)
        value = after.outputs[0]
    return found


class _HalfRewriter:
    """Rewrites one graph to fp16: ``wide`` are the values that stay float32, ``casts`` the casts made so far."""

    def __init__(self, graph: ir.Graph, islands: Collection[str], half_values: Collection[str]) -> None:
        self.graph = graph
        self.islands = {node for node in graph if node.name in islands}
        self.half_values = half_values
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.names = {node.name for node in graph}
        self.outputs = list(graph.outputs)
        self.wide = self._wide_values()

    def rewrite(self) -> None:
        for value in (*self.graph.inputs, *self.graph.initializers.values()):
            if is_float(value) and value not in self.wide:
                _store_half(value) if value.is_initializer() else setattr(value, "dtype", HALF)
        for node in [node for node in self.graph if any(map(is_float, node.outputs))]:
            self._cast_inputs(node)
            self._set_outputs(node)
        for place, value in enumerate(self.outputs):
            if is_float(value):
                self._cast_output(place, value)

    def _wide_values(self) -> set[ir.Value]:
        """Returns the values that come from an island, a weight or an input and are read by an island.

        Operators that only move values may lie between. Float32 inputs of the graph always stay float32, and a float32
        output of the graph counts as read by an island.
        """
        nodes = list(self.graph)
        inputs = {v for v in self.graph.inputs if is_float(v) and v.name not in self.half_values}
        sources = inputs | {value for value in self.graph.initializers.values() if is_float(value)}
        sources |= {value for node in self.islands for value in node.outputs}
        for node in nodes:
            if node.op_type in MOVES and any(value in sources for value in _floats(node)):
                sources |= set(node.outputs)
        wanted = {value for node in self.islands for value in _floats(node)}
        wanted |= {value for value in self.outputs if value.name not in self.half_values}
        for node in reversed(nodes):
            if node.op_type in MOVES and any(value in wanted for value in node.outputs):
                wanted |= set(_floats(node))
        return (sources & wanted) | inputs

    def _cast_inputs(self, node: ir.Node) -> None:
        wide = node.outputs[0] in self.wide if node.op_type in MOVES else node in self.islands
        for place, value in enumerate(node.inputs):
            if value is not None and is_float(value):
                node.replace_input_with(place, self._cast(value, WIDE if wide else HALF, before=node))

    def _set_outputs(self, node: ir.Node) -> None:
        """Sets the dtypes of a node's outputs; casts an island's output once if no island reads it."""
        island = node in self.islands
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", int(WIDE if island else HALF))
        if node.op_type == "LayerNormalization" and not island:
            epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else DEFAULT_EPSILON
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", half_epsilon(epsilon, HALF))
        for value in node.outputs:
            value.dtype = WIDE if island or value in self.wide else HALF
            if island and value not in self.wide:
                readers = list(value.uses())
                for use in readers:
                    use.node.replace_input_with(use.idx, self._cast(value, HALF, after=node))

    def _cast(
        self, value: ir.Value, wanted: ir.DataType, *, before: ir.Node | None = None, after: ir.Node | None = None
    ) -> ir.Value:
        """Returns the value in the wanted dtype; each cast is made once, where it is first needed."""
        if value.dtype == wanted:
            return value
        if (value, wanted) not in self.casts:
            place = after or before
            assert place is not None
            cast = ir.node("Cast", [value], {"to": int(wanted)}, name=self._name(place))
            cast.outputs[0].name, cast.outputs[0].dtype, cast.outputs[0].shape = cast.name, wanted, value.shape
            (self.graph.insert_after if after else self.graph.insert_before)(place, [cast])
            self.casts[value, wanted] = cast.outputs[0]
        return self.casts[value, wanted]

    def _name(self, beside: ir.Node) -> str:
        module = (beside.name or "").rpartition("/")[0]
        name = f"{module}/Cast" if module else "Cast"
        numbered = next(
            n for number in count(1) if (n := name if number == 1 else f"{name}_{number}") not in self.names
        )
        self.names.add(numbered)
        return numbered

    def _cast_output(self, place: int, value: ir.Value) -> None:
        """Casts an output of the graph to the dtype that the signature states."""
        name, node = value.name, value.producer()
        wanted = HALF if name in self.half_values else WIDE
        if value.dtype == wanted:
            return
        assert node is not None, "an output is computed"
        value.name = node.name
        output = self._cast(value, wanted, after=node)
        output.name = name
        self.graph.outputs[place] = output


def _floats(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and is_float(value)]


def _store_half(value: ir.Value) -> None:
    """Casts a weight when the file is written. ``ConversionError``, then: the weight does not fit fp16."""
    stored, name = value.const_value, value.name
    assert stored is not None and value.shape is not None, "weights are in the file"

    def cast() -> ir.Tensor[NDArray[np.float16]]:
        wide = stored.numpy()
        with np.errstate(over="ignore"):
            array = wide.astype(np.float16)
        if not np.isfinite(array).all():
            raise ConversionError(f"{name} does not fit float16: its largest magnitude is {np.abs(wide).max():.4g}")
        return ir.Tensor(array, name=name)

    value.const_value = ir.LazyTensor(cast, dtype=HALF, shape=value.shape, name=name)
    value.dtype = HALF
