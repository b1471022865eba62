"""An ONNX file with the type of every value known: files need not state them all, so ONNX's own inference does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from lxmert_export.errors import ArtifactError, first_line

# What the libraries raise as they read a file that is damaged, or no such graph.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError, DecodeError, onnx.shape_inference.InferenceError, ValueError, KeyError, TypeError, IndexError, StopIteration,
)  # fmt: skip
# Operators that only move values about: what goes in rounded comes out rounded.
MOVES = frozenset("Concat Expand Flatten Gather Identity Reshape Slice Split Squeeze Transpose Unsqueeze".split())


def load_typed(path: Path) -> ir.Model:
    """Reads a file, its weights left on disk until they are asked for, and fills in the types that it does not state.

    ``ArtifactError``: it is damaged, or no ONNX file.
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
    """Makes outputs of values that are none yet."""
    wanted = set(names) - {value.name for value in graph.outputs}
    graph.outputs.extend(value for node in graph for value in node.outputs if value.name in wanted)


def computes(node: ir.Node) -> bool:
    """Whether a node computes floating-point numbers, rather than moving them about or counting."""
    return node.op_type not in MOVES and any(is_float(value) for value in node.outputs)


def is_float(value: ir.Value | None) -> bool:
    """Whether a value holds floating-point numbers, of any width."""
    return value is not None and value.dtype in FLOATS


FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
