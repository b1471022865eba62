"""A file to write for libraries that do not bear a failed write: HDF5 crashes the process, PyTorch forgets the reason."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


class PatientFile(io.RawIOBase):
    """A new file that takes every write. The first failure is kept in ``failure``, and from then on nothing is written."""

    def __init__(self, path: Path) -> None:
        self.failure: OSError | None = None
        self._file = path.open("w+b", buffering=0)

    def readable(self) -> bool:
        """A library may read what it wrote; after a failure it reads zeros."""
        return True

    def writable(self) -> bool:
        """That is what it is for."""
        return True

    def seekable(self) -> bool:
        """HDF5 writes at any place."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Writes all of the data, or keeps the failure."""
        left = memoryview(data).cast("B")
        length, end = len(left), self._file.tell() + len(left)
        try:
            while self.failure is None and left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self.failure = error
        self._file.seek(end)
        return length

    def readinto(self, buffer: Buffer, /) -> int:
        """Reads what is there; zeros for what could not be written."""
        wanted = memoryview(buffer).cast("B")
        found = self._file.readinto(wanted)
        if self.failure is None:
            return found
        wanted[found:] = bytes(len(wanted) - found)
        self._file.seek(len(wanted) - found, os.SEEK_CUR)
        return len(wanted)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Goes to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._file.tell()

    def truncate(self, size: int | None = None, /) -> int:
        """Gives the file a size, or keeps the failure."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return self._file.tell() if size is None else size

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()


@contextmanager
def patient_file(path: Path) -> Iterator[PatientFile]:
    """Yields a new file. ``OSError``: something could not be written to it, whatever the library made of that."""
    with PatientFile(path) as file:
        try:
            yield file
        except Exception as error:
            if file.failure is None:
                raise
            raise file.failure from error
        if file.failure is not None:
            raise file.failure
