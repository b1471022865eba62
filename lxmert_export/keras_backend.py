"""Which framework Keras runs on, found out before Keras is imported: it cannot be changed afterwards."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from lxmert_export.errors import ConversionError, MissingExtra

TENSORFLOW = "tensorflow"


def check_keras_backend() -> None:
    """``MissingExtra`` without TensorFlow; ``ConversionError`` where Keras runs, or would run, on anything else."""
    if find_spec(TENSORFLOW) is None:
        raise MissingExtra("building a Keras model", "tensorflow")
    backend, told_by = _backend()
    if backend != TENSORFLOW:
        raise ConversionError(
            f"Keras is to run on {backend!r} ({told_by}): set KERAS_BACKEND=tensorflow before Keras is first imported"
        )


def _backend() -> tuple[object, str]:
    """The backend, and what says so.

    Source: keras/src/backend/config.py of Keras 3.15, which looks into the same places in the same order.
    """
    if (keras := sys.modules.get("keras")) is not None:
        return keras.config.backend(), "imported already"
    if named := os.environ.get("KERAS_BACKEND"):
        return named, "KERAS_BACKEND"
    file = _settings_file()
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("backend", TENSORFLOW), str(file)
    except (OSError, ValueError, AttributeError):  # none, or one that Keras passes over or complains of itself
        return TENSORFLOW, str(file)


def _settings_file() -> Path:
    home = Path.home()
    usual = (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras"
    return Path(os.environ.get("KERAS_HOME", usual)).expanduser() / "keras.json"
