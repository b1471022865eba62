"""A TFLite file's own intermediates: the interpreter keeps every tensor, and no delegate hides what it computes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from lxmert_export.artifact.directory import TFLITE_FILE, Artifact
from lxmert_export.errors import ArtifactError, first_line
from lxmert_export.parity.points import LINEAR, Point
from lxmert_export.runners.runner import Runner
from lxmert_export.runners.tflite.litert import SERVED
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.keras_names import Operation, read_names
from lxmert_export.spec.signature import Signature

# Which operator gives a point, and what it was called in the Keras graph, where that tells it from others.
GIVERS: Mapping[str, tuple[tuple[str, ...], str | None]] = {
    **dict.fromkeys(LINEAR, (("FULLY_CONNECTED", "BATCH_MATMUL"), None)),
    "embedding": (("GATHER",), None),
    "normalisation": (("MUL",), "mul"),
    "layer norm": (("ADD",), "add_1"),
    "softmax": (("SOFTMAX",), None),
    "mean": (("MUL", "DIV"), "truediv"),
    "tanh": (("TANH",), None),
}
MASK_KINDS = ("mul", "mul_1")  # the language's, then the vision's
READERS = ("FULLY_CONNECTED", "MEAN")


def open_intermediates(artifact: Artifact, points: Sequence[Point]) -> Runner:
    """A runner of what flows at the points."""
    manifest, file = artifact.manifest, artifact.file(TFLITE_FILE)
    return LiteRtIntermediates(file, manifest.signature, manifest.limits, points, manifest.config, name=artifact.name)


class LiteRtIntermediates(Runner):
    """Gives, by the points' names, what flows there; ``tensors`` tells which tensor of the file each is.

    Of a norm whose gain the converter folded into its only readers the file has the normalisation alone.
    """

    failures = (ValueError, RuntimeError, KeyError)

    def __init__(
        self, path: Path, signature: Signature, limits: InputLimits, points: Sequence[Point], config: LxmertConfig, *, name: str
    ) -> None:  # fmt: skip
        super().__init__(name, signature, limits)
        self._scale = 1 / np.sqrt(config.head_size)
        try:
            self._interpreter: Any = Interpreter(
                model_path=str(path),
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                experimental_preserve_all_tensors=True,
            )
            self._serve: Any = self._interpreter.get_signature_runner(SERVED)
            graph = _Graph(self._interpreter, config)
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{path}: LiteRT cannot load it: {first_line(error)}") from error
        self._places = {p: place for p in points if (place := graph.place(p)) is not None and p.output is None}
        self._scaled = {point for point, place in self._places.items() if graph.is_scaled(point, place)}
        self._details = graph.tensors
        given = {spec.name for spec in signature.outputs}
        self.tensors = {
            p: p.output if p.output in given else graph.tensors[self._places[p]]["name"]
            for p in points
            if p.output in given or p in self._places
        }

    def compute(self, inputs: Arrays) -> Arrays:
        outputs = self._serve(**inputs)
        return {
            point.name: self._tensor(point) if point in self._places else outputs[point.output]
            for point in self.tensors
        }

    def release(self) -> None:
        self._serve = self._interpreter = None

    def _tensor(self, point: Point) -> NDArray[Any]:
        place = self._places[point]
        array = np.array(self._interpreter.get_tensor(place))
        scale, zero = self._details[place]["quantization"]
        if array.dtype.kind == "i" and scale:
            array = (array.astype(np.float32) - zero) * np.float32(scale)
        return array / self._scale if point in self._scaled else array


class _Graph:
    """The operators of a file, by what they were in the Keras graph that it was converted from."""

    def __init__(self, interpreter: Any, config: LxmertConfig) -> None:
        self.tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
        operators = interpreter._get_ops_details()
        names = {piece for tensor in self.tensors.values() for piece in _pieces(tensor["name"])}
        self._read = read_names(names, config)
        self._operators: defaultdict[tuple[str, str, int], list[Mapping[str, Any]]] = defaultdict(list)
        for operator in operators:
            for module, call in {(was.module, was.call) for was in self._was(operator)}:
                self._operators[operator["op_name"], module, call].append(operator)

    def place(self, point: Point) -> int | None:
        """The index of the tensor that a point is; None where the file has none."""
        if point.family == "mask":
            return self._given(point.module, 1, ("MUL",), MASK_KINDS[point.call - 1])
        if point.read_by is None:
            return self._given(point.module, point.call, *GIVERS[point.family])
        for name in READERS:
            for operator in self._operators.get((name, point.read_by, point.call), ()):
                return int(operator["inputs"][0])
        return None

    def is_scaled(self, point: Point, place: int) -> bool:
        """Whether the converter folded an attention's scale into its query projection."""
        attention = point.module.rpartition(".")[0]
        pieces = _pieces(self.tensors[place]["name"])
        kinds = {(was.module, was.kind) for piece in pieces if (was := self._read.get(piece))}
        return point.family == "query projection" and (attention, "mul") in kinds

    def _given(self, module: str, call: int, operators: Sequence[str], kind: str | None) -> int | None:
        for name in operators:
            for operator in self._operators.get((name, module, call), ()):
                if kind is None or kind in {was.kind for was in self._was(operator) if was.module == module}:
                    return int(operator["outputs"][0])
        return None

    def _was(self, operator: Mapping[str, Any]) -> list[Operation]:
        """What one operator does the work of: more than one where the converter fused them."""
        outputs = [int(place) for place in operator["outputs"] if int(place) in self.tensors]
        pieces = [piece for place in outputs[:1] for piece in _pieces(self.tensors[place]["name"])]
        return [self._read[piece] for piece in pieces if piece in self._read]


def _pieces(name: str) -> list[str]:
    """The names that the converter joined."""
    return [piece for piece in name.split(";") if piece]
