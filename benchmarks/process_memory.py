"""The memory that a process and its descendants hold together, as Linux counts it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

INTERVAL = 0.25  # seconds between samples; for each the kernel walks every held page


class MemoryWatch:
    """Samples a process and its descendants while the context is open; ``peak_mib`` is the most they held together.

    ``curve``: (seconds since the start, MiB) of each sample.
    """

    def __init__(self, pid: int) -> None:
        self.peak_mib = 0.0
        self.curve: list[tuple[float, float]] = []
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        began = time.perf_counter()
        while not self._over.wait(INTERVAL):
            held = sum(map(held_mib, family_of(self._pid)))
            self.curve.append((time.perf_counter() - began, held))
            self.peak_mib = max(self.peak_mib, held)


def family_of(pid: int) -> list[int]:
    """Returns a process and all its descendants; nothing if the process has ended."""
    try:
        lists = [path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [pid, *(member for listed in lists for child in listed.split() for member in family_of(int(child)))]


def held_mib(pid: int) -> float:
    """Returns the memory of a process in MiB, with its part of shared pages; 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
