"""Opens a TensorFlow artifact: a SavedModel under one of its signatures, or a ``.keras`` file."""

from __future__ import annotations

from collections.abc import Sequence

from lxmert_export.artifact.directory import KERAS_FILE, SAVED_MODEL, Artifact
from lxmert_export.extras import check_keras_backend
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.runners.runner import Runner


def open_tensorflow(artifact: Artifact, providers: Sequence[str], threads: int | None) -> Runner:
    """Opens the runner of a TensorFlow artifact; a SavedModel is run under ``serving_default``."""
    manifest = artifact.manifest
    with quiet_native_logs():
        if artifact.is_keras:
            check_keras_backend()
            from lxmert_export.runners.tensorflow.keras_model import KerasRunner

            return KerasRunner(artifact.file(KERAS_FILE), manifest.signature, manifest.limits, name=artifact.name)
        from lxmert_export.runners.tensorflow.saved_model import SavedModelRunner

        return SavedModelRunner(artifact.file(SAVED_MODEL), manifest.signature, manifest.limits, name=artifact.name)
