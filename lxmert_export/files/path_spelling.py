"""Checks file names: those that native libraries would not find in this locale, and those that lead out of a directory."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from lxmert_export.errors import ArtifactError

LONGEST_PART = 255  # bytes of a file's name that every file system takes


def check_spelling(name: str | Path) -> None:
    """``ArtifactError``: the name's bytes on the disk are not UTF-8. TensorFlow, onnx and safetensors take UTF-8 only."""
    text = str(name)
    try:
        if os.fsencode(text) == text.encode():
            return
        shown = os.fsencode(text)
    except UnicodeEncodeError:
        shown = text.encode(errors="surrogateescape")
    raise ArtifactError(
        f"{shown.decode(errors='backslashreplace')}: this name is not UTF-8 in this locale: set PYTHONUTF8=1 "
        "(or LC_ALL=C.UTF-8), or use an ASCII name"
    )


def stays_inside(name: str) -> bool:
    """Whether a relative name from a file of others names a file below its directory, on every system."""
    path = PurePosixPath(name)
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    parts_fit = all(len(os.fsencode(part)) <= LONGEST_PART for part in path.parts)
    return (
        bool(path.parts)
        and not path.is_absolute()
        and ".." not in path.parts
        and parts_fit
        and not set(name) & {"\\", ":", "\0"}
    )


def is_plain_name(name: str) -> bool:
    """Whether a name from a file of others names a file in the same directory."""
    return stays_inside(name) and PurePosixPath(name).name == name
