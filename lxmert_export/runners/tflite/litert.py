"""Runs a TFLite file with ai-edge-litert and XNNPACK; needs no TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from lxmert_export.artifact.directory import TFLITE_FILE, Artifact
from lxmert_export.errors import ArtifactError, first_line
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

SERVED = "serving_default"


class LiteRtRunner(Runner):
    """Runs the signature ``serving_default`` of a TFLite file. ``ArtifactError``: LiteRT cannot load the file."""

    failures = (ValueError, RuntimeError, KeyError)

    def __init__(
        self,
        path: Path,
        signature: Signature,
        limits: InputLimits,
        *,
        threads: int | None = None,
        name: str = "LiteRT",
    ) -> None:
        super().__init__(name, signature, limits)
        self._called = False
        try:
            # From the path, not from bytes: the file is memory-mapped, and its weights are in memory once.
            interpreter = Interpreter(model_path=str(path), num_threads=threads or os.cpu_count())
            self._serve: Any = interpreter.get_signature_runner(SERVED)
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{path}: LiteRT cannot load it: {first_line(error)}") from error

    def compute(self, inputs: Arrays) -> Arrays:
        # The first call allocates the tensors; XNNPACK then logs a line.
        with nullcontext() if self._called else quiet_native_logs():
            outputs = self._serve(**inputs)
        self._called = True
        return {spec.name: outputs[spec.name] for spec in self.signature.outputs if spec.name in outputs}

    def release(self) -> None:
        self._serve = None


def open_tflite(artifact: Artifact, providers: Sequence[str], threads: int | None) -> Runner:
    """Opens the runner of a TFLite artifact."""
    manifest = artifact.manifest
    file = artifact.file(TFLITE_FILE)
    with quiet_native_logs():
        return LiteRtRunner(file, manifest.signature, manifest.limits, threads=threads, name=artifact.name)
