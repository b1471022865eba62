"""What the graph in an artifact's file really holds: operators, and the precisions of its matmuls and of their weights."""

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

    def for_manifest(self) -> dict[str, Any]:
        """What the manifest's options keep of these counts, for devices that have the file alone."""
        return {}


def count_precisions(names: Iterable[str]) -> dict[str, int]:
    """How often each precision occurs among dtype names."""
    return dict(Counter(PRECISION_NAMES.get(name.lower(), name.lower()) for name in names))


def read_graph_facts(artifact: Artifact) -> GraphFacts | None:
    """Reads the graph of an artifact; None where nothing reads its target's files, or the library that does is not installed.

    ``ArtifactError``: its file is not of the target that the manifest says.
    """
    reader = artifact.target.facts
    if reader is None or not reader.is_installed:
        return None
    with quiet_native_logs():
        facts: GraphFacts = reader.load()(artifact)
    return facts


@contextmanager
def read_as(artifact: Artifact, file: Path, failures: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turns what a library raises on a damaged file, or one of another kind, into one ``ArtifactError``."""
    try:
        yield
    except failures as error:
        raise ArtifactError(
            f"{file}: cannot be read as {artifact.manifest.target}, which its manifest says: {first_line(error)}; "
            "export it again"
        ) from error
