"""Reads intermediate values of an ONNX file: onnxruntime gets its graph with more outputs; the file does not change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.graphs.onnx_rounding import HALF_TYPES
from lxmert_export.graphs.onnx_types import expose, load_typed
from lxmert_export.parity.points import LINEAR, Point
from lxmert_export.runners.onnx.emulator import EmulatedOnnxRunner
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.onnx.session import FAILURES, open_session
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

# The operators that can compute a module's result, by family; the one that is executed last comes first.
LINEAR_OPERATORS = ("Add", "Gemm", "MatMul")
OPERATORS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(LINEAR, LINEAR_OPERATORS),
    "embedding": ("Gather", "Slice"),
    "layer norm": ("LayerNormalization",),
    "softmax": ("Softmax",),
    "mean": ("Div", "Mul"),
    "tanh": ("Tanh",),
    "mask": ("Mul",),
    "normalisation": (),  # LayerNormalization is one operator
}
READERS = ("MatMul", "Gemm", "LayerNormalization")


def open_intermediates(artifact: Artifact, points: Sequence[Point]) -> Runner:
    """Opens a runner that outputs the values at the points, by point name."""
    manifest = artifact.manifest
    return OnnxIntermediates(
        artifact.file(ONNX_FILE),
        manifest.signature,
        manifest.limits,
        points,
        precision=manifest.precision,
        name=artifact.name,
    )


class OnnxIntermediates(Runner):
    """Outputs the values at the points, by point name; ``tensors`` names the file's value of each point.

    Half precision is emulated as in the gate: every operator's result is rounded.
    ``ArtifactError``: the file cannot be read.
    """

    failures = FAILURES

    def __init__(
        self,
        path: Path,
        signature: Signature,
        limits: InputLimits,
        points: Sequence[Point],
        *,
        precision: str,
        name: str,
    ) -> None:
        super().__init__(name, signature, limits)
        model = load_typed(path)
        self.tensors = find_values(model.graph, points)
        exposed = set(self.tensors.values())
        if precision in HALF_TYPES:
            self._inner: Runner = EmulatedOnnxRunner(
                path, signature, limits, precision=precision, name=name, exposed=tuple(sorted(exposed))
            )
        else:
            self._inner = _ExposedRunner(path, model, signature, limits, exposed, name=name)

    def compute(self, inputs: Arrays) -> Arrays:
        found = self._inner.compute(inputs)
        return {point.name: found[value] for point, value in self.tensors.items()}

    def release(self) -> None:
        self._inner.close()


class _ExposedRunner(Runner):
    """Runs a float32 or int8 graph with more outputs; onnxruntime reads the weights from the original file."""

    failures = FAILURES

    def __init__(
        self,
        path: Path,
        model: ir.Model,
        signature: Signature,
        limits: InputLimits,
        values: Iterable[str],
        *,
        name: str,
    ) -> None:
        super().__init__(name, signature, limits)
        expose(model.graph, values)
        content = ir.to_proto(model).SerializeToString()
        self._session = open_session(path, (CPU,), optimize=False, content=content)

    def compute(self, inputs: Arrays) -> Arrays:
        names = [value.name for value in self._session.get_outputs()]
        taken = {value.name for value in self._session.get_inputs()}
        given = {name: array for name, array in inputs.items() if name in taken}
        return dict(zip(names, self._session.run(names, given), strict=True))

    def release(self) -> None:
        del self._session


def find_values(graph: ir.Graph, points: Sequence[Point]) -> dict[Point, str]:
    """Finds the graph's value of each point by the node names ``module.path/Operator``; leaves out points without one.

    A point that is an output of the file is found by the output's name.
    """
    nodes: defaultdict[tuple[str, str], list[ir.Node]] = defaultdict(list)
    for node in graph:
        nodes[(node.name or "").rpartition("/")[0], node.op_type].append(node)
    outputs = {value.name for value in graph.outputs}
    found = {}
    for point in points:
        value = point.output if point.output in outputs else _value_name(point, nodes)
        if value is not None:
            found[point] = value
    return found


def _value_name(point: Point, nodes: Mapping[tuple[str, str], Sequence[ir.Node]]) -> str | None:
    """Returns the name of the operator's output or, for a point with ``read_by``, of the reading operator's input."""
    reads = point.read_by is not None and point.family != "mask"
    module, operators = (point.read_by, READERS) if reads else (point.module, OPERATORS[point.family])
    for operator in operators:
        uses = nodes.get((module or "", operator), ())
        if len(uses) >= point.call:
            node = uses[point.call - 1]
            value = node.inputs[0] if reads else node.outputs[0]
            return None if value is None else value.name
    return None
