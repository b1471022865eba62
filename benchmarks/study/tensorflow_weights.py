"""Puts other weights into a written SavedModel: assigns its variables."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from torch import nn

from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from converters.to_tensorflow import DEFAULT, convert_to_saved_model, keras_twin
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.parity.recording import Run
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import Precision, Signature, Task
from lxmert_export.spec.weight_names import BACKBONE


class SavedModelFile:
    """One architecture's SavedModel in a precision, loaded from the disk, to be run with other weights."""

    def __init__(self, module: nn.Module, config: LxmertConfig, signature: Signature, precision: Precision) -> None:
        with quiet_native_logs():
            twin = keras_twin(module, config, cast(Task, signature.task), precision)
        self.loaded = written_and_loaded(twin, signature)
        prefix = BACKBONE if signature.task == "model" else ""
        places = {variable.path: place for place, variable in enumerate(twin.variables)}
        self.variables = [
            (weight.ours.removeprefix(prefix), weight.kind == "kernel", self.loaded.weights[places[variable.path]])
            for weight, variable in twin.named_variables()
        ]

    def with_weights(self, module: nn.Module) -> Run:
        """Runs this SavedModel with a module's weights."""
        state = module.state_dict()
        for name, transposed, variable in self.variables:
            numbers = state[name].detach().numpy()
            with np.errstate(over="ignore"):  # an overflow may be the planted fault
                variable.assign((numbers.T if transposed else numbers).astype(variable.dtype.as_numpy_dtype))
        return served(self.loaded)


def written_and_loaded(twin: PreTrainedTFLxmert, signature: Signature) -> Any:
    """Writes a Keras model's SavedModel, and loads it from the disk."""
    with quiet_native_logs(), tempfile.TemporaryDirectory(prefix="lxmert-export-study-") as place:
        return tf.saved_model.load(str(convert_to_saved_model(twin, signature, Path(place))))


def served(loaded: Any) -> Run:
    """Returns a function that runs a loaded SavedModel, and keeps that alive."""

    def run(inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        outputs = loaded.signatures[DEFAULT](**{name: tf.constant(array) for name, array in inputs.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return run
