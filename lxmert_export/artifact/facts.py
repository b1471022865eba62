"""Reads from an artifact's model file: its operators, and the precisions of its matmuls and of their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError, first_line
from lxmert_export.native_logs import quiet_native_logs

# The names of dtypes in files and libraries, and our names of the precisions.
PRECISION_NAMES = {
    "float32": "fp32", "float": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64", "double": "fp64",
}  # fmt: skip


@dataclass(frozen=True)
class GraphFacts:
    """Counts of a graph's operators by name, and of its matmuls and their stored weights by precision."""

    operators: dict[str, int]
    matmuls: dict[str, int]
    matmul_weights: dict[str, int]

    def for_manifest(self) -> dict[str, Any]:
        """Facts to keep in the manifest's options, for devices that cannot read the graph."""
        return {}


def count_precisions(names: Iterable[str]) -> dict[str, int]:
    """Counts how often each precision occurs among dtype names."""
    return dict(Counter(PRECISION_NAMES.get(name.lower(), name.lower()) for name in names))


def read_graph_facts(artifact: Artifact) -> GraphFacts | None:
    """Reads the graph of an artifact. Returns None if its target's files cannot be read, or the library is not installed.

    ``ArtifactError``: the file is damaged, or not of the target that the manifest says.
    """
    reader = artifact.target.facts
    if reader is None or not reader.is_installed:
        return None
    with quiet_native_logs():
        facts: GraphFacts = reader.load()(artifact)
    return facts


@contextmanager
def read_as(artifact: Artifact, file: Path, failures: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turns the errors that a library raises for a damaged or wrong file into an ``ArtifactError``."""
    try:
        yield
    except failures as error:
        raise ArtifactError(
            f"{file}: its manifest says {artifact.manifest.target}, but it cannot be read as such: {first_line(error)}; "
            "export it again"
        ) from error
