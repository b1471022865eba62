"""Files of converted models, told from checkpoints by their content and by the artifact that they lie in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

MANIFEST_FILE = "manifest.json"


def converted_kind(file: Path) -> str | None:
    """What kind of converted model it is: by its content, where that tells."""
    try:
        if (file / "saved_model.pb").is_file() or (file.name == "saved_model.pb" and file.is_file()):
            return "a SavedModel"
        with file.open("rb") as stream:
            start = stream.read(8)
        if start[4:] == b"TFL3":
            return "a TFLite model"
        if start.startswith(b"PK"):
            with ZipFile(file) as archive:
                return "a Keras model" if {"config.json", "model.weights.h5"} <= set(archive.namelist()) else None
    except (OSError, BadZipFile):
        return None
    return "an ONNX model" if file.suffix == ".onnx" else None  # a protocol buffer begins with no sign of its own


def holder_of(file: Path) -> Path | None:
    """The artifact directory whose manifest names a file, or files below it."""
    return next((directory for directory in list(file.parents)[:3] if _holds(directory, file)), None)


def manifest_of(directory: Path) -> dict[str, Any] | None:
    """The manifest of an artifact directory, unchecked; None where there is none, or one of something else."""
    try:
        values = json.loads((directory / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    named = isinstance(values, dict) and {"target", "files"} <= set(values) and isinstance(values["files"], dict)
    return values if named else None


def _holds(directory: Path, file: Path) -> bool:
    manifest = manifest_of(directory)
    if manifest is None:
        return False
    relative = file.relative_to(directory).as_posix()
    return any(name == relative or name.startswith(f"{relative}/") for name in [*manifest["files"], MANIFEST_FILE])
