"""The SHA-256 of files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256(*paths: Path) -> str:
    """Returns the SHA-256 of the bytes of files, one file after the other, in hex."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
