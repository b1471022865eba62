"""Reads HDF5 files from strangers: plain data only, never what a link or another file holds."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from zipfile import ZIP_STORED

from lxmert_export.files.limits import MOST_HDF5_OBJECTS
from lxmert_export.files.zip_archives import open_archive

if TYPE_CHECKING:
    import h5py

LONGEST_SUPERBLOCK = 28 + 4 * 255  # bytes, of the two versions below: the file itself gives the width of its addresses
SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = b"\xff"  # each byte of an address that is not there
LOCAL_HEADER = 30  # bytes before the name of a zip file's member; the lengths of name and extra field end them


class NotPlainDataError(Exception):
    """The file holds a link, names a driver, has a dataset whose values are not in it, or too many; the message names it."""


def refuse_drivers(stream: io.RawIOBase | BinaryIO) -> None:
    """``NotPlainDataError``: the file does not begin as HDF5, or names a driver.

    With a driver it would be read from several files, and HDF5 allocates what it claims.

    To be called before HDF5 opens the file. Source: "HDF5 File Format Specification", II.A: versions 0 and 1 have the address
    of a driver information block.
    """
    start = stream.read(LONGEST_SUPERBLOCK) or b""
    stream.seek(0)
    if not start.startswith(SIGNATURE):  # HDF5 would look for it further on, behind a block of the user's
        raise NotPlainDataError("does not begin with HDF5's signature")
    version, width = start[8:9], int.from_bytes(start[13:14], "little")
    place = {b"\0": 24, b"\1": 28}.get(version, 0) + 3 * width
    if version in (b"\0", b"\1") and start[place : place + width] != UNDEFINED * width:
        raise NotPlainDataError("names a driver for files in several parts; only plain data is read")


def plain_datasets(file: h5py.File) -> Iterator[tuple[tuple[str, ...], h5py.Dataset]]:
    """Yields every dataset with the names of its groups and its own.

    Follows hard links only. ``NotPlainDataError``: the file holds another link, a dataset without values of its own, or far more
    of both than weights have.
    """
    import h5py

    waiting = deque[tuple[tuple[str, ...], "h5py.Group"]]([((), file)])
    seen, count = set(), 0
    while waiting:
        parts, group = waiting.popleft()
        for name in group:
            if (count := count + 1) > MOST_HDF5_OBJECTS:
                raise NotPlainDataError(f"holds more than {MOST_HDF5_OBJECTS} groups and datasets")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise NotPlainDataError(f"holds a link ({'/'.join((*parts, name))}); only plain data is read")
            item = group[name]
            if isinstance(item, h5py.Group):
                identity = h5py.h5o.get_info(item.id).addr
                if identity not in seen:  # a hard link back to a parent would make an endless loop
                    seen.add(identity)
                    waiting.append(((*parts, name), item))
                continue
            if not isinstance(item, h5py.Dataset):  # a named type
                continue
            if item.shape is None:
                raise NotPlainDataError(f"{name} is an empty dataset, which holds no values; write it again")
            if item.external or item.is_virtual:
                raise NotPlainDataError(f"{name} keeps its data in another file; only plain data is read")
            yield (*parts, name), item


class StoredMember(io.RawIOBase):
    """The bytes of a zip file's member that is not compressed, to be read at any place.

    ``zipfile`` reads on to a later place, and from the start to an earlier one; HDF5 jumps about. ``ValueError``: the member is
    compressed or encrypted.
    """

    def __init__(self, path: Path, name: str) -> None:
        with open_archive(path) as archive:
            member = archive.getinfo(name)
        if member.compress_type != ZIP_STORED or member.flag_bits & 1:
            raise ValueError(f"its {name} is compressed or encrypted")
        self._file = path.open("rb")
        self._file.seek(member.header_offset)
        header = self._file.read(LOCAL_HEADER)
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        self._start, self._size = member.header_offset + LOCAL_HEADER + lengths, member.file_size
        self._place = 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads up to the member's end."""
        self._file.seek(self._start + self._place)
        count = self._file.readinto(memoryview(buffer)[: max(self._size - self._place, 0)])
        self._place += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a place in the member."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        """The place in the member."""
        return self._place

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Closes the zip file."""
        self._file.close()
        super().close()
