"""Lists directories whole. ``Path.rglob`` and ``Path.glob`` pass over a directory that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def entries_below(directory: Path) -> Iterator[Path]:
    """Yields everything below a directory, in the order of names; no link is followed. ``OSError``: it cannot be listed."""
    for place, below, names in os.walk(directory, onerror=_fail):
        below.sort()
        for name in sorted((*below, *names)):
            yield Path(place, name)


def files_below(directory: Path) -> list[Path]:
    """Returns the files below a directory, sorted, and links to files. ``OSError``: as above."""
    return sorted(path for path in entries_below(directory) if path.is_file())


def _fail(error: OSError) -> None:
    raise error
