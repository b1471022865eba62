"""Checks file names in a locale that is not UTF-8: Python can open them, but native libraries would not find them."""

from __future__ import annotations

import os
from pathlib import Path

from lxmert_export.errors import ArtifactError


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
