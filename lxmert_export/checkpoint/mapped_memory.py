"""Gives memory-mapped pages back to the operating system after they have been read.

Otherwise all 856 MB of a full-size checkpoint would stay in memory once they have been read. Has an effect on Linux only.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from torch import Tensor

MAPS = Path("/proc/self/maps")
MADV_DONTNEED, MADV_PAGEOUT = 4, 21  # Linux's; Python's mmap has the first on Linux only, and never the second


class MappedFiles:
    """The mapped memory of files that were just opened, whose pages can be dropped.

    Only for weights that nothing has written to: with a page, whatever was written to it is lost.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._ranges = list(_ranges({str(path.resolve()) for path in paths}))

    def forget(self) -> None:
        """Drops the pages. When they are needed, they are read from the file again."""
        for start, end in self._ranges:
            _advise(start, end, MADV_DONTNEED)


def page_out(tensor: Tensor) -> None:
    """Advises the system to take a tensor's pages out of memory. No values are lost, whatever kind of memory it is."""
    if tensor.device.type == "cpu" and tensor.is_contiguous() and MAPS.exists():
        start = tensor.data_ptr()
        _advise(start, start + tensor.numel() * tensor.element_size(), MADV_PAGEOUT)


def _ranges(names: set[str]) -> Iterator[tuple[int, int]]:
    with suppress(FileNotFoundError):  # not on Linux
        for line in MAPS.read_bytes().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and os.fsdecode(fields[5]) in names:  # address, rights, offset, device, inode, file
                start, _, end = fields[0].partition(b"-")
                yield int(start, 16), int(end, 16)


def _advise(start: int, end: int, advice: int) -> None:
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages only: another tensor may share a page
    last = end // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        # The kernel may decline this advice: then the pages stay in memory.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)
