"""What is installed: the pip extra that brings what is missing, our own ``converters``, and the framework Keras runs on."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from lxmert_export.errors import ConversionError, MissingExtra


class Library(NamedTuple):
    """A library by the name of its module: the extra that brings it, and the distributions that it may come from."""

    module: str
    extra: str
    distributions: tuple[str, ...]


TORCH = Library("torch", "torch", ("torch",))
ONNX = Library("onnx", "onnx", ("onnx",))
ONNXSCRIPT = Library("onnxscript", "onnx", ("onnxscript",))
ONNX_IR = Library("onnx_ir", "onnx", ("onnx-ir",))
ONNXRUNTIME = Library("onnxruntime", "onnx", ("onnxruntime",))
H5PY = Library("h5py", "h5", ("h5py",))
TENSORFLOW = Library("tensorflow", "tensorflow", ("tensorflow", "tensorflow-cpu"))
LITERT = Library("ai_edge_litert", "tflite", ("ai-edge-litert",))
POLYGRAPHY = Library("polygraphy", "polygraphy", ("polygraphy",))
TENSORRT_RTX = Library("tensorrt_rtx", "tensorrt-rtx", ("tensorrt-rtx",))
TENSORRT = Library("tensorrt", "tensorrt", ("tensorrt",))
PICTURES = (Library("PIL", "demo", ("pillow",)), Library("scipy", "demo", ("scipy",)))


def require(what: str, *libraries: Library) -> None:
    """``MissingExtra`` for the first library that is not installed; ``what`` needs it."""
    for library in missing(libraries):
        raise MissingExtra(what, library.extra)


def missing(libraries: Iterable[Library]) -> list[Library]:
    """Those libraries that are not installed; nothing is imported."""
    return [library for library in libraries if find_spec(library.module) is None]


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


KERAS_BACKEND = "tensorflow"


def check_keras_backend() -> None:
    """``MissingExtra`` without TensorFlow; ``ConversionError`` where Keras runs, or would run, on anything else."""
    require("building a Keras model", TENSORFLOW)
    backend, told_by = _backend()
    if backend != KERAS_BACKEND:
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
        return json.loads(file.read_text(encoding="utf-8")).get("backend", KERAS_BACKEND), str(file)
    except (OSError, ValueError, AttributeError):  # none, or one that Keras passes over or complains of itself
        return KERAS_BACKEND, str(file)


def _settings_file() -> Path:
    home = Path.home()
    usual = (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras"
    return Path(os.environ.get("KERAS_HOME", usual)).expanduser() / "keras.json"
