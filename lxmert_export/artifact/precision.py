"""Whether an artifact's file is of the precision that its manifest says."""

from __future__ import annotations

from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.facts import GraphFacts, read_graph_facts
from lxmert_export.errors import ArtifactError, ConversionError


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
    islands, found = artifact.fp32_islands, getattr(facts, "islands", {})
    if islands and found != {"fp32": len(islands)}:
        return f"{artifact.name}: its manifest names {len(islands)} float32 islands, but these nodes compute in {found}"
    return None
