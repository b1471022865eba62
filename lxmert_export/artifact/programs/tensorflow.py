"""The operators of a SavedModel, or the classes of a ``.keras`` file."""

from __future__ import annotations

from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.programs import keras, saved_model


def check_program(artifact: Artifact) -> set[str]:
    """Returns the names of operators or classes. ``ArtifactError``: the file holds what no export does."""
    return keras.check_program(artifact) if artifact.is_keras else saved_model.check_program(artifact)
