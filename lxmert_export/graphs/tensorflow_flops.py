"""Counts the operations of a SavedModel, from the shapes that TensorFlow gives its operators; no weight is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

from lxmert_export.spec.signature import Signature

SERVED = "serving_default"
Functions = Mapping[str, Any]  # the functions of a file, by name
CALLS = ("StatefulPartitionedCall", "PartitionedCall")


def count_saved_model(path: Path, signature: Signature, sizes: Mapping[str, int]) -> int | None:
    """Returns the operations of a call of ``serving_default``; None if a shape is not known before it runs."""
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    (meta,) = saved.meta_graphs
    if SERVED not in meta.signature_def:
        raise ValueError(f"it has no signature {SERVED}")
    served = meta.signature_def[SERVED]
    functions = {function.signature.name: function for function in meta.graph_def.library.function}
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(meta.graph_def, name="")
        given = {
            served.inputs[spec.name].name: tf.compat.v1.placeholder(spec.dtype, spec.shape(sizes))
            for spec in signature.inputs
        }
        outputs = [graph.get_tensor_by_name(info.name) for info in served.outputs.values()]
        return sum_or_none(
            _count_called(operation, given, functions) for operation in _read_by(outputs) if operation.type in CALLS
        )


def count_tensors(outputs: Sequence[Any], functions: Functions = MappingProxyType({})) -> int | None:
    """Returns the operations that tensors of a graph are computed by; None if a shape is not known before it runs."""
    return sum_or_none(_count(operation, functions) for operation in _read_by(outputs))


def _count(operation: Any, functions: Functions) -> int | None:
    if operation.type in CALLS:
        return _count_called(operation, {}, functions)
    return PRODUCTS[operation.type](operation) if operation.type in PRODUCTS else 0


def _count_called(call: Any, given: Mapping[str, Any], functions: Functions) -> int | None:
    """Counts a function for the shapes of what it is called with; ``given`` takes the place of inputs, by name."""
    function = functions[call.get_attr("f").name]
    with call.graph.as_default():
        definition, names = function_def_to_graph_def(function)
    with tf.Graph().as_default():
        places = [argument.name for argument in function.signature.input_arg]
        called_with = [_stand_in(given.get(tensor.name, tensor)) for tensor in call.inputs]
        returned = [names[place] for place in function.ret.values()]
        found = tf.graph_util.import_graph_def(
            definition, input_map=dict(zip(places, called_with, strict=True)), return_elements=returned, name=""
        )
        return count_tensors(found, functions)


def _stand_in(tensor: Any) -> Any:
    """A tensor of the same type and shape; a weight's handle keeps the shape of the weight."""
    if tensor.dtype != tf.resource:
        return tf.compat.v1.placeholder(tensor.dtype, tensor.shape)
    handle = tensor.op
    return tf.raw_ops.VarHandleOp(dtype=handle.get_attr("dtype"), shape=handle.get_attr("shape"))


def _read_by(outputs: Sequence[Any]) -> Iterator[Any]:
    """The operations that outputs depend on; TensorFlow runs no other."""
    waiting, seen = [tensor.op for tensor in outputs], set()
    while waiting:
        operation = waiting.pop()
        if operation.name not in seen:
            seen.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs]
            yield operation


def sum_or_none(counts: Iterable[int | None]) -> int | None:
    """Returns the sum; None if one of them is None."""
    listed = list(counts)
    return None if None in listed else sum(filter(None, listed))


def _matmul(turned: str) -> Callable[[Any], int | None]:
    def count(operation: Any) -> int | None:
        left, result = operation.inputs[0].shape, operation.outputs[0].shape
        if not (left.is_fully_defined() and result.is_fully_defined()):
            return None
        return int(2 * math.prod(result) * left[-2 if operation.get_attr(turned) else -1])

    return count


PRODUCTS: Mapping[str, Callable[[Any], int | None]] = {
    "MatMul": _matmul("transpose_a"),
    "BatchMatMulV2": _matmul("adj_x"),
    "BatchMatMulV3": _matmul("adj_x"),
}
