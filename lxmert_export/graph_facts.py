"""What an artifact's graph really holds, told from its own bytes: operators, and what its matmuls compute in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from lxmert_export.artifact import KERAS_FILE, ONNX_FILE, SAVED_MODEL, TFLITE_FILE, Artifact
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.native_logs import quiet_native_logs

# Precisions by the names that files and libraries have for them.
PRECISION_NAMES = {
    "float32": "fp32", "float": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64", "double": "fp64",
}  # fmt: skip


@dataclass(frozen=True)
class GraphFacts:
    """Counts of a graph: its operators by name, its matmuls and their stored weights by precision."""

    operators: dict[str, int]
    matmuls: dict[str, int]
    matmul_weights: dict[str, int]


def count_precisions(names: Iterable[str]) -> dict[str, int]:
    """How often each precision occurs among dtype names."""
    return dict(Counter(PRECISION_NAMES.get(name.lower(), name.lower()) for name in names))


# What each target's reader needs: module and extra.
READERS = {"onnx": ("onnx", "onnx"), "tensorflow": ("tensorflow", "tensorflow"), "tflite": ("ai_edge_litert", "tflite")}


def read_graph_facts(artifact: Artifact) -> GraphFacts | None:
    """Reads the graph of an artifact; None where the library that reads it is not installed."""
    module, _ = reader_of(artifact)
    if find_spec(module) is None:
        return None
    if artifact.manifest.target == "onnx":
        from lxmert_export.onnx_file import read_onnx_facts

        return read_onnx_facts(artifact.file(ONNX_FILE), fp32_islands(artifact))
    with quiet_native_logs():
        if artifact.manifest.target == "tflite":
            from lxmert_export.tflite_file import read_tflite_facts

            return read_tflite_facts(artifact.file(TFLITE_FILE))
        from lxmert_export.tensorflow_files import read_keras_facts, read_saved_model_facts

        if artifact.is_keras:
            return read_keras_facts(artifact.file(KERAS_FILE))
        return read_saved_model_facts(artifact.file(SAVED_MODEL))


def reader_of(artifact: Artifact) -> tuple[str, str]:
    """The module that reads an artifact's graph, and its extra; ``ArtifactError``: a target that this version has not."""
    target = artifact.manifest.target
    if target not in READERS:
        raise ArtifactError(f"{artifact.path}: this version has no runner for target {target!r}")
    return READERS[target]


def check_precision(artifact: Artifact) -> GraphFacts:
    """``ConversionError`` unless every matmul computes in what the manifest says, over weights of its precision.

    Those among the manifest's float32 islands are not asked; each of the islands must be there, and compute in float32.
    """
    facts = read_graph_facts(artifact)
    assert facts is not None, "whoever converts has the reader's library"
    precision = artifact.manifest.precision
    arithmetic = artifact.manifest.options.get("arithmetic", precision)
    if set(facts.matmuls) != {arithmetic} or set(facts.matmul_weights) != {precision}:
        raise ConversionError(
            f"{artifact.name}: called {precision} with {arithmetic} arithmetic, but its matmuls compute in {facts.matmuls} "
            f"over weights stored in {facts.matmul_weights}"
        )
    islands, found = fp32_islands(artifact), getattr(facts, "islands", {})
    if islands and found != {"fp32": len(islands)}:
        raise ConversionError(
            f"{artifact.name}: its manifest names {len(islands)} float32 islands, but these nodes compute in {found}"
        )
    return facts


def fp32_islands(artifact: Artifact) -> list[str]:
    """The nodes that were made float32 islands one by one; none where the islands are the usual ones."""
    return list(artifact.manifest.options.get("fp32_islands", ()))


def delegation(facts: GraphFacts) -> dict[str, Any]:
    """Of a TFLite graph, for the manifest: its operators, and those that XNNPACK and the GPU delegate leave to the CPU."""
    names = ("operators", "xnnpack_share", "xnnpack_left", "gpu_left")
    return {name: getattr(facts, name) for name in names}
