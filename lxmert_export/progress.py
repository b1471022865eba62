"""Reports the progress of long steps."""

from __future__ import annotations

from collections.abc import Callable

from lxmert_export.interrupts import raise_if_stopped

# Called with a step's name, the number of its batches that are done, and their number.
Progress = Callable[[str, int, int], None]
# Called with the name of a family when one more batch of it is done.
Advance = Callable[[str], None]


def silent(step: str, done: int, total: int) -> None:
    """Reports no progress."""


def counted(progress: Progress, step: str, total: int) -> Advance:
    """Reports the beginning of a step now, and one more batch each time the returned function is called."""
    done = 0
    progress(step, done, total)

    def advance(family: str) -> None:
        nonlocal done
        done += 1
        raise_if_stopped()
        progress(step, done, total)

    return advance
