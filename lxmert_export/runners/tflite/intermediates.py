"""Reads intermediate values of a TFLite file: the interpreter keeps every tensor, and runs without delegates."""

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

# The operators that can compute a point, by family, and their name in the Keras graph if the type is ambiguous.
GIVERS: Mapping[str, tuple[tuple[str, ...], str | None]] = {
    **dict.fromkeys(LINEAR, (("FULLY_CONNECTED", "BATCH_MATMUL"), None)),
    "embedding": (("GATHER",), None),
    "normalisation": (("MUL",), "mul"),
    "layer norm": (("ADD",), "add_1"),
    "softmax": (("SOFTMAX",), None),
    "mean": (("MUL", "DIV"), "truediv"),
    "tanh": (("TANH",), None),
}
MASK_KINDS = ("mul", "mul_1")  # of the language mask, of the vision mask
READERS = ("FULLY_CONNECTED", "MEAN")


def open_intermediates(artifact: Artifact, points: Sequence[Point]) -> Runner:
    """Opens a runner that outputs the values at the points, by point name."""
    manifest, file = artifact.manifest, artifact.file(TFLITE_FILE)
    return LiteRtIntermediates(file, manifest.signature, manifest.limits, points, manifest.config, name=artifact.name)


class LiteRtIntermediates(Runner):
    """Outputs the values at the points, by point name; ``tensors`` names the file's tensor of each point.

    The converter may fold a norm's gain into its readers. The file then has only the norm's
    normalisation.
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
    """The operators of a file, by their modules in the Keras graph that the file was converted from."""

    def __init__(self, interpreter: Any, config: LxmertConfig) -> None:
        self.tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
        operators = interpreter._get_ops_details()
        names = {piece for tensor in self.tensors.values() for piece in _pieces(tensor["name"])}
        self._read = read_names(names, config)
        self._operators: defaultdict[tuple[str, str, int], list[Mapping[str, Any]]] = defaultdict(list)
        for operator in operators:
            for module, call in {(origin.module, origin.call) for origin in self._origins(operator)}:
                self._operators[operator["op_name"], module, call].append(operator)

    def place(self, point: Point) -> int | None:
        """Returns the index of a point's tensor; None if the file has none."""
        if point.family == "mask":
            return self._output_of(point.module, 1, ("MUL",), MASK_KINDS[point.call - 1])
        if point.read_by is None:
            return self._output_of(point.module, point.call, *GIVERS[point.family])
        for name in READERS:
            for operator in self._operators.get((name, point.read_by, point.call), ()):
                return int(operator["inputs"][0])
        return None

    def is_scaled(self, point: Point, place: int) -> bool:
        """Returns whether the converter folded the attention's scale into this query projection."""
        attention = point.module.rpartition(".")[0]
        pieces = _pieces(self.tensors[place]["name"])
        kinds = {(origin.module, origin.kind) for piece in pieces if (origin := self._read.get(piece))}
        return point.family == "query projection" and (attention, "mul") in kinds

    def _output_of(self, module: str, call: int, operators: Sequence[str], kind: str | None) -> int | None:
        for name in operators:
            for operator in self._operators.get((name, module, call), ()):
                if kind is None or kind in {
                    origin.kind for origin in self._origins(operator) if origin.module == module
                }:
                    return int(operator["outputs"][0])
        return None

    def _origins(self, operator: Mapping[str, Any]) -> list[Operation]:
        """Returns the Keras operations that an operator computes; more than one if the converter fused them."""
        outputs = [int(place) for place in operator["outputs"] if int(place) in self.tensors]
        pieces = [piece for place in outputs[:1] for piece in _pieces(self.tensors[place]["name"])]
        return [self._read[piece] for piece in pieces if piece in self._read]


def _pieces(name: str) -> list[str]:
    """Splits a tensor's name into the names that the converter joined."""
    return [piece for piece in name.split(";") if piece]
