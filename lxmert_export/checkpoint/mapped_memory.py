"""Lets the operating system take back memory-mapped pages that have been read for now.

Reading a mapped checkpoint through would otherwise keep all of its 856 MB resident. Elsewhere than on Linux nothing happens.
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
MADV_DONTNEED, MADV_PAGEOUT = 4, 21  # Linux; the mmap module has the first there only, and the second not at all


class MappedFiles:
    """Where files that were just opened are mapped; their pages can be dropped until somebody writes to them.

    What a process has written to a private mapping is lost with the page: this is for weights that nobody has seen yet.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._ranges = list(_ranges({str(path.resolve()) for path in paths}))

    def forget(self) -> None:
        """Drops the pages; they are read from the file again when they are needed."""
        for start, end in self._ranges:
            _advise(start, end, MADV_DONTNEED)


def page_out(tensor: Tensor) -> None:
    """Advises that a tensor's pages may go; whatever memory they are, none of their values is lost."""
    if tensor.device.type == "cpu" and tensor.is_contiguous() and MAPS.exists():
        start = tensor.data_ptr()
        _advise(start, start + tensor.numel() * tensor.element_size(), MADV_PAGEOUT)


def _ranges(names: set[str]) -> Iterator[tuple[int, int]]:
    with suppress(FileNotFoundError):  # no Linux
        for line in MAPS.read_bytes().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and os.fsdecode(fields[5]) in names:  # address, rights, offset, device, inode, file
                start, _, end = fields[0].partition(b"-")
                yield int(start, 16), int(end, 16)


def _advise(start: int, end: int, advice: int) -> None:
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages only: the rest of a page is another tensor's
    last = end // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        # It is advice: where the kernel declines, the pages simply stay.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)
