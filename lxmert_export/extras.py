"""Checks what is installed: libraries and their pip extras, our own ``converters``, and the backend of Keras."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from lxmert_export.errors import ConversionError, MissingExtra


class Library(NamedTuple):
    """A library: the name of its module, the extra that installs it, and the distributions that may hold it."""

    module: str
    extra: str
    distributions: tuple[str, ...]


TORCH = Library("torch", "torch", ("torch",))
ONNX = Library("onnx", "onnx", ("onnx",))
ONNXSCRIPT = Library("onnxscript", "onnx", ("onnxscript",))
ONNX_IR = Library("onnx_ir", "onnx", ("onnx-ir",))
ONNXRUNTIME = Library("onnxruntime", "onnx", ("onnxruntime", "onnxruntime-gpu"))
ONNXRUNTIME_GPU = Library("onnxruntime", "cuda", ("onnxruntime-gpu", "onnxruntime"))
OPENVINO = Library("openvino", "openvino", ("openvino",))
NNCF = Library("nncf", "nncf", ("nncf",))
H5PY = Library("h5py", "h5", ("h5py",))
H5PY_OF_FEATURES = Library(
    "h5py", "data", ("h5py",)
)  # the same library, in the extra that reads every file of features
PYARROW = Library("pyarrow", "data", ("pyarrow",))
TENSORFLOW = Library("tensorflow", "tensorflow", ("tensorflow", "tensorflow-cpu"))
LITERT = Library("ai_edge_litert", "tflite", ("ai-edge-litert",))
POLYGRAPHY = Library("polygraphy", "polygraphy", ("polygraphy",))
TENSORRT_RTX = Library("tensorrt_rtx", "tensorrt-rtx", ("tensorrt-rtx",))
TENSORRT = Library("tensorrt", "tensorrt", ("tensorrt",))
RAY = Library("ray", "ray", ("ray",))
PICTURES = (Library("PIL", "demo", ("pillow",)), Library("scipy", "demo", ("scipy",)))


def require(what: str, *libraries: Library) -> None:
    """``MissingExtra``: a library is not installed. ``what`` says in the message what needs it."""
    for library in missing(libraries):
        raise MissingExtra(what, library.extra)


def missing(libraries: Iterable[Library]) -> list[Library]:
    """Returns the libraries that are not installed. Nothing is imported."""
    return [library for library in libraries if find_spec(library.module) is None]


def both_onnxruntimes() -> tuple[str, str] | None:
    """Returns what is wrong and how to mend it if onnxruntime is installed twice; None if it is not.

    The builds for CPUs and for GPUs write the same module, and pip does not know: the one that was installed last is imported,
    with files of the other one beside its own.
    """
    found = {name: _installed(name) for name in ONNXRUNTIME_GPU.distributions}
    if None in found.values():
        return None
    return (
        f"onnxruntime {found['onnxruntime']} and onnxruntime-gpu {found['onnxruntime-gpu']} are both installed, and overwrite "
        "one another",
        "pip uninstall --yes onnxruntime && pip install --force-reinstall --no-deps "
        f"onnxruntime-gpu=={found['onnxruntime-gpu']}",
    )


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def check_own_converters() -> None:
    """``ConversionError``: Python finds another package named ``converters`` before ours, such as a user's folder."""
    found = importlib.util.find_spec("converters")
    ours = Path(__file__).resolve().parent.parent / "converters"
    place = None if found is None or found.origin is None else Path(found.origin).resolve().parent
    if place != ours:
        raise ConversionError(
            f"Python finds a package 'converters' at {place or 'no file'}, which is not lxmert-export's own ({ours}): "
            "run from another directory, or rename that folder"
        )


KERAS_BACKEND = "tensorflow"


def check_keras_backend() -> None:
    """``MissingExtra``: TensorFlow is not installed. ``ConversionError``: Keras uses, or would use, another backend."""
    require("building a Keras model", TENSORFLOW)
    backend, set_by = _backend()
    if backend != KERAS_BACKEND:
        raise ConversionError(
            f"Keras uses the backend {backend!r} ({set_by}): set KERAS_BACKEND=tensorflow before Keras is first imported"
        )


def _backend() -> tuple[object, str]:
    """The backend of Keras, and where it is set.

    Source: keras/src/backend/config.py of Keras 3.15, which looks in the same places in the same order.
    """
    if (keras := sys.modules.get("keras")) is not None:
        return keras.config.backend(), "imported already"
    if named := os.environ.get("KERAS_BACKEND"):
        return named, "KERAS_BACKEND"
    file = _settings_file()
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("backend", KERAS_BACKEND), str(file)
    except (
        OSError,
        ValueError,
        AttributeError,
    ):  # no such file, or a damaged one, which Keras ignores or reports itself
        return KERAS_BACKEND, str(file)


def _settings_file() -> Path:
    home = Path.home()
    usual = (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras"
    return Path(os.environ.get("KERAS_HOME", usual)).expanduser() / "keras.json"
