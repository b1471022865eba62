"""PyTorch's archives: a zip file whose members hold the tensors' bytes."""

from __future__ import annotations

import io
import logging
import zlib
from collections import Counter
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from lxmert_export.errors import CheckpointError, first_line
from lxmert_export.files.limits import LARGEST_PICKLE, inflates_too_far
from lxmert_export.files.zip_archives import open_archive

LOGGER = logging.getLogger(__name__)

PICKLE = "data.pkl"  # how the name of the member ends that names the tensors
PIECE = 1 << 20  # bytes that are read at a time


def check_archive(path: Path) -> bool:
    """Reads every member once, and compares its CRC-32. Returns whether all are stored uncompressed.

    PyTorch maps a member's bytes into memory as if they were stored, and compares no CRC then. A file that PyTorch
    wrote without CRCs (``set_crc32_options(False)``) is logged and not compared. ``CheckpointError``: a member is
    damaged, encrypted or listed twice, or the archive would inflate too far.
    """
    try:
        with open_archive(path) as archive:
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
    for member in members:
        if member.filename.lower().endswith(PICKLE) and member.file_size > LARGEST_PICKLE:  # PyTorch looks so
            raise _too_large(path, member.file_size)
    inflated, size = sum(member.file_size for member in members), path.stat().st_size
    if inflates_too_far(inflated, size):
        raise CheckpointError(
            f"{path}: would inflate from {size} to {inflated} bytes; save it again with torch.save, which does not compress"
        )


class PickledStart:
    """A file in PyTorch's older format: pickles, and the tensors' bytes behind them.

    ``CheckpointError``: the pickles are larger than those of weights. PyTorch reads pickles by ``read`` and ``readline``, and
    tensors by ``readinto``.
    """

    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        self.seek, self.tell, self.readinto = file.seek, file.tell, file.readinto
        self._path, self._file, self._read = path, file, 0

    def read(self, size: int) -> bytes:
        """Reads so many bytes of a pickle."""
        return self._counted(self._file.read(min(size, LARGEST_PICKLE + 1)))

    def readline(self) -> bytes:
        """Reads a line of a pickle."""
        return self._counted(self._file.readline(LARGEST_PICKLE + 1))

    def _counted(self, content: bytes) -> bytes:
        self._read += len(content)
        if self._read > LARGEST_PICKLE:
            raise _too_large(self._path, self._read)
        return content


def _too_large(path: Path, size: int) -> CheckpointError:
    return CheckpointError(
        f"{path}: names its tensors in at least {size} bytes, more than the {LARGEST_PICKLE} that such a file may have; save "
        "only its state_dict()"
    )


def _read_through(archive: ZipFile, member: ZipInfo) -> None:
    """Reads a member to its end, where ``zipfile`` compares its CRC."""
    with archive.open(member) as stream:
        while stream.read(PIECE):
            pass
