"""Keeps a native library's chatter off the terminal: TensorFlow logs to stderr by file descriptor, past Python."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_lock = threading.RLock()  # file descriptors belong to the process: one thread at a time may take stderr away
_shown = False


def show_native_logs() -> None:
    """Lets all chatter through from now on, as ``--debug`` asks."""
    global _shown
    _shown = True


@contextmanager
def quiet_native_logs() -> Iterator[None]:
    """Drops what is written to file descriptor 2 meanwhile; what goes wrong comes as an exception, and passes."""
    if _shown:
        yield
        return
    with _lock:
        terminal = _duplicate_of_stderr()
        if terminal is None:  # closed by whoever started us: there is nothing to keep quiet
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
