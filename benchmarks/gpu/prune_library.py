"""Makes a CUDA library small for the way to a machine without a network: the machine code of all other GPUs becomes zeros.

The file is changed in place, and keeps its size and its symbols; packed with xz it is a quarter as large. Give a copy of it. It
runs on the GPUs that are kept alone. Run: python -m benchmarks.gpu.prune_library COPY.so 90 (compute capability 9.0)
"""

from __future__ import annotations

import argparse
import mmap
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SECTION = b".nv_fatbin"
# A fat binary: a header (magic number, version, size of the header, size of what follows), then entries, each with a header
# of its own (kind, version, size of the header, size of the code, and at byte 28 the architecture). NVIDIA does not document
# it; as found in libraries of CUDA 13.
MAGIC, HEADER, ENTRY = 0xBA55ED50, struct.Struct("<IHHQ"), struct.Struct("<HHIQ")
ARCHITECTURE_AT, MACHINE_CODE, ALIGNED = 28, 2, 8


def main() -> None:
    """Prunes one library, and prints the bytes that were kept and zeroed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path)
    parser.add_argument("capabilities", nargs="+", type=int, help="those to keep, such as 90")
    options = parser.parse_args()
    kept, zeroed = prune(options.library, set(options.capabilities))
    print(f"{options.library}: {kept / 2**20:,.0f} MiB of machine code kept, {zeroed / 2**20:,.0f} MiB zeroed")


def prune(library: Path, capabilities: set[int]) -> tuple[int, int]:
    """Zeroes the code of all but some architectures; returns the bytes kept and zeroed. ``SystemExit``: it holds no such code."""
    bytes_of: Counter[bool] = Counter()
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        start, end = _section(content)
        for place, size, kind, architecture in list(_entries(content, start, end)):
            keep = kind == MACHINE_CODE and architecture in capabilities
            bytes_of[keep] += size
            if not keep:
                content[place : place + size] = bytes(size)
    if not bytes_of[True]:
        asked = ", ".join(map(str, sorted(capabilities)))
        raise SystemExit(f"{library}: holds no machine code for {asked}; it is worthless now: copy it again")
    return bytes_of[True], bytes_of[False]


def _section(content: mmap.mmap) -> tuple[int, int]:
    """Where the fat binaries of a 64-bit ELF file are."""
    if content[:5] != b"\x7fELF\x02":
        raise SystemExit("not a 64-bit ELF library")
    table, (size, count, names_at) = struct.unpack_from("<Q", content, 40)[0], struct.unpack_from("<HHH", content, 58)
    sections = [struct.unpack_from("<IIQQQQ", content, table + size * number) for number in range(count)]
    names = sections[names_at][4]
    for name, _, _, _, place, length in sections:
        if content[names + name : names + name + len(SECTION) + 1] == SECTION + b"\0":
            return place, place + length
    raise SystemExit("the library holds no code for GPUs")


def _entries(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields place, size, kind and architecture of each piece of code."""
    place = start
    while place + HEADER.size <= end:
        magic, _, header, size = HEADER.unpack_from(content, place)
        if magic != MAGIC:
            place += ALIGNED
            continue
        entry, last = place + header, place + header + size
        while entry < last:
            kind, _, own, length = ENTRY.unpack_from(content, entry)
            (architecture,) = struct.unpack_from("<I", content, entry + ARCHITECTURE_AT)
            yield entry + own, length, kind, architecture
            entry += own + length
        place = last


if __name__ == "__main__":
    main()
