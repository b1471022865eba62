"""Counts the operations of a TFLite file, from the shapes that LiteRT gives its tensors once it knows those of the inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ai_edge_litert.interpreter import Interpreter, OpResolverType

from lxmert_export.artifact.directory import TFLITE_FILE, Artifact
from lxmert_export.artifact.facts import read_as
from lxmert_export.graphs.tflite_facts import UNREADABLE

SERVED = "serving_default"
PRODUCTS = ("FULLY_CONNECTED", "BATCH_MATMUL")
# What a file of other operators or another signature raises besides.
ANOTHER_PROGRAM = (*UNREADABLE, KeyError, IndexError)


def count_flops(artifact: Artifact, sizes: Mapping[str, int]) -> int | None:
    """Returns the operations of a call, those in integers among them; None if a shape is not known before it runs.

    ``ArtifactError``: the file cannot be read.
    """
    file, signature = artifact.file(TFLITE_FILE), artifact.manifest.signature
    with read_as(artifact, file, ANOTHER_PROGRAM):
        # Without XNNPACK, which would copy every weight. Nothing is run.
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter: Any = Interpreter(model_path=str(file), experimental_op_resolver_type=plain)
        places = interpreter._get_full_signature_list()[SERVED]["inputs"]
        for spec in signature.inputs:
            interpreter.resize_tensor_input(places[spec.name], spec.shape(sizes))
        interpreter.allocate_tensors()
        shapes = {tensor["index"]: tensor["shape"].tolist() for tensor in interpreter.get_tensor_details()}
        operators = interpreter._get_ops_details()
        if any(_is_computed_later(operator, shapes) for operator in operators):
            return None
        return sum(_count(operator, shapes) for operator in operators if operator["op_name"] in PRODUCTS)


def _is_computed_later(operator: Mapping[str, Any], shapes: Mapping[int, Sequence[int]]) -> bool:
    """Whether a tensor is reshaped to sizes that are computed at run time: until then it keeps those of another call."""
    read, made = (math.prod(shapes[int(operator[side][0])]) for side in ("inputs", "outputs"))
    return bool(operator["op_name"] == "RESHAPE" and read != made)


def _count(operator: Mapping[str, Any], shapes: Mapping[int, Sequence[int]]) -> int:
    """[…, m, n] of […, m, k], or of [k, m] if that is turned, and of a second factor, whose k is the same."""
    left, result = shapes[int(operator["inputs"][0])], shapes[int(operator["outputs"][0])]
    turned = operator["op_name"] == "BATCH_MATMUL" and left[-2] != result[-2]
    return 2 * math.prod(result) * left[-2 if turned else -1]
