"""Counts the operations of a TensorFlow artifact: of a SavedModel, or of the graph that a ``.keras`` file is called as."""

from __future__ import annotations

from collections.abc import Mapping

from lxmert_export.artifact.directory import KERAS_FILE, SAVED_MODEL, Artifact
from lxmert_export.artifact.facts import read_as
from lxmert_export.extras import check_keras_backend
from lxmert_export.graphs.tensorflow_facts import UNREADABLE
from lxmert_export.graphs.tensorflow_flops import count_saved_model


def count_flops(artifact: Artifact, sizes: Mapping[str, int]) -> int | None:
    """Returns the operations of a call; None if a shape is not known before it runs. ``ArtifactError``: it cannot be read."""
    file, signature = artifact.file(KERAS_FILE if artifact.is_keras else SAVED_MODEL), artifact.manifest.signature
    with read_as(artifact, file, UNREADABLE):
        if artifact.is_keras:
            check_keras_backend()
            from lxmert_export.runners.tensorflow.keras_model import count_keras

            return count_keras(file, signature, sizes)
        return count_saved_model(file, signature, sizes)
