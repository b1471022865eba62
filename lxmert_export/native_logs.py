"""Hides the log lines of native libraries: TensorFlow writes them to stderr's file descriptor, which Python does not see."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
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
    with _lock:
        terminal = _duplicate_of_stderr()
        if terminal is None:  # stderr is closed: there is nothing to hide
            yield
            return
        try:
            with tempfile.TemporaryFile() as dropped:
                os.dup2(dropped.fileno(), 2)
            yield
        finally:
            _flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def _duplicate_of_stderr() -> int | None:
    _flush()
    try:
        return os.dup(2)
    except OSError:
        return None


def _flush() -> None:
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
