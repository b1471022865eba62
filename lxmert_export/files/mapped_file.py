"""Reads any place of a large file without copying it, and without keeping what was read in memory."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path

KEPT = 1 << 25  # bytes that may be read before the pages are given back
DONT_NEED = getattr(
    mmap, "MADV_DONTNEED", None
)  # Linux drops the pages of a file at once; other systems when they must


class MappedFile:
    """A file in memory-mapped pages, for several threads.

    ``OSError``: it cannot be opened. ``ValueError``: it is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._opened = path.stat()
        self.size = len(self._map)
        self._view = memoryview(self._map)
        self._read = 0

    def part(self, start: int, end: int) -> memoryview:
        """Returns the bytes from ``start`` to ``end``, which stay good after ``close``.

        ``ValueError``: the file has changed since it was opened: pages that it has no more would end the process.
        """
        found = self.path.stat()
        if (found.st_size, found.st_mtime_ns) != (self._opened.st_size, self._opened.st_mtime_ns):
            raise ValueError("has changed while it was read")
        self.was_read(end - start)
        return self._view[start:end]

    def was_read(self, count: int) -> None:
        """Notes that so many bytes were read; now and then this gives the pages back."""
        self._read += count  # what another thread adds at the same moment may be lost: no harm
        if self._read > KEPT and DONT_NEED is not None:
            self._read = 0
            self._map.madvise(DONT_NEED)

    def close(self) -> None:
        """Closes the file, now or when the last part of it is forgotten."""
        with suppress(BufferError):
            self._view.release()
            self._map.close()


def stamp(path: Path) -> dict[str, int]:
    """Returns by what a changed file is known: its size, and when it was last written, in nanoseconds."""
    found = os.stat(path)  # noqa: PTH116  (the same fields as MappedFile's)
    return {"bytes": found.st_size, "modified": found.st_mtime_ns}
