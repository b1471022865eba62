"""Reads intermediate values of a SavedModel: the function that its signature calls, with other tensors as outputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from lxmert_export.artifact.directory import SAVED_MODEL, Artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.parity.points import LINEAR, Point
from lxmert_export.runners.runner import Runner
from lxmert_export.runners.tensorflow.saved_model import SavedModelRunner
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.keras_names import read_names
from lxmert_export.spec.signature import Signature

# The names, within a module, that the operator of a point can have, by family.
KINDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(LINEAR, ("BiasAdd", "MatMul")),
    "embedding": ("GatherV2",),
    "normalisation": ("mul",),
    "layer norm": ("add_1",),
    "softmax": ("Softmax",),
    "mean": ("truediv",),
    "tanh": ("Tanh",),
}
MASK_KINDS = ("mul", "mul_1")  # of the language mask, of the vision mask
READERS = ("MatMul", "Mean")
CALLS = ("StatefulPartitionedCall", "PartitionedCall")


def open_intermediates(artifact: Artifact, points: Sequence[Point]) -> Runner:
    """Opens a runner that outputs the values at the points, by point name."""
    manifest, file = artifact.manifest, artifact.file(SAVED_MODEL)
    return SavedModelIntermediates(
        file, manifest.signature, manifest.limits, points, manifest.config, name=artifact.name
    )


class SavedModelIntermediates(SavedModelRunner):
    """Outputs the values at the points, by point name; ``tensors`` names the graph's tensor of each point."""

    def __init__(
        self, path: Path, signature: Signature, limits: InputLimits, points: Sequence[Point], config: LxmertConfig, *, name: str
    ) -> None:  # fmt: skip
        super().__init__(path, signature, limits, name=name)
        call, body = _called(self._serve.graph)
        found = _find_tensors(body, points, config)
        for name, tensor in _outputs(self._serve, call, body).items():
            found |= {point: tensor for point in points if point.output == name}
        self.tensors = {point: found[point].name for point in points if point in found}
        self._function = _function_of(body, [found[point] for point in self.tensors])
        self._names = [placeholder.op.name for placeholder in self._serve.inputs]

    def compute(self, inputs: Arrays) -> Arrays:
        _, taken = self._serve.structured_input_signature
        given = [tf.constant(inputs[name], taken[name].dtype) for name in self._names[: len(taken)]]
        values = self._function(*given, *self._serve.captured_inputs)
        return {point.name: value.numpy() for point, value in zip(self.tensors, values, strict=True)}

    def release(self) -> None:
        super().release()
        self._function = None


def _called(graph: Any) -> tuple[Any, Any]:
    """Returns the call of the one function that a signature's graph calls, and the body of that function.

    ``ArtifactError``: the graph does not call exactly one function.
    """
    calls = [operation for operation in graph.get_operations() if operation.type in CALLS]
    if len(calls) != 1:
        raise ArtifactError(
            f"the signature calls {len(calls)} functions, not one: this tool did not write the SavedModel"
        )
    return calls[0], graph._get_function(calls[0].get_attr("f").name).graph


def _find_tensors(body: Any, points: Sequence[Point], config: LxmertConfig) -> dict[Point, Any]:
    """Finds the tensor of each point by its operator's name; leaves out points that the graph lacks."""
    operations = {operation.name: operation for operation in body.get_operations()}
    places: defaultdict[tuple[str, int, str], list[Any]] = defaultdict(list)
    for name, place in read_names(operations, config).items():
        places[place.module, place.call, place.kind].append(operations[name])
    found = {}
    for point in points:
        reads = point.read_by is not None and point.family != "mask"
        kinds = READERS if reads else KINDS.get(point.family) or (MASK_KINDS[point.call - 1],)
        call = 1 if point.family == "mask" else point.call
        module = (point.read_by or "") if reads else point.module
        operation = next((o for kind in kinds for o in places.get((module, call, kind), ())), None)
        if operation is not None:
            found[point] = operation.inputs[0] if reads else operation.outputs[0]
    return found


def _outputs(serve: Any, call: Any, body: Any) -> dict[str, Any]:
    """Returns the body's tensor for each output of a signature."""
    found = {}
    for name, tensor in zip(sorted(serve.structured_outputs), serve.outputs, strict=True):
        while tensor.op.type == "Identity":
            tensor = tensor.op.inputs[0]
        if tensor.op is call:
            found[name] = body.outputs[tensor.value_index]
    return found


def _function_of(body: Any, tensors: Sequence[Any]) -> Any:
    """Returns a function of the body's inputs (weights last) that runs the same operators and returns ``tensors``."""
    definition, names = body.as_graph_def(), [tensor.name for tensor in tensors]

    def compute(*inputs: Any) -> Any:
        given = {placeholder.name: tensor for placeholder, tensor in zip(body.inputs, inputs, strict=True)}
        return tf.graph_util.import_graph_def(definition, input_map=given, return_elements=names, name="")

    return tf.compat.v1.wrap_function(compute, [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in body.inputs])
