"""Locks that the system lets go of when a process ends, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows has no such locks
    flock = None  # type: ignore[assignment]


def are_known() -> bool:
    """Whether this system has such locks."""
    return flock is not None


class Hold(Enum):
    """What became of asking for a lock."""

    OURS = "ours"
    ANOTHERS = "another's"
    UNSUPPORTED = "unsupported"


@contextmanager
def locked(path: Path) -> Iterator[Hold]:
    """Holds a lock file while the block runs, and yields what became of asking for it. ``OSError``: it cannot be made."""
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            held = hold(lock)
            if held is Hold.OURS and not is_at(lock, path):  # the run before removed it meanwhile
                continue
            yield held
            return
        finally:
            os.close(lock)


def hold(lock: int) -> Hold:
    """Asks for the lock of an open file, and does not wait."""
    if flock is None:
        return Hold.UNSUPPORTED
    try:
        flock(lock, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return Hold.ANOTHERS
    except OSError:
        return Hold.UNSUPPORTED
    return Hold.OURS


def is_at(lock: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except OSError:
        return False
