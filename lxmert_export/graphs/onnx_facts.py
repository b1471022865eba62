"""What an ONNX file really holds, read from the file itself: its operators, and the precision of its matmuls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx

from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.artifact.facts import GraphFacts, count_precisions, read_as
from lxmert_export.graphs.onnx_launches import MICROSOFT, LaunchCount, count_launches
from lxmert_export.graphs.onnx_types import UNREADABLE

# The first onnxruntime that runs files of an operator set, and of an IR version. Measured with the built-in checkpoint in every
# minor version from 1.15 on, the first with a wheel for Python 3.11.
BY_OPSET = {18: (1, 15), 19: (1, 16), 20: (1, 17), 21: (1, 18), 22: (1, 21), 23: (1, 23), 24: (1, 24), 25: (1, 24)}
BY_IR_VERSION = {8: (1, 15), 9: (1, 15), 10: (1, 18)}
INT8 = onnx.TensorProto.INT8
# How many matmuls an operator computes.
MATMULS = {"MatMul": 1, "Gemm": 1, "Attention": 2, "MultiHeadAttention": 2}


@dataclass(frozen=True)
class OnnxFacts(GraphFacts):
    """The facts of an ONNX graph: ``opset`` is its operator set, ``islands`` counts the island nodes by precision.

    Matmuls that are islands are not counted in ``matmuls``. ``lowest_runtime``: the first onnxruntime that runs the file; None if
    it is not known. ``launches``: the kernels of a call on onnxruntime's CUDA provider.
    """

    opset: int
    ir_version: int
    lowest_runtime: str | None
    islands: dict[str, int]
    launches: dict[str, Any] = field(default_factory=lambda: asdict(LaunchCount()))

    def for_manifest(self) -> dict[str, Any]:
        """The launches, beside the operators that they are counted by."""
        return {"launches": self.launches}


def read_facts(artifact: Artifact) -> OnnxFacts:
    """Reads the facts of an ONNX artifact's graph. ``ArtifactError``: the file cannot be read."""
    file = artifact.file(ONNX_FILE)
    with read_as(artifact, file, UNREADABLE):
        return read_onnx_facts(file, artifact.fp32_islands)


def float32_matmuls(path: Path) -> list[str]:
    """Returns the names of an int8 graph's matmuls in float32: those of two computed values, and those that its export kept."""
    graph = onnx.load(path, load_external_data=False).graph
    whole = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return [node.name for node in graph.node if node.op_type in MATMULS and not whole >= set(node.input[:2])]


def read_onnx_facts(path: Path, islands: Collection[str] = ()) -> OnnxFacts:
    """Reads a graph without its weights, and infers the dtypes that it does not state; ``islands``: names of nodes."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    graph = model.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    stored = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        # A tied weight is transposed before its matmul; a weight shared with a float32 island is cast.
        if node.op_type in ("Transpose", "Cast") and node.input[0] in stored:
            stored.add(node.output[0])
    whole = {
        node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and types[node.input[0]] == INT8
    }
    stored |= {node.output[0] for node in graph.node if node.output[0] in whole and node.input[0] in stored}
    types |= dict.fromkeys(whole & stored, INT8)
    matmuls = [node for node in graph.node if node.op_type in MATMULS and node.name not in islands]
    types |= {node.output[0]: INT8 for node in matmuls if whole >= set(node.input[:2])}
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    return OnnxFacts(
        opset=opset,
        ir_version=model.ir_version,
        lowest_runtime=None if is_foreign(model) else lowest_onnxruntime(opset, model.ir_version),
        operators=dict(Counter(node.op_type for node in graph.node).most_common()),
        matmuls=_by_precision(types[node.output[0]] for node in matmuls for _ in range(MATMULS[node.op_type])),
        islands=_by_precision(types[node.output[0]] for node in graph.node if node.name in islands),
        matmul_weights=_by_precision(types[node.input[1]] for node in matmuls if node.input[1] in stored),
        launches=asdict(count_launches(model)),
    )


def is_foreign(model: onnx.ModelProto) -> bool:
    """Whether a graph may hold operators that the standard lacks. From which onnxruntime on a GPU runs them is not known."""
    return any(entry.domain == MICROSOFT for entry in model.opset_import)


def lowest_onnxruntime(opset: int, ir_version: int) -> str | None:
    """Returns the first onnxruntime that runs a file of ours, such as ``onnxruntime 1.15``; None if it is not known."""
    if opset not in BY_OPSET or ir_version not in BY_IR_VERSION:
        return None
    return "onnxruntime {}.{}".format(*max(BY_OPSET[opset], BY_IR_VERSION[ir_version]))


def _by_precision(types: Iterable[int]) -> dict[str, int]:
    return count_precisions(onnx.TensorProto.DataType.Name(kind) for kind in types)
