"""Threads share a runner: calls take turns, or run in parallel, and closing waits for those that run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Admits the calls of threads to one runtime.

    | runtime | calls that run at a time |
    |---|---|
    | ``parallel`` | any number |
    | other | one; the others wait for their turn |

    ``close`` waits for the calls that run. A call that comes later, or still waits for its turn, is not admitted.
    """

    def __init__(self, *, parallel: bool) -> None:
        self._parallel = parallel
        self._running = 0
        self.closed = self._released = False
        self._changed = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Yields True when the call may run, and False if the runner is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._parallel or not self._running)
            admitted = not self.closed
            self._running += admitted
        try:
            yield admitted
        finally:
            with self._changed:
                self._running -= admitted
                self._changed.notify_all()

    def close(self) -> bool:
        """Admits no further calls, waits for those that run, and returns whether this was the first time."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running)  # an interrupted wait can be taken up again
            first, self._released = not self._released, True
        return first
