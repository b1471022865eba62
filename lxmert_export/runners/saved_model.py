"""Runs a SavedModel with TensorFlow, and nothing else."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from lxmert_export.errors import ArtifactError
from lxmert_export.runners.runner import Arrays, InputLimits, Runner
from lxmert_export.signature import Signature

SERVED = "serving_default"


class SavedModelRunner(Runner):
    """The signature ``serving_default`` of a SavedModel. ``ArtifactError``: one that TensorFlow cannot load, or without it."""

    def __init__(self, path: Path, signature: Signature, limits: InputLimits, *, name: str = "TensorFlow") -> None:
        super().__init__(name, signature, limits)
        try:
            # The functions live only as long as what was loaded is held.
            self._loaded = tf.saved_model.load(str(path))
            self._serve = self._loaded.signatures[SERVED]
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            raise ArtifactError(f"{path}: TensorFlow cannot serve it: {str(error).splitlines()[0]}") from error

    def compute(self, inputs: Arrays) -> Arrays:
        outputs = self._serve(**{name: tf.constant(array) for name, array in inputs.items()})
        return {spec.name: outputs[spec.name].numpy() for spec in self.signature.outputs if spec.name in outputs}

    def close(self) -> None:
        del self._loaded, self._serve
