"""What an artifact's graph really holds, told from its own bytes: operators, and what its matmuls compute in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
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
    """Reads the graph of an artifact; None of an engine, and where the library that reads it is not installed.

    ``ArtifactError``: it holds no such file as its manifest's target says.
    """
    if artifact.is_engine:
        return None
    module, _ = reader_of(artifact)
    if find_spec(module) is None:
        return None
    with quiet_native_logs():
        file, read, unreadable = _reader(artifact)
        try:
            return read(file)
        except unreadable as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            target = artifact.manifest.target
            raise ArtifactError(
                f"{file}: cannot be read as {target}, which its manifest says: {reason}; export it again"
            ) from error


def _reader(artifact: Artifact) -> tuple[Path, Callable[[Path], GraphFacts], tuple[type[Exception], ...]]:
    """The file of an artifact's graph, what reads it, and what that raises on a file of another kind."""
    if artifact.manifest.target == "onnx":
        from lxmert_export.onnx_file import read_onnx_facts
        from lxmert_export.onnx_types import UNREADABLE

        read = partial(read_onnx_facts, islands=fp32_islands(artifact))
        return artifact.file(ONNX_FILE), read, UNREADABLE
    if artifact.manifest.target == "tflite":
        from lxmert_export.tflite_file import UNREADABLE, read_tflite_facts

        return artifact.file(TFLITE_FILE), read_tflite_facts, UNREADABLE
    from lxmert_export.tensorflow_files import UNREADABLE, read_keras_facts, read_saved_model_facts

    if artifact.is_keras:
        return artifact.file(KERAS_FILE), read_keras_facts, UNREADABLE
    return artifact.file(SAVED_MODEL), read_saved_model_facts, UNREADABLE


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
    if fault := _precision_fault(artifact, facts):
        raise ConversionError(fault)
    return facts


def check_manifest_precision(artifact: Artifact) -> None:
    """``ArtifactError`` where the manifest says another precision than the file holds; nothing without the reader's library."""
    facts = read_graph_facts(artifact)
    if facts is not None and (fault := _precision_fault(artifact, facts)):
        raise ArtifactError(f"{fault}: its manifest was changed; export it again")


def _precision_fault(artifact: Artifact, facts: GraphFacts) -> str | None:
    precision = artifact.manifest.precision
    arithmetic = artifact.manifest.options.get("arithmetic", precision)
    if set(facts.matmuls) != {arithmetic} or set(facts.matmul_weights) != {precision}:
        return (
            f"{artifact.name}: called {precision} with {arithmetic} arithmetic, but its matmuls compute in {facts.matmuls} "
            f"over weights stored in {facts.matmul_weights}"
        )
    islands, found = fp32_islands(artifact), getattr(facts, "islands", {})
    if islands and found != {"fp32": len(islands)}:
        return f"{artifact.name}: its manifest names {len(islands)} float32 islands, but these nodes compute in {found}"
    return None


def fp32_islands(artifact: Artifact) -> list[str]:
    """The nodes that were made float32 islands one by one; none where the islands are the usual ones."""
    return list(artifact.manifest.options.get("fp32_islands", ()))


def delegation(facts: GraphFacts) -> dict[str, Any]:
    """Of a TFLite graph, for the manifest: its operators, and those that XNNPACK and the GPU delegate leave to the CPU."""
    names = ("operators", "xnnpack_share", "xnnpack_left", "gpu_left")
    return {name: getattr(facts, name) for name in names}
