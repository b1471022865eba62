"""How far something has come, told to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

# Called with what is being run, how many batches are done, and how many there are.
Progress = Callable[[str, int, int], None]
# Called with the family of inputs of which one batch more is done.
Advance = Callable[[str], None]


def silent(step: str, done: int, total: int) -> None:
    """Reports no progress."""


def counted(progress: Progress, step: str, total: int) -> Advance:
    """Tells ``progress`` of a step's beginning now, and of one batch more at each call."""
    done = 0
    progress(step, done, total)

    def advance(family: str) -> None:
        nonlocal done
        done += 1
        progress(step, done, total)

    return advance
