"""Opens a file for its check, and says in one way what it may not hold."""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.facts import read_as
from lxmert_export.errors import PACKAGE, ArtifactError

MOST_NAMED = 5


@contextmanager
def mapped(artifact: Artifact, file: Path) -> Iterator[memoryview]:
    """Yields the file's bytes, mapped into memory. ``ArtifactError``: it is not of its target's format, or cannot be read."""
    with read_as(artifact, file, (ValueError, OSError, RecursionError)), file.open("rb") as opened:
        # Not closed: parts of it may still be referred to. It is unmapped with the last of them.
        yield memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))


def refuse(file: Path, what: str, names: Collection[str]) -> None:
    """``ArtifactError``: there are such names."""
    if names:
        told = ", ".join(sorted(name[:80] for name in names)[:MOST_NAMED])
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        raise ArtifactError(f"{file}: holds {what}: {told}{more}; no export of {PACKAGE} does, so it is not opened")
