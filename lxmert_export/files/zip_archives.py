"""Opens zip archives of strangers: one with very many members is refused before Python lists them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

from lxmert_export.files.limits import LARGEST_ZIP_DIRECTORY

# The records at an archive's end. Source: APPNOTE.TXT of PKWARE, 4.3.14 to 4.3.16.
END, NOT_HERE = b"PK\5\6", 0xFFFFFFFF  # of a size that stands in the wide record alone
WIDE, WIDE_LENGTH = b"PK\6\7", 20 + 56  # before the end: where the wide record is, and that record
LONGEST_END = WIDE_LENGTH + 22 + 65_535  # bytes, with a comment


def open_archive(path: Path) -> ZipFile:
    """Opens an archive. ``ValueError``: its directory is that of far more members than such files have."""
    with path.open("rb") as file:
        size = max(_sizes_of_directory(file), default=0)
    if size > LARGEST_ZIP_DIRECTORY:
        raise ValueError(
            f"lists its members in {size} bytes, more than the {LARGEST_ZIP_DIRECTORY} that such a file may have"
        )
    return ZipFile(path)


def _sizes_of_directory(file: BinaryIO) -> Iterator[int]:
    """What the directory's size may be: readers differ in which of several records they take for the end."""
    file.seek(max(0, file.seek(0, 2) - LONGEST_END))
    end = file.read()
    for found in re.finditer(END, end):
        place = found.start()
        record, before = end[place : place + 16], end[max(0, place - WIDE_LENGTH) : place]
        if len(before) == WIDE_LENGTH and before[56:].startswith(WIDE):
            yield struct.unpack_from("<Q", before, 40)[0]
        if len(record) == 16 and (size := struct.unpack_from("<I", record, 12)[0]) != NOT_HERE:
            yield size
