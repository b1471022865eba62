"""One emulated graph for every choice of float32 islands: an input of the graph says which nodes are islands.

A node in fp16 reads rounded values, and its result is rounded. An island reads the float32 values of other islands,
inputs and weights, and passes its result to other islands unrounded. The graph holds both variants, and a switch
selects one.

The outputs equal, bit for bit, those of ``EmulatedOnnxRunner`` for the file with these islands. So thousands of choices
can be tried without writing a file for each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from lxmert_export.graphs.onnx_rounding import HALF_TYPES, insert, rounded, stepwise_layer_norm
from lxmert_export.graphs.onnx_saving import save_streamed
from lxmert_export.graphs.onnx_types import computes, is_float, load_typed
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.onnx.session import FAILURES, open_session
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

SWITCHES = "islands"
SWITCHED_FILE = "switched.onnx"


class SwitchedOnnxRunner(Runner):
    """Emulates a float32 graph in half precision except for ``islands``, a subset of ``candidates`` that is set before a run."""

    failures = FAILURES

    def __init__(
        self,
        path: Path,
        signature: Signature,
        limits: InputLimits,
        candidates: Sequence[str] = (),
        *,
        precision: str = "fp16",
        threads: int | None = None,
        name: str = "fp16 with islands",
    ) -> None:
        super().__init__(name, signature, limits)
        self.candidates = tuple(candidates)
        self.islands: Collection[str] = ()
        self._directory = tempfile.TemporaryDirectory(prefix="lxmert-export-islands-")
        file = Path(self._directory.name) / SWITCHED_FILE
        half_outputs = {spec.name for spec in signature.outputs if spec.dtype == "float16"}
        write_switched(path, file, self.candidates, half_outputs, precision)
        self._session = open_session(file, (CPU,), optimize=False, threads=threads)
        self._taken = {value.name for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]

    def compute(self, inputs: Arrays) -> Arrays:
        wide = {name: a.astype(np.float32) if a.dtype.kind == "f" else a for name, a in inputs.items()}
        wide[SWITCHES] = np.array(
            [name in self.islands for name in self.candidates], dtype=np.bool_
        )  # not taken if empty
        given = {name: array for name, array in wide.items() if name in self._taken}
        outputs = dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))
        return {spec.name: outputs[spec.name].astype(spec.dtype) for spec in self.signature.outputs}

    def release(self) -> None:
        del self._session
        self._directory.cleanup()


def write_switched(
    source: Path, target: Path, candidates: Sequence[str], half_outputs: Collection[str], precision: str
) -> None:
    """Writes the emulated graph of a float32 file: candidates compute as their switches say, others in half precision."""
    model = load_typed(source)
    _Switched(model.graph, candidates, HALF_TYPES[precision]).rewrite(half_outputs)
    RemoveUnusedNodesPass()(model)  # also the weights that are read only as rounded copies
    save_streamed(model, target, f"{target.name}.data")


class _Switched:
    """Rewrites a graph in place; ``half`` holds the rounded copies of values that were made so far."""

    def __init__(self, graph: ir.Graph, candidates: Sequence[str], half_type: ir.DataType) -> None:
        self.graph, self.half_type = graph, half_type
        self.half: dict[ir.Value, ir.Value] = {}
        self.switches: dict[str, ir.Value] = {}
        self.nodes = [node for node in graph if computes(node)]
        self._add_switches(candidates)

    def rewrite(self, half_outputs: Collection[str]) -> None:
        for node in self.nodes:
            self._read_by_switch(node)
            self._round_by_switch(node)
        for place, output in enumerate(list(self.graph.outputs)):
            if output.name in half_outputs:
                name, output.name = output.name, f"{output.name}/wide"
                twin = self._rounded(output)
                twin.name = name
                self.graph.outputs[place] = twin

    def _add_switches(self, candidates: Sequence[str]) -> None:
        vector = ir.Value(name=SWITCHES, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([len(candidates)]))
        if candidates:
            self.graph.inputs.append(vector)
        for place, name in enumerate(candidates):
            index = ir.node("Constant", [], {"value": ir.tensor(np.array(place, dtype=np.int64))})
            pick = ir.node("Gather", [vector, index.outputs[0]], {"axis": 0}, name=f"{name}/switch")
            pick.outputs[0].dtype = ir.DataType.BOOL
            insert(self.graph, [index, pick], None)
            self.switches[name] = pick.outputs[0]

    def _read_by_switch(self, node: ir.Node) -> None:
        """Makes a node read rounded values, unless its switch makes it an island."""
        for place, value in enumerate(node.inputs):
            if value is not None and is_float(value):
                node.replace_input_with(place, self._choose(node, value, self._rounded(value), behind=False))

    def _round_by_switch(self, node: ir.Node) -> None:
        """Rounds a node's result, unless its switch makes it an island; its inputs must be switched already."""
        (output,) = node.outputs
        readers = list(output.uses())  # without the readers that are added below
        half = rounded(self.graph, output, self.half_type, after=node)
        if node.op_type == "LayerNormalization":  # rounded once as an island, and at every step otherwise
            stepwise = stepwise_layer_norm(self.graph, node, self.half_type, after=half.producer())
            half = self._choose(node, half, stepwise)
        chosen = self._choose(node, output, half)
        self.half[chosen] = half
        for use in readers:
            use.node.replace_input_with(use.idx, chosen)
        if output in self.graph.outputs:
            chosen.name, output.name = output.name, f"{output.name}/exact"
            self.graph.outputs[list(self.graph.outputs).index(output)] = chosen

    def _choose(self, node: ir.Node, wide: ir.Value, half: ir.Value, *, behind: bool = True) -> ir.Value:
        """Selects ``wide`` or ``half`` by a node's switch; inserted after ``half`` or, without ``behind``, before the node."""
        switch = self.switches.get(node.name or "")
        if switch is None:
            return half
        choice = ir.node("Where", [switch, wide, half])
        choice.outputs[0].dtype = ir.DataType.FLOAT
        if behind:
            insert(self.graph, [choice], half.producer())
        else:
            self.graph.insert_before(node, [choice])
        return choice.outputs[0]

    def _rounded(self, value: ir.Value) -> ir.Value:
        """Returns a copy of a value that is rounded to half precision and held in float32."""
        if value not in self.half:
            self.half[value] = (
                self._stored(value)
                if value.is_initializer()
                else rounded(self.graph, value, self.half_type, after=value.producer())
            )
        return self.half[value]

    def _stored(self, value: ir.Value) -> ir.Value:
        """Returns a rounded copy of a weight; it is rounded when the file is written, not at every run."""
        stored = value.const_value
        assert stored is not None and value.shape is not None, "weights are in the file"
        twin = ir.Value(name=f"{value.name}/half", type=value.type, shape=value.shape)
        twin.const_value = ir.LazyTensor(
            lambda: ir.Tensor(_through_half(stored.numpy(), self.half_type)),
            dtype=stored.dtype,
            shape=value.shape,
            name=twin.name,
        )
        self.graph.register_initializer(twin)
        return twin


def _through_half(array: NDArray[np.float32], half_type: ir.DataType) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # an overflow becomes infinite, as in the fp16 file
        return array.astype(half_type.numpy()).astype(np.float32)
