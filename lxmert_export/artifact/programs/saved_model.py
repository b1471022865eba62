"""The operators of a SavedModel, in its functions and its main graph, and the kinds of its objects."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lxmert_export.artifact.directory import SAVED_MODEL, Artifact
from lxmert_export.artifact.programs.reading import mapped, refuse
from lxmert_export.files.wire_formats import Message

# What the functions that can be called may hold: none of these touches anything but its inputs and the variables.
COMPUTING = frozenset(
    (
        "AddV2", "BatchMatMulV2", "BiasAdd", "Cast", "ConcatV2", "Const", "Erfc", "ExpandDims", "Fill", "GatherV2",
        "Identity", "MatMul", "Mean", "Mul", "Neg", "NoOp", "Pack", "Range", "ReadVariableOp", "RealDiv",
        "Reshape", "Rsqrt", "Shape", "Softmax", "Square", "StatefulPartitionedCall", "StridedSlice", "Sub",
        "Tanh", "Tile", "Transpose",
    )
)  # fmt: skip
# What the two functions that save and restore variables hold besides. TensorFlow calls neither when it loads, and
# nothing else may call them.
SAVING = frozenset(
    (
        "AssignVariableOp", "DisableCopyOnRead", "MergeV2Checkpoints", "RestoreV2", "SaveV2", "Select",
        "ShardedFilename", "StaticRegexFullMatch", "StringJoin",
    )
)  # fmt: skip
# What the main graph holds besides. TensorFlow 2 does not run it.
MAIN = frozenset(
    (
        "Placeholder", "VarHandleOp",
    )
)  # fmt: skip

# Numbers of the fields in TensorFlow's protocol buffers.
META_GRAPHS, GRAPH, ASSETS, OBJECTS = 2, 2, 6, 7
NODES, LIBRARY, FUNCTIONS = 1, 2, 1
SIGNATURE, NAME, FUNCTION_NODES = 1, 1, 3
OPERATOR, ATTRIBUTES = 2, 5
VALUE = 2
CALLED = {10: (1,), 1: (9, 1)}  # in the value of an attribute: a function's name, and those of a list of functions
OBJECT_NODES, CONCRETE_FUNCTIONS = 1, 2
ASSET, RESOURCE = 5, 10  # kinds of objects: a file that is read, and a table with an initialiser


@dataclass
class _Nodes:
    operators: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)


def check_program(artifact: Artifact) -> set[str]:
    """Returns the names of the operators that its functions compute with.

    ``ArtifactError``: a function, the main graph or the objects hold what no export does.
    """
    file = artifact.file(SAVED_MODEL) / "saved_model.pb"
    computed: set[str] = set()
    with mapped(artifact, file) as content:
        for graph in Message.root(content).messages(META_GRAPHS):
            computed |= _check_graph(graph, file)
    return computed


def _check_graph(graph: Message, file: Path) -> set[str]:
    functions = {_name_of(f): _nodes_of(f.messages(FUNCTION_NODES)) for f in graph.messages(GRAPH, LIBRARY, FUNCTIONS)}
    main = _nodes_of(graph.messages(GRAPH, NODES))
    called = _reached({name.text() for name in graph.messages(OBJECTS, CONCRETE_FUNCTIONS, 1)}, functions)
    computed = _operators(functions, called)
    saved = _operators(functions, functions.keys() - called)
    odd = (computed - COMPUTING) | (saved - COMPUTING - SAVING) | (main.operators - COMPUTING - MAIN)
    refuse(file, "operators that it may not have", odd)
    refuse(file, "objects that it may not have", _odd_objects(graph))
    return computed


def _operators(functions: dict[str, _Nodes], names: Collection[str]) -> set[str]:
    return {operator for name in names if name in functions for operator in functions[name].operators}


def _nodes_of(nodes: Iterator[Message]) -> _Nodes:
    found = _Nodes()
    for node in nodes:
        for number, value in node.fields():
            if isinstance(value, int):
                continue
            if number == OPERATOR:
                found.operators.add(value.text())
            elif number == ATTRIBUTES:
                found.called |= _called(value)
    return found


def _called(attribute: Message) -> set[str]:
    """The functions that a node's attribute names."""
    return {
        name.text()
        for value in attribute.messages(VALUE)
        for number, inner in value.fields()
        if isinstance(inner, Message) and number in CALLED
        for name in inner.messages(*CALLED[number])
    }


def _name_of(function: Message) -> str:
    """The name of a function. ``ValueError``: it has none, so nothing could call it."""
    names = [name.text() for name in function.messages(SIGNATURE, NAME)]
    if not names:
        raise ValueError("holds a function without a name")
    return names[-1]


def _reached(roots: set[str], functions: dict[str, _Nodes]) -> set[str]:
    """The functions that calling the roots may run. An operator whose name is a function's calls that function."""
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            if name in functions:
                waiting += functions[name].called | (functions[name].operators & functions.keys())
    return reached


def _odd_objects(graph: Message) -> set[str]:
    odd = {"an asset" for _ in graph.messages(ASSETS)}
    for node in graph.messages(OBJECTS, OBJECT_NODES):
        kinds = {number for number, _ in node.fields()}
        odd |= {
            told for kind, told in ((ASSET, "an asset"), (RESOURCE, "a resource with an initialiser")) if kind in kinds
        }
    return odd
