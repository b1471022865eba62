"""Loads an ONNX file with the dtype of every value; ONNX's shape inference adds those that the file does not state."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from lxmert_export.errors import ArtifactError, first_line

# What the libraries raise on a file that is damaged, or not an ONNX graph.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError, DecodeError, onnx.shape_inference.InferenceError, ValueError, KeyError, TypeError, IndexError, StopIteration,
)  # fmt: skip
# Operators that only move values: rounded inputs give rounded outputs.
MOVES = frozenset("Concat Expand Flatten Gather Identity Reshape Slice Split Squeeze Transpose Unsqueeze".split())


def load_typed(path: Path) -> ir.Model:
    """Reads a file and infers the dtypes that it does not state; weights stay on disk until they are needed.

    ``ArtifactError``: the file is damaged, or not an ONNX file.
    """
    try:
        model = ir.load(path)
        inferred = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    except UNREADABLE as error:
        raise ArtifactError(f"{path}: cannot be read as an ONNX graph: {first_line(error)}") from error
    types = {info.name: ir.DataType(info.type.tensor_type.elem_type) for info in inferred.graph.value_info}
    for node in model.graph:
        for value in node.outputs:
            if value.dtype is None and value.name in types:
                value.dtype = types[value.name]
    return model


def expose(graph: ir.Graph, names: Iterable[str]) -> None:
    """Makes the named values outputs of the graph, if they are not outputs yet."""
    wanted = set(names) - {value.name for value in graph.outputs}
    graph.outputs.extend(value for node in graph for value in node.outputs if value.name in wanted)


def computes(node: ir.Node) -> bool:
    """Returns whether a node computes floating-point numbers; moving them, or computing integers, does not count."""
    return node.op_type not in MOVES and any(is_float(value) for value in node.outputs)


def is_float(value: ir.Value | None) -> bool:
    """Returns whether a value holds floating-point numbers, of any width."""
    return value is not None and value.dtype in FLOATS


FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
