"""The operators of an ONNX file, and the other files that it names."""

from __future__ import annotations

from collections.abc import Iterator

from lxmert_export.artifact.directory import ONNX_FILE, QUESTION_FILE, VISION_FILE, Artifact
from lxmert_export.artifact.programs.onnx_halves import check_halves
from lxmert_export.artifact.programs.reading import mapped, refuse
from lxmert_export.files.wire_formats import Message

# A standard operator computes its outputs from its inputs and nothing else. Operators of other domains are code that a
# runtime may or may not have, and what they do is not specified.
DOMAINS = frozenset(("", "ai.onnx"))
# onnxruntime's own operators that `--optimize-for cuda` writes; what they do is in lxmert_export/graphs/onnx_decomposition.py.
FOR_CUDA = frozenset(f"com.microsoft::{name}" for name in ("MultiHeadAttention", "SkipLayerNormalization", "BiasGelu"))

# Numbers of the fields in onnx.proto.
GRAPH, FUNCTIONS, TRAINING = 7, 25, 20
NODES, INITIALISERS, SPARSE_INITIALISERS, FUNCTION_NODES, FUNCTION_ATTRIBUTES = 1, 5, 15, 7, 11
OPERATOR, ATTRIBUTES, DOMAIN = 4, 5, 7
ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
EXTERNAL_DATA = 13


def check_program(artifact: Artifact) -> set[str]:
    """Returns the names of its operators.

    ``ArtifactError``: a graph holds operators of other domains, or names a file that the manifest does not list; or the halves of
    a split artifact are not those of its whole graph.
    """
    found = _check_file(artifact, ONNX_FILE)
    if artifact.halves is not None:
        found |= _check_file(artifact, VISION_FILE) | _check_file(artifact, QUESTION_FILE)
        check_halves(artifact, artifact.halves)
    return found


def _check_file(artifact: Artifact, name: str) -> set[str]:
    file = artifact.file(name)
    operators: set[str] = set()
    files: set[str] = set()
    with mapped(artifact, file) as content:
        for kind, name in _named(Message.root(content)):
            (files if kind == "file" else operators).add(name)
    allowed = FOR_CUDA if artifact.is_for_cuda else frozenset()
    foreign = {name for name in operators - allowed if name.partition("::")[0] not in DOMAINS}
    refuse(file, "operators that it may not have", foreign)
    if artifact.manifest.files:  # it is not being written
        refuse(file, "weights in files that its manifest does not list", files - set(artifact.manifest.files))
    return {name.partition("::")[2] for name in operators}


def _named(model: Message) -> Iterator[tuple[str, str]]:
    for number, value in model.fields():
        if isinstance(value, int):
            continue
        if number == GRAPH:
            yield from _of_graph(value)
        elif number == FUNCTIONS:
            for node in value.messages(FUNCTION_NODES):
                yield from _of_node(node)
            for attribute in value.messages(FUNCTION_ATTRIBUTES):
                yield from _of_attribute(attribute)
        elif number == TRAINING:
            yield "operator", "training::graph"


def _of_graph(graph: Message) -> Iterator[tuple[str, str]]:
    for number, value in graph.fields():
        if isinstance(value, int):
            continue
        if number == NODES:
            yield from _of_node(value)
        elif number == INITIALISERS:
            yield from _of_tensor(value)
        elif number == SPARSE_INITIALISERS:
            yield from _of_sparse(value)


def _of_node(node: Message) -> Iterator[tuple[str, str]]:
    operator = domain = ""
    for number, value in node.fields():
        if isinstance(value, int):
            continue
        if number == OPERATOR:
            operator = value.text()
        elif number == DOMAIN:
            domain = value.text()
        elif number == ATTRIBUTES:
            yield from _of_attribute(value)
    yield "operator", f"{domain}::{operator}"


def _of_attribute(attribute: Message) -> Iterator[tuple[str, str]]:
    for number, value in attribute.fields():
        if isinstance(value, int):
            continue
        if number in ATTRIBUTE_GRAPHS:
            yield from _of_graph(value)
        elif number in ATTRIBUTE_TENSORS:
            yield from _of_tensor(value)
        elif number in ATTRIBUTE_SPARSE:
            yield from _of_sparse(value)


def _of_sparse(sparse: Message) -> Iterator[tuple[str, str]]:
    for tensor in (*sparse.messages(1), *sparse.messages(2)):  # values, indices
        yield from _of_tensor(tensor)


def _of_tensor(tensor: Message) -> Iterator[tuple[str, str]]:
    for entry in tensor.messages(EXTERNAL_DATA):
        if entry.last_text(1) == "location":
            yield "file", entry.last_text(2)
