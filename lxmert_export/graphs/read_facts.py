"""Reads the facts of an artifact's graph, with the library that its target needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from lxmert_export.artifact.directory import KERAS_FILE, ONNX_FILE, SAVED_MODEL, TFLITE_FILE, Artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.graphs.facts import GraphFacts
from lxmert_export.native_logs import quiet_native_logs

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
        from lxmert_export.graphs.onnx_facts import read_onnx_facts
        from lxmert_export.graphs.onnx_types import UNREADABLE

        read = partial(read_onnx_facts, islands=fp32_islands(artifact))
        return artifact.file(ONNX_FILE), read, UNREADABLE
    if artifact.manifest.target == "tflite":
        from lxmert_export.graphs.tflite_facts import UNREADABLE, read_tflite_facts

        return artifact.file(TFLITE_FILE), read_tflite_facts, UNREADABLE
    from lxmert_export.graphs.tensorflow_facts import UNREADABLE, read_keras_facts, read_saved_model_facts

    if artifact.is_keras:
        return artifact.file(KERAS_FILE), read_keras_facts, UNREADABLE
    return artifact.file(SAVED_MODEL), read_saved_model_facts, UNREADABLE


def reader_of(artifact: Artifact) -> tuple[str, str]:
    """The module that reads an artifact's graph, and its extra; ``ArtifactError``: a target that this version has not."""
    target = artifact.manifest.target
    if target not in READERS:
        raise ArtifactError(f"{artifact.path}: this version has no runner for target {target!r}")
    return READERS[target]


def fp32_islands(artifact: Artifact) -> list[str]:
    """The nodes that were made float32 islands one by one; none where the islands are the usual ones."""
    return list(artifact.manifest.options.get("fp32_islands", ()))
