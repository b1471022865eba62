"""Reads LMDB files of strangers: the values of the main database, by key.

LMDB's own library follows page numbers as they stand in the file; where they are damaged, reading ends the process. Here every
place is checked before it is read. Source: mdb.c of LMDB 0.9, "Page header" to "MDB_meta": pages with a header of 16 bytes, a
B+ tree of branch and leaf pages, and large values on pages of their own.
"""

from __future__ import annotations

import struct
from pathlib import Path

from lxmert_export.files.mapped_file import MappedFile

MAGIC, VERSION = 0xBEEFC0DE, 1
HEADER = struct.Struct("<QHHHH")  # of a page: number, padding, flags, end of the list of nodes, start of the nodes
NODE = struct.Struct("<HHHH")  # low and high half of the size (or of the child's number), flags, length of the key
META = struct.Struct("<16xIIQQ")  # magic, version, address, size of the map
META_BYTES, PAGE_SIZE_AT, ROOT_AT, LAST_AT = 152, 40, 128, 136  # of a page of facts; the last: last page, transaction
BRANCH, LEAF, KINDS = 1, 2, 0x7F  # of pages
LARGE, OTHER_KINDS = 1, 2 | 4  # of nodes: the value has pages of its own; a database inside, or several values
NO_PAGE = 2**64 - 1  # the root of an empty database
DEEPEST = 32  # levels of a tree, as in mdb.c


class LmdbFile:
    """An open database. ``places``: where the value of each key is, in the order of the keys.

    ``OSError`` or ``ValueError``: it cannot be read, is damaged, or holds more than one value for a key.
    """

    def __init__(self, path: Path) -> None:
        self._file = MappedFile(path)
        try:
            self._page_size, root = self._facts()
            self.places: dict[bytes, tuple[int, int]] = {}
            self._seen: set[int] = set()
            if root != NO_PAGE:
                self._walk(root, DEEPEST)
        except BaseException:
            self._file.close()
            raise

    def value(self, key: bytes) -> memoryview:
        """Returns the value of a key. ``KeyError``: there is none. ``ValueError``: the file has changed."""
        start, end = self.places[key]
        return self._file.part(start, end)

    def close(self) -> None:
        """Closes the file; values that were read stay good."""
        self._file.close()

    def _facts(self) -> tuple[int, int]:
        """The size of a page, and the root of the tree: of two pages of facts the one of the later transaction counts."""
        first = self._meta(0)
        (size,) = struct.unpack_from("<I", first, PAGE_SIZE_AT)
        if not 512 <= size <= 65_536 or size & (size - 1):
            raise ValueError(f"is damaged: its pages would have {size} bytes")
        metas = [first, self._meta(size)]
        later = max(metas, key=lambda meta: int(struct.unpack_from("<QQ", meta, LAST_AT)[1]))
        last, _ = struct.unpack_from("<QQ", later, LAST_AT)
        if (last + 1) * size > self._file.size:
            raise ValueError(f"is cut: it has {self._file.size} bytes of at least {(last + 1) * size}")
        return size, int(struct.unpack_from("<Q", later, ROOT_AT)[0])

    def _meta(self, start: int) -> memoryview:
        held = self._bytes(start, META_BYTES)
        magic, version, _, _ = META.unpack_from(held)
        if (magic, version) != (MAGIC, VERSION):
            raise ValueError(f"is no LMDB file of version {VERSION}, or damaged")
        return held

    def _walk(self, number: int, deepest: int) -> None:
        """Notes the keys below a page."""
        if number in self._seen or not deepest:
            raise ValueError(f"is damaged: its tree leads to page {number} twice, or is too deep")
        self._seen.add(number)
        page = self._bytes(number * self._page_size, self._page_size)
        own, _, flags, end, _ = HEADER.unpack_from(page)
        if own != number or flags & KINDS not in (BRANCH, LEAF) or not HEADER.size <= end <= self._page_size:
            raise ValueError(f"is damaged: page {number} is none of its tree")
        for (place,) in struct.iter_unpack("<H", page[HEADER.size : end - end % 2]):
            if place + NODE.size > self._page_size:
                raise ValueError(f"is damaged: page {number} has a node behind its end")
            low, high, kind, length = NODE.unpack_from(page, place)
            size, data = low | high << 16, place + NODE.size
            if flags & BRANCH:
                self._walk(size | kind << 32, deepest - 1)
                continue
            if kind & OTHER_KINDS:
                raise ValueError("holds a database inside, or several values for a key")
            start = number * self._page_size + data + length
            if kind & LARGE:
                (large,) = struct.unpack("<Q", self._bytes(start, 8))
                start = large * self._page_size + HEADER.size
            elif data + length + size > self._page_size:
                raise ValueError(f"is damaged: page {number} has a value behind its end")
            self._bytes(start, size)
            self.places[bytes(page[data : data + length])] = (start, start + size)

    def _bytes(self, start: int, count: int) -> memoryview:
        if start + count > self._file.size:
            raise ValueError(f"is damaged or cut: it leads to byte {start + count} of {self._file.size}")
        return self._file.part(start, start + count)


def is_lmdb_file(path: Path) -> bool:
    """Whether a file begins as LMDB's do. ``OSError``: it cannot be read."""
    with path.open("rb") as file:
        start = file.read(META.size)
    return len(start) == META.size and META.unpack(start)[0] == MAGIC
