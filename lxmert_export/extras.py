"""What is installed: the pip extra that brings what is missing, our own ``converters``, and the framework Keras runs on."""

from __future__ import annotations

import importlib.util
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


def require_pictures() -> None:
    """``MissingExtra`` unless pictures can be read and drawn."""
    require("reading and drawing pictures", PIL="demo", scipy="demo")


def require(what: str, **modules: str) -> None:
    """``MissingExtra`` for the first of ``modules`` (name = its extra) that is not installed."""
    for module, extra in modules.items():
        if find_spec(module) is None:
            raise MissingExtra(what, extra)


def check_own_converters() -> None:
    """A user's folder named ``converters`` that comes first on the path must not be taken for ours."""
    found = importlib.util.find_spec("converters")
    ours = Path(__file__).resolve().parent.parent / "converters"
    place = None if found is None or found.origin is None else Path(found.origin).resolve().parent
    if place != ours:
        raise ConversionError(
            f"the package 'converters' found at {place or 'no file'} is not lxmert-export's own ({ours}): "
            "run from another directory, or rename that folder"
        )
