"""What a process and all those that it started hold in memory at once, by Linux's own account."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

INTERVAL = 0.25  # seconds between samples; the kernel walks every page that is held


class MemoryWatch:
    """Samples a process and its children until it is left; ``peak_mib`` is the most that they held together."""

    def __init__(self, pid: int) -> None:
        self.peak_mib = 0.0
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
        while not self._over.wait(INTERVAL):
            self.peak_mib = max(self.peak_mib, sum(map(held_mib, family_of(self._pid))))


def family_of(pid: int) -> list[int]:
    """A process and all its descendants; none of one that has ended."""
    try:
        lists = [path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [pid, *(member for listed in lists for child in listed.split() for member in family_of(int(child)))]


def held_mib(pid: int) -> float:
    """The memory of one process, in MiB, its part of what it shares with others; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
