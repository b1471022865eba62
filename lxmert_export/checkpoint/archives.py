"""PyTorch's archives: a zip file whose members hold the tensors' bytes."""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from lxmert_export.errors import CheckpointError, first_line
from lxmert_export.files.limits import inflates_too_far

LOGGER = logging.getLogger(__name__)

PIECE = 1 << 20  # bytes that are read at a time


def check_archive(path: Path) -> bool:
    """Reads every member once, and compares its CRC-32. Returns whether all are stored uncompressed.

    PyTorch maps a member's bytes into memory as if they were stored, and compares no CRC then. A file that PyTorch
    wrote without CRCs (``set_crc32_options(False)``) is logged and not compared. ``CheckpointError``: a member is
    damaged, encrypted or listed twice, or the archive would inflate too far.
    """
    try:
        with ZipFile(path) as archive:
            members = archive.infolist()
            _check_sizes(path, members)
            if any(member.CRC for member in members):
                for member in members:
                    _read_through(archive, member)
            elif any(member.file_size for member in members):
                LOGGER.warning("%s: carries no checksums of its own: damage to it cannot be noticed", path)
    except (BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged PyTorch file: {first_line(error)}; copy it again") from error
    return all(member.compress_type == ZIP_STORED for member in members)


def _check_sizes(path: Path, members: list[ZipInfo]) -> None:
    name, count = Counter(member.filename for member in members).most_common(1)[0] if members else ("", 0)
    if count > 1:
        raise CheckpointError(f"{path}: holds {name} {count} times; save it again")
    inflated, size = sum(member.file_size for member in members), path.stat().st_size
    if inflates_too_far(inflated, size):
        raise CheckpointError(
            f"{path}: would inflate from {size} to {inflated} bytes; save it again with torch.save, which does not compress"
        )


def _read_through(archive: ZipFile, member: ZipInfo) -> None:
    """Reads a member to its end, where ``zipfile`` compares its CRC."""
    with archive.open(member) as stream:
        while stream.read(PIECE):
            pass
