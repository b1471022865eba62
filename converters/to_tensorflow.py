"""Converts PyTorch LXMERT to a Keras model, and a Keras model to a SavedModel or a ``.keras`` file.

A SavedModel is served by TensorFlow alone, without this package.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from torch import nn

from converters.tensorflow_model.inputs import tensor_spec
from converters.tensorflow_model.layers import as_dtype
from converters.tensorflow_model.model import MODELS
from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from converters.undated_files import take_out_dates, take_out_id
from lxmert_export.artifact.directory import KERAS_FILE, SAVED_MODEL
from lxmert_export.checkpoint.mapped_memory import page_out
from lxmert_export.files.appearing_together import check_space
from lxmert_export.files.glob_free import glob_free
from lxmert_export.model.signature_module import named_outputs
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Signature, Task
from lxmert_export.spec.weight_names import BACKBONE

POLICIES = {"fp32": "float32", "fp16": "float16"}
# The signatures of a SavedModel: with 32-bit ids, with 64-bit ids as most tokenizers return them, and with the three
# required inputs alone.
DEFAULT, WIDE, MINIMAL = SIGNATURES = ("serving_default", "serving_int64", "serving_minimal")
# Reasons why a write fails: disk full, quota full, file too large, read-only disk, no permission, broken disk.
WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
HDF5_OF_A_WEIGHT = 4096  # bytes of names and groups that HDF5 adds, at most


def keras_twin(module: nn.Module, config: LxmertConfig, task: Task, precision: str) -> PreTrainedTFLxmert:
    """Returns the frozen Keras copy of a PyTorch model in a precision. ``ConversionError``: a weight overflows it."""
    # Keras would number the names of all models that a process makes.
    model = MODELS[task](config, dtype=POLICIES[precision], name=f"lxmert_{task.replace('-', '_')}")
    model.trainable = False
    prefix = BACKBONE if task == "model" else ""
    model.assign_weights({prefix + name: tensor for name, tensor in module.state_dict().items()}, after=page_out)
    return model


def convert_to_saved_model(
    model: PreTrainedTFLxmert, signature: Signature, directory: Path, served: Sequence[str] = SIGNATURES
) -> Path:
    """Writes ``saved_model/`` with the signatures named in ``served``; returns its path.

    ``OSError``: it cannot be written.
    """
    server = tf.Module()
    server.weights = [variable.value for variable in model.variables]
    serve = serving_function(model, signature)
    inputs = {spec.name: tensor_spec(spec) for spec in signature.inputs}
    wide = {spec.name: tensor_spec(spec, wide=True) for spec in signature.inputs}
    needed = {spec.name: inputs[spec.name] for spec in signature.inputs if not spec.optional}
    functions = {
        DEFAULT: (serve, inputs),
        WIDE: (tf.function(lambda **inputs: serve(**_narrowed(inputs))), wide),
        MINIMAL: (tf.function(lambda **inputs: serve(**_filled(inputs, signature))), needed),
    }
    signatures = {name: functions[name][0].get_concrete_function(**functions[name][1]) for name in served}
    path = directory / SAVED_MODEL
    try:
        with glob_free(directory) as plain:
            tf.saved_model.save(server, str(plain / SAVED_MODEL), signatures=signatures)
            take_out_id(plain / SAVED_MODEL)
    except tf.errors.OpError as error:
        raise _as_os_error(error, path) from error
    return path


def _as_os_error(error: tf.errors.OpError, path: Path) -> OSError:
    """Recovers the system's error of a failed write: TensorFlow may report a full disk as out of range or data loss."""
    message = str(error.message or type(error).__name__).splitlines()[0]
    named = (code for code in WRITE_ERRORS if os.strerror(code) in message)
    code = next(named, errno.ENOSPC if isinstance(error, tf.errors.ResourceExhaustedError) else None)
    return OSError(errno.EIO, message, str(path)) if code is None else OSError(code, os.strerror(code), str(path))


def convert_to_keras(model: PreTrainedTFLxmert, directory: Path) -> Path:
    """Writes ``model.keras``; returns its path. ``keras.saving.load_model`` reads it if this package is installed.

    ``OSError``: it cannot be written.
    """
    path = directory / KERAS_FILE
    # Short of memory, Keras writes the weights to a file of their own first. If the disk is full by then, HDF5 crashes.
    weights = sum(
        math.prod(variable.shape) * tf.as_dtype(variable.dtype).size + HDF5_OF_A_WEIGHT for variable in model.weights
    )
    check_space(directory, 2 * weights)
    model.save(path)
    take_out_dates(path)
    return path


def serving_function(model: PreTrainedTFLxmert, signature: Signature) -> Any:
    """Returns the function that is saved: all inputs by name → the signature's outputs by name, in its dtypes."""
    names = tuple(spec.name for spec in signature.outputs)

    def serve(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = named_outputs(model(inputs, training=False, return_dict=True, **signature.requests), names)
        return {spec.name: as_dtype(outputs[spec.name], spec.dtype) for spec in signature.outputs}

    return tf.function(serve, autograph=False)


def _narrowed(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {name: as_dtype(value, tf.int32) if value.dtype == tf.int64 else value for name, value in inputs.items()}


def _filled(inputs: Mapping[str, tf.Tensor], signature: Signature) -> dict[str, tf.Tensor]:
    """Adds the inputs that were left out: masks of ones, token types of zeros."""
    text, objects = tf.shape(inputs["input_ids"]), tf.shape(inputs["visual_feats"])[:-1]
    filled = dict(inputs)
    for spec in signature.inputs:
        if spec.name not in inputs:
            shape = objects if spec.name.startswith("visual") else text
            filled[spec.name] = (tf.ones if spec.name.endswith("attention_mask") else tf.zeros)(shape, spec.dtype)
    return filled
