"""Runs a ``.keras`` file, or counts what it computes, with Keras and the classes of ``converters.tensorflow_model``."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from converters.tensorflow_model.inputs import tensor_spec
from converters.tensorflow_model.model import MODELS  # Keras, too, finds the classes: by the names that it registers
from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from lxmert_export.errors import ArtifactError, LxmertExportError, first_line
from lxmert_export.graphs.tensorflow_flops import count_tensors
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

# What Keras raises on a file that is damaged, or does not hold one of our models.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, LxmertExportError,
)  # fmt: skip


class KerasRunner(Runner):
    """Runs a Keras model as one compiled function. ``ArtifactError``: the file does not hold one of our models."""

    failures = (tf.errors.OpError, ValueError, TypeError, KeyError)
    parallel = True  # the first call is traced under tf.function's own lock

    def __init__(self, path: Path, signature: Signature, limits: InputLimits, *, name: str = "Keras") -> None:
        super().__init__(name, signature, limits)
        try:
            model = keras.saving.load_model(path)
        except UNREADABLE as error:
            raise ArtifactError(f"{path}: Keras cannot load it: {first_line(error)}") from error
        if not isinstance(model, PreTrainedTFLxmert):
            raise ArtifactError(f"{path}: holds a {type(model).__name__}, not an LXMERT of this package")
        # One trace for batches of every size.
        self._model: Any = tf.function(
            lambda inputs: dict(model(inputs, training=False, return_dict=True, **signature.requests).items()),
            autograph=False,
            input_signature=[{spec.name: tensor_spec(spec) for spec in signature.inputs}],
        )

    def compute(self, inputs: Arrays) -> Arrays:
        found = self._model({spec.name: tf.constant(inputs[spec.name], spec.dtype) for spec in self.signature.inputs})
        outputs = {}
        for spec in self.signature.outputs:
            field, _, entry = spec.name.partition(".")
            if field in found:
                value = found[field][int(entry)] if entry else found[field]
                outputs[spec.name] = np.asarray(value).astype(spec.dtype)
        return outputs

    def release(self) -> None:
        self._model = None


def count_keras(path: Path, signature: Signature, sizes: Mapping[str, int]) -> int | None:
    """Counts what the class of this package does with the config in the file: a ``.keras`` file holds no graph.

    The class is traced for the sizes of the call; no weight is read or made. None: a shape is not known before it runs.
    ``ArtifactError``: the file does not hold one of our models.
    """
    with zipfile.ZipFile(path) as file:
        stored = json.loads(file.read("config.json"))
    kind = next((kind for kind in MODELS.values() if kind.__name__ == stored["class_name"]), None)
    if kind is None:
        raise ArtifactError(f"{path}: holds a {stored['class_name']}, not an LXMERT of this package")
    with tf.Graph().as_default():
        with keras.StatelessScope():
            model = kind.from_config(stored["config"])
        weights: list[tuple[Any, Any]] = [
            (variable, tf.compat.v1.placeholder(variable.dtype, variable.shape)) for variable in model.variables
        ]
        inputs = {spec.name: tf.compat.v1.placeholder(spec.dtype, spec.shape(sizes)) for spec in signature.inputs}
        with keras.StatelessScope(state_mapping=weights):
            outputs = model(inputs, training=False, return_dict=True, **signature.requests)
        return count_tensors(tf.nest.flatten(dict(outputs.items())))
