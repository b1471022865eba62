"""Checks that an artifact's model file has the precision that its manifest says."""

from __future__ import annotations

from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.facts import GraphFacts, read_graph_facts
from lxmert_export.errors import ArtifactError, ConversionError


def check_precision(artifact: Artifact) -> GraphFacts:
    """Checks that every matmul of a new artifact computes in the manifest's arithmetic, with weights of its precision.

    The float32 islands that the manifest lists are excepted; each of them must exist and compute in float32.
    ``ConversionError``: the graph is otherwise.
    """
    facts = read_graph_facts(artifact)
    assert facts is not None, "the library that reads the file is also needed for the conversion"
    if fault := _precision_fault(artifact, facts):
        raise ConversionError(fault)
    return facts


def check_manifest_precision(artifact: Artifact) -> None:
    """``ArtifactError``: the file has another precision than the manifest says. Not checked without the file's library."""
    facts = read_graph_facts(artifact)
    if facts is not None and (fault := _precision_fault(artifact, facts)):
        raise ArtifactError(f"{fault}; the manifest was changed; export it again")


def _precision_fault(artifact: Artifact, facts: GraphFacts) -> str | None:
    if artifact.is_static_int8:
        return _int8_fault(artifact, facts)
    precision = artifact.manifest.precision
    arithmetic = artifact.manifest.options.get("arithmetic", precision)
    needed = artifact.manifest.signature.lxmert_task is not None  # a user's own module may hold no matmul
    held = ((facts.matmuls, arithmetic), (facts.matmul_weights, precision))
    if any(set(found) != {said} and (found or needed) for found, said in held):
        return (
            f"{artifact.name}: its manifest says {precision} weights and {arithmetic} arithmetic, but its matmuls compute in "
            f"{facts.matmuls} with weights stored in {facts.matmul_weights}"
        )
    islands, found = artifact.fp32_islands, getattr(facts, "islands", {})
    if islands and found != {"fp32": len(islands)}:
        return f"{artifact.name}: its manifest names {len(islands)} float32 islands, but these nodes compute in {found}"
    return None


def _int8_fault(artifact: Artifact, facts: GraphFacts) -> str | None:
    """Every matmul with stored weights multiplies integers, but for those that the manifest keeps in float32."""
    kept, whole = len(artifact.manifest.options.get("int8_keep", ())), facts.matmul_weights.get("int8", 0)
    weights = {"int8": whole} | ({"fp32": kept} if kept else {})
    wide = artifact.manifest.options.get("float32_matmuls")
    counted = wide is None or facts.matmuls.get("fp32", 0) == len(wide)
    if whole and facts.matmul_weights == weights and facts.matmuls.get("int8", 0) == whole and counted:
        return None
    return (
        f"{artifact.name}: its manifest says int8 but for {kept} matmuls, and they compute in {facts.matmuls} with weights "
        f"stored in {facts.matmul_weights}"
    )
