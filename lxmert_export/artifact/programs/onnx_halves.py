"""Checks that the two halves of a split ONNX artifact are those of its whole graph, node for node and byte for byte.

What is proven of ``model.onnx`` (its precision, its emulated rounding, its operators) then holds for the halves.
"""

from __future__ import annotations

from dataclasses import dataclass

from lxmert_export.artifact.directory import ONNX_FILE, QUESTION_FILE, VISION_FILE, Artifact
from lxmert_export.artifact.programs.reading import mapped
from lxmert_export.errors import ArtifactError
from lxmert_export.files.wire_formats import Message
from lxmert_export.spec.halves import Halves

# Numbers of the fields in onnx.proto.
GRAPH, NAME_OF_VALUE = 7, 1
NODES, INITIALISERS, INPUTS, OUTPUTS = 1, 5, 11, 12
TOLD = frozenset({2, 10, 13})  # of a graph: its name, its description, the types of its values


@dataclass(frozen=True)
class _Parts:
    """What a file is made of: the bytes of its nodes and weights, the names of its inputs and outputs, and all the rest."""

    nodes: frozenset[bytes]
    weights: frozenset[bytes]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rest: tuple[tuple[int, int | bytes], ...]


def check_halves(artifact: Artifact, halves: Halves) -> None:
    """``ArtifactError``: the halves of a split artifact are not those of its whole graph."""
    whole, vision, question = (_read(artifact, name) for name in (ONNX_FILE, VISION_FILE, QUESTION_FILE))
    signature = artifact.manifest.signature
    for name, half, own in (
        (VISION_FILE, vision, halves.signature("vision", signature)),
        (QUESTION_FILE, question, halves.signature("question", signature)),
    ):
        takes, gives = (tuple(spec.name for spec in specs) for specs in (own.inputs, own.outputs))
        within = half.nodes <= whole.nodes and half.weights <= whole.weights and half.rest == whole.rest
        if not within or (half.inputs, half.outputs) != (takes, gives):
            raise ArtifactError(f"{artifact.path}: {name} is not that half of its {ONNX_FILE}; export it again")
    if vision.nodes | question.nodes != whole.nodes:
        raise ArtifactError(
            f"{artifact.path}: {VISION_FILE} and {QUESTION_FILE} lack a part of {ONNX_FILE}; export it again"
        )


def _read(artifact: Artifact, name: str) -> _Parts:
    file = artifact.file(name)
    found: dict[int, list[Message]] = {NODES: [], INITIALISERS: [], INPUTS: [], OUTPUTS: []}
    rest: list[tuple[int, int | bytes]] = []
    with mapped(artifact, file) as content:
        for number, value in Message.root(content).fields():
            if number != GRAPH or isinstance(value, int):
                rest.append((number, value if isinstance(value, int) else value.content()))
                continue
            for part, one in value.fields():
                if isinstance(one, Message) and part in found:
                    found[part].append(one)
                elif part not in TOLD:
                    rest.append((part, one if isinstance(one, int) else one.content()))
        nodes, weights = (frozenset(one.content() for one in found[part]) for part in (NODES, INITIALISERS))
        inputs, outputs = (tuple(one.last_text(NAME_OF_VALUE) for one in found[part]) for part in (INPUTS, OUTPUTS))
    return _Parts(nodes, weights, inputs, outputs, tuple(rest))
