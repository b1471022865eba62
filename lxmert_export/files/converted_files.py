"""Recognises the files of converted models, by their content and by the artifact that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from lxmert_export.files.json_files import read_json
from lxmert_export.files.zip_archives import open_archive

MANIFEST_FILE = "manifest.json"


def converted_kind(file: Path) -> str | None:
    """Returns the kind of converted model that a file is, such as "a TFLite model", or None."""
    try:
        if (file / "saved_model.pb").is_file() or (file.name == "saved_model.pb" and file.is_file()):
            return "a SavedModel"
        with file.open("rb") as stream:
            start = stream.read(8)
        if start[4:] == b"TFL3":
            return "a TFLite model"
        if start.startswith(b"PK"):
            with open_archive(file) as archive:
                return "a Keras model" if {"config.json", "model.weights.h5"} <= set(archive.namelist()) else None
    except (OSError, ValueError, BadZipFile):
        return None
    return "an ONNX model" if file.suffix == ".onnx" else None  # its content, a protocol buffer, has no signature


def holder_of(file: Path) -> Path | None:
    """Returns the artifact directory whose manifest lists a file, or files in it if it is a directory."""
    return next((directory for directory in list(file.parents)[:3] if _holds(directory, file)), None)


def manifest_of(directory: Path) -> dict[str, Any] | None:
    """Returns an artifact directory's manifest, unchecked. None if there is none, or ``manifest.json`` is something else."""
    try:
        values = read_json(directory / MANIFEST_FILE)
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
