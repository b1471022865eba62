"""Checks that the two halves of a split ONNX artifact are those of its whole graph, node for node and byte for byte.

What is proven of ``model.onnx`` (its precision, its emulated rounding, its operators) then holds for the halves.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from lxmert_export.artifact.directory import HALF_FILES, ONNX_FILE, Artifact
from lxmert_export.artifact.programs.reading import mapped, refuse
from lxmert_export.errors import ArtifactError, ConfigError
from lxmert_export.files.wire_formats import Message
from lxmert_export.spec.halves import HALVES, Halves

# Numbers of the fields in onnx.proto.
GRAPH = 7
NODES, INITIALISERS, INPUTS, OUTPUTS = 1, 5, 11, 12  # of a graph
NAME_OF_VALUE, RESULTS_OF_NODE, NAME_OF_INITIALISER = 1, 2, 8
TOLD = frozenset({2, 10, 13})  # of a graph: its name, its description, the types of its values
Field = tuple[str, int, int | bytes]


@dataclass(frozen=True)
class _Parts:
    """What a file is made of: digests of its nodes and weights, the names of its inputs and outputs, and all other fields."""

    nodes: frozenset[bytes]
    weights: frozenset[bytes]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rest: tuple[Field, ...]


def check_halves(artifact: Artifact, halves: Halves) -> None:
    """``ArtifactError``: the halves of a split artifact are not those of its whole graph, or a name in a file is there twice."""
    signature = artifact.manifest.signature
    try:
        halves.check_belongs_to(signature)
    except ConfigError as error:
        raise ArtifactError(f"{artifact.path}: its manifest was changed: {error}; export it again") from error
    whole = _read(artifact, ONNX_FILE)
    found = {half: _read(artifact, HALF_FILES[half]) for half in HALVES}
    for half, parts in found.items():
        own = halves.signature(half, signature)
        takes, gives = (tuple(spec.name for spec in specs) for specs in (own.inputs, own.outputs))
        within = parts.nodes <= whole.nodes and parts.weights <= whole.weights and parts.rest == whole.rest
        if not within or (parts.inputs, parts.outputs) != (takes, gives):
            raise ArtifactError(
                f"{artifact.path}: {HALF_FILES[half]} is not that half of its {ONNX_FILE}; export it again"
            )
    if frozenset[bytes]().union(*(parts.nodes for parts in found.values())) != whole.nodes:
        raise ArtifactError(
            f"{artifact.path}: {' and '.join(HALF_FILES.values())} lack a part of {ONNX_FILE}; export it again"
        )


def _read(artifact: Artifact, name: str) -> _Parts:
    file = artifact.file(name)
    found: dict[int, list[Message]] = {NODES: [], INITIALISERS: [], INPUTS: [], OUTPUTS: []}
    rest: list[Field] = []
    with mapped(artifact, file) as content:
        for number, value in Message.root(content).fields():
            if number != GRAPH or isinstance(value, int):
                rest.append(_field("model", number, value))
                continue
            for part, one in value.fields():
                if isinstance(one, Message) and part in found:
                    found[part].append(one)
                elif part not in TOLD:
                    rest.append(_field("graph", part, one))
        # Of two values of one name, one runtime takes the first and another one the last.
        made = [result.text() for node in found[NODES] for result in node.messages(RESULTS_OF_NODE)]
        stored = [tensor.last_text(NAME_OF_INITIALISER) for tensor in found[INITIALISERS]]
        inputs, outputs = (tuple(one.last_text(NAME_OF_VALUE) for one in found[part]) for part in (INPUTS, OUTPUTS))
        nodes, weights = (frozenset(one.digest() for one in found[part]) for part in (NODES, INITIALISERS))
    counts = Counter([*inputs, *stored, *filter(None, made)])
    refuse(file, "names that are there twice", [name for name, count in counts.items() if count > 1])
    return _Parts(nodes, weights, inputs, outputs, tuple(rest))


def _field(of: str, number: int, value: Message | int) -> Field:
    return of, number, value if isinstance(value, int) else value.digest()
