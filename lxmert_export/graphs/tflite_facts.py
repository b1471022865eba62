"""What a TFLite file really holds, and how much of it XNNPACK takes, read with ai-edge-litert alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from lxmert_export.artifact.directory import TFLITE_FILE, Artifact
from lxmert_export.artifact.facts import GraphFacts, count_precisions, read_as

DELEGATE = "DELEGATE"
UNREADABLE: tuple[type[Exception], ...] = (ValueError, RuntimeError)  # what reading a file that is none raises
# TFLite's converter leaves weights of fewer values as they are when it quantises.
LEAST_QUANTIZED = 1024
# Of the operators that our graphs hold, those that the GPU delegate knows.
# Source: tensorflow/lite/tools/versioning/gpu_compatibility.cc, CheckGpuDelegateCompatibility.
GPU_KNOWS = frozenset(
    "ADD BATCH_MATMUL CAST CONCATENATION DEQUANTIZE FULLY_CONNECTED GATHER GELU MEAN MUL PACK QUANTIZE RESHAPE RSQRT SOFTMAX "
    "SPLIT SPLIT_V SQUARED_DIFFERENCE SUB SUM TANH TILE TRANSPOSE".split()
)


@dataclass(frozen=True)
class TfliteFacts(GraphFacts):
    """The graph's facts, and its operators by name that are left to the CPU's plain kernels.

    ``xnnpack_left`` by XNNPACK, as it was seen here, which takes ``xnnpack_share`` of all. ``gpu_left`` by the GPU delegate, as
    its rules say: no GPU has run it, and the analyser that comes with TensorFlow 2.21 finds every graph compatible.
    """

    xnnpack_share: float
    xnnpack_left: dict[str, int]
    gpu_left: dict[str, int]

    def for_manifest(self) -> dict[str, Any]:
        """Its operators, and those that XNNPACK and the GPU delegate leave to the CPU."""
        names = ("operators", "xnnpack_share", "xnnpack_left", "gpu_left")
        return {name: getattr(self, name) for name in names}


def read_facts(artifact: Artifact) -> TfliteFacts:
    """The facts of a TFLite artifact's graph."""
    file = artifact.file(TFLITE_FILE)
    with read_as(artifact, file, UNREADABLE):
        return read_tflite_facts(file)


def read_tflite_facts(path: Path) -> TfliteFacts:
    """Loads the file, lets XNNPACK take its part, and counts."""
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
    )


def _delegated(details: Sequence[Mapping[str, Any]], producers: Mapping[int, Mapping[str, Any]]) -> set[int]:
    """The operators that delegates run in our place: all between what each takes and what it gives."""
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
    """By the delegate's rules: operators that it knows, indices of one axis, and no broadcasting between ranks above 1."""
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
    """The dtype in which a matmul's weight is stored; None of one too small to be quantised."""
    place = int(operator["inputs"][1])
    if place in producers and producers[place]["op_name"] == "DEQUANTIZE":
        place = int(producers[place]["inputs"][0])
    small = tensors[place]["shape"].prod() < LEAST_QUANTIZED and tensors[place]["dtype"] is np.float32
    return None if small else _dtype(tensors, place)


def _names(operators: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    return dict(Counter(operator["op_name"] for operator in operators).most_common())


def _dtype(tensors: Mapping[int, Mapping[str, Any]], place: int) -> str:
    return str(np.dtype(tensors[int(place)]["dtype"]).name)
