"""Runs a SavedModel with TensorFlow alone."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import tensorflow as tf

from lxmert_export.errors import ArtifactError, first_line
from lxmert_export.files.glob_free import glob_free
from lxmert_export.runners.runner import Runner
from lxmert_export.runners.turns import Turns
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

SERVED = "serving_default"


class SavedModelRunner(Runner):
    """Runs one signature of a SavedModel; the signature gets the inputs that it takes, in its own dtypes.

    ``ArtifactError``: TensorFlow cannot load the SavedModel, or it has no such signature.
    """

    failures = (tf.errors.OpError, ValueError, TypeError, KeyError)
    parallel = True

    def __init__(self, path: Path, signature: Signature, limits: InputLimits, *, name: str = "TensorFlow") -> None:
        super().__init__(name, signature, limits)
        self._others: list[Runner] = []  # under other signatures
        try:
            # The signatures work only as long as the loaded object exists.
            with glob_free(path) as plain:
                self._loaded: Any = tf.saved_model.load(str(plain))
            self._serve: Any = self._loaded.signatures[SERVED]
        except (OSError, KeyError, IndexError, ValueError, TypeError, tf.errors.OpError) as error:
            raise ArtifactError(f"{path}: TensorFlow cannot serve it: {first_line(error)}") from error

    def under(self, signature: str) -> Runner:
        other = copy(self)
        other._turns = Turns(parallel=self.parallel)  # closing the other does not close this one
        self._others.append(other)
        other.name = f"{self.name} {signature}"
        try:
            other._serve = self._loaded.signatures[signature]
        except KeyError as error:
            raise ArtifactError(
                f"{self.name}: the SavedModel has no signature {signature!r}; export it again"
            ) from error
        return other

    def compute(self, inputs: Arrays) -> Arrays:
        _, taken = self._serve.structured_input_signature
        outputs = self._serve(**{name: tf.constant(inputs[name], spec.dtype) for name, spec in taken.items()})
        return {spec.name: outputs[spec.name].numpy() for spec in self.signature.outputs if spec.name in outputs}

    def release(self) -> None:
        for other in self._others:
            other.close()
        self._loaded = self._serve = None
