"""Names of files under a locale that is not UTF-8: Python opens them, and the libraries below it would not find them."""

from __future__ import annotations

import os
from pathlib import Path

from lxmert_export.errors import ArtifactError


def check_spelling(name: str | Path) -> None:
    """``ArtifactError``: a name whose bytes on the disk are not its UTF-8, as TensorFlow, onnx and safetensors take it."""
    text = str(name)
    try:
        if os.fsencode(text) == text.encode():
            return
        shown = os.fsencode(text)
    except UnicodeEncodeError:
        shown = text.encode(errors="surrogateescape")
    raise ArtifactError(
        f"{shown.decode(errors='backslashreplace')}: this locale does not spell it in UTF-8: set PYTHONUTF8=1 "
        "(or LC_ALL=C.UTF-8), or name it in ASCII"
    )
