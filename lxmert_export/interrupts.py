"""Ctrl-C and SIGTERM end a command even if their exception is lost.

Python ignores an exception that is raised where nothing can take it: in ``__del__``, or in a callback of native code. The
signal is remembered, and raised again before anything that was written gets its name.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOPPED = 128  # and the number of the signal, as shells count it

_received: list[int] = []


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Has SIGTERM end the block as Ctrl-C does: what was half written is removed. By default it would stay.

    A signal that the process was told to ignore stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # others cannot handle signals
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handled = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for number in handled:
            signal.signal(number, _stop)
        yield
    finally:
        _received.clear()
        for number in handled:
            signal.signal(number, before[number])


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restores who handles SIGTERM after the block: some libraries put their own handler in its place, and remember nothing."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


def raise_if_stopped() -> None:
    """``KeyboardInterrupt`` or ``SystemExit``: a signal asked to stop, and its exception was lost."""
    if _received:
        _raise(_received[-1])


def _stop(number: int, _: object) -> None:
    _received.append(number)
    _raise(number)


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(STOPPED + number)
