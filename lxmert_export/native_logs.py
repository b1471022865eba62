"""Hides the log lines of native libraries: TensorFlow writes them to stderr's file descriptor, which Python does not see."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_lock = threading.RLock()  # the process has one stderr: only one thread at a time may redirect it
_shown = False


def show_native_logs() -> None:
    """Shows all log lines from now on; for ``--debug``."""
    global _shown
    _shown = True


@contextmanager
def quiet_native_logs() -> Iterator[None]:
    """Discards what is written to file descriptor 2 inside the ``with`` block. Exceptions are not affected."""
    if _shown:
        yield
        return
    with heard_native_logs():
        yield


@contextmanager
def heard_native_logs() -> Iterator[Callable[[], str]]:
    """Keeps what any thread writes to file descriptor 2 inside the ``with`` block; yields a function that returns it so far.

    It is empty if stderr is closed.
    """
    with _lock:
        terminal = _duplicate_of_stderr()
        if terminal is None:  # there is nothing to hide
            yield lambda: ""
            return
        with tempfile.TemporaryFile() as kept:
            os.dup2(kept.fileno(), 2)
            try:
                yield lambda: _text(kept.fileno())
            finally:
                _flush()
                os.dup2(terminal, 2)
                os.close(terminal)
                if _shown:
                    sys.stderr.write(_text(kept.fileno()))


def _text(kept: int) -> str:
    _flush()
    return os.pread(kept, os.fstat(kept).st_size, 0).decode(errors="replace")


def _duplicate_of_stderr() -> int | None:
    _flush()
    try:
        return os.dup(2)
    except OSError:
        return None


def _flush() -> None:
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
