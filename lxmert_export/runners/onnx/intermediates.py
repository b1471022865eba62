"""Reads intermediate values of an ONNX file: onnxruntime gets its graph with more outputs; the file does not change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.graphs.onnx_decomposition import is_for_cuda, load_decomposed
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
JOINT = ".cross_attention"
OF_OBJECTS = ("vision", "visual", "object")
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
        filled=manifest.options.get("filled", {}),
    )


class OnnxIntermediates(Runner):
    """Outputs the values at the points, by point name; ``tensors`` names the file's value of each point.

    Half precision is emulated as in the gate: every operator's result is rounded. Of a file of fused operators, the nodes that
    define them are run; its cross attentions are left out, because they compute both directions as one. ``filled``: the lengths
    that such a file fills sequences up to; only given tokens are returned. ``ArtifactError``: the file cannot be read.
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
        filled: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(name, signature, limits)
        model = load_typed(path)
        self._filled = dict(filled or {})
        if is_for_cuda(model):
            model = load_decomposed(path)
            points = [point for point in points if JOINT not in f"{point.module} {point.read_by}"]
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
        return {point.name: self._given(point, found[value]) for point, value in self.tensors.items()}

    def _given(self, point: Point, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Cuts the tokens off that filled a sequence up: [B, S], [B, S, H] or [B, N, Q, K]."""
        of_objects = point.call == 2 if point.family == "mask" else any(word in point.module for word in OF_OBJECTS)
        side = "objects" if of_objects else "text"
        for axis in (2, 3) if array.ndim == 4 else (1,):
            if array.ndim > axis and array.shape[axis] == self._filled.get(side):
                array = array[(slice(None),) * axis + (slice(self.signature.fixed_sizes[side]),)]
        return array

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
