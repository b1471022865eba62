"""What a TFLite file really holds, and which operators XNNPACK runs, read with ai-edge-litert alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from lxmert_export.artifact.directory import TFLITE_FILE, Artifact
from lxmert_export.artifact.facts import GraphFacts, count_precisions, read_as

DELEGATE = "DELEGATE"
UNREADABLE: tuple[type[Exception], ...] = (ValueError, RuntimeError)  # raised on a file that is not TFLite
# TFLite's converter does not quantise weights with fewer values.
LEAST_QUANTIZED = 1024
# The operators of our graphs that the GPU delegate supports.
# Source: tensorflow/lite/tools/versioning/gpu_compatibility.cc, CheckGpuDelegateCompatibility.
GPU_KNOWS = frozenset(
    "ADD BATCH_MATMUL CAST CONCATENATION DEQUANTIZE FULLY_CONNECTED GATHER GELU MEAN MUL PACK QUANTIZE RESHAPE RSQRT SOFTMAX "
    "SPLIT SPLIT_V SQUARED_DIFFERENCE SUB SUM TANH TILE TRANSPOSE".split()
)


@dataclass(frozen=True)
class TfliteFacts(GraphFacts):
    """The facts of a TFLite graph, and how many operators each delegate runs or leaves to the CPU's plain kernels.

    | field             | meaning                                                                       |
    |-------------------|-------------------------------------------------------------------------------|
    | ``xnnpack_share`` | share of the operators that XNNPACK runs, measured here                       |
    | ``xnnpack_left``  | operators that XNNPACK leaves, by name, measured here                         |
    | ``gpu_left``      | operators that the GPU delegate leaves, predicted from its rules, not run     |
    | ``lowest_runtime`` | the first TFLite runtime with all operators, as the file itself says         |

    The analyser of TensorFlow 2.21 is not used: it calls every graph compatible with the GPU delegate.
    """

    xnnpack_share: float
    xnnpack_left: dict[str, int]
    gpu_left: dict[str, int]
    lowest_runtime: str | None

    def for_manifest(self) -> dict[str, Any]:
        """Returns the counts for the manifest: all operators, and those that each delegate leaves to the CPU."""
        names = ("operators", "xnnpack_share", "xnnpack_left", "gpu_left")
        return {name: getattr(self, name) for name in names}


def read_facts(artifact: Artifact) -> TfliteFacts:
    """Reads the facts of a TFLite artifact's graph. ``ArtifactError``: the file cannot be read."""
    file = artifact.file(TFLITE_FILE)
    with read_as(artifact, file, UNREADABLE):
        return read_tflite_facts(file)


def read_tflite_facts(path: Path) -> TfliteFacts:
    """Loads a file with XNNPACK, and counts its operators, matmuls and weights."""
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    operators = [operator for operator in details if operator["op_name"] != DELEGATE]
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    producers = {int(output): operator for operator in operators for output in operator["outputs"]}
    matmuls = [operator for operator in operators if operator["op_name"] in ("FULLY_CONNECTED", "BATCH_MATMUL")]
    taken = _delegated(details, producers)
    left = [operator for operator in operators if operator["index"] not in taken]
    return TfliteFacts(
        operators=_names(operators),
        matmuls=count_precisions(_dtype(tensors, operator["outputs"][0]) for operator in matmuls),
        matmul_weights=count_precisions(
            dtype
            for operator in matmuls
            if operator["op_name"] == "FULLY_CONNECTED" and (dtype := _weight(operator, tensors, producers))
        ),
        xnnpack_share=round(1 - len(left) / len(operators), 3),
        xnnpack_left=_names(left),
        gpu_left=_names(operator for operator in operators if not _gpu_takes(operator, tensors)),
        lowest_runtime=_lowest_runtime(path),
    )


def _lowest_runtime(path: Path) -> str | None:
    """Returns what TFLite's converter noted in the file, such as ``TFLite 2.9.0``; None if it noted nothing."""
    content = path.read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    for place in range(model.MetadataLength()):
        noted = model.Metadata(place)
        if noted.Name() == b"min_runtime_version":
            version = model.Buffers(noted.Buffer()).DataAsNumpy().tobytes().rstrip(b"\0").decode()
            return f"TFLite {version}" if version else None
    return None


def _delegated(details: Sequence[Mapping[str, Any]], producers: Mapping[int, Mapping[str, Any]]) -> set[int]:
    """Returns the indices of the operators that delegates run: those between a delegate's inputs and its outputs."""
    taken: set[int] = set()
    for delegate in details:
        if delegate["op_name"] != DELEGATE:
            continue
        given = {int(tensor) for tensor in delegate["inputs"]}
        open_ends = [int(tensor) for tensor in delegate["outputs"]]
        while open_ends:
            tensor = open_ends.pop()
            if tensor in given or tensor not in producers or producers[tensor]["index"] in taken:
                continue
            taken.add(producers[tensor]["index"])
            open_ends += [int(source) for source in producers[tensor]["inputs"]]
    return taken


def _gpu_takes(operator: Mapping[str, Any], tensors: Mapping[int, Mapping[str, Any]]) -> bool:
    """Applies the GPU delegate's rules: a known operator, indices of one axis, no broadcast between ranks above 1."""
    name, inputs = operator["op_name"], [tensors[int(place)] for place in operator["inputs"] if int(place) in tensors]
    ranks = [len(tensor["shape"]) for tensor in inputs]
    if name == "GATHER":
        return ranks[1] == 1
    if name in ("ADD", "MUL"):
        return min(ranks) <= 1 or ranks[0] == ranks[1]
    return name in GPU_KNOWS


def _weight(
    operator: Mapping[str, Any], tensors: Mapping[int, Mapping[str, Any]], producers: Mapping[int, Mapping[str, Any]]
) -> str | None:
    """Returns the dtype of a matmul's stored weight; None for a float32 weight that is too small to be quantised."""
    place = int(operator["inputs"][1])
    if place in producers and producers[place]["op_name"] == "DEQUANTIZE":
        place = int(producers[place]["inputs"][0])
    small = tensors[place]["shape"].prod() < LEAST_QUANTIZED and tensors[place]["dtype"] is np.float32
    return None if small else _dtype(tensors, place)


def _names(operators: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    return dict(Counter(operator["op_name"] for operator in operators).most_common())


def _dtype(tensors: Mapping[int, Mapping[str, Any]], place: int) -> str:
    return str(np.dtype(tensors[int(place)]["dtype"]).name)
