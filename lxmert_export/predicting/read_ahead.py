"""Makes the next items in a thread while the items before them are used."""

from __future__ import annotations

import threading
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Generator[Item, None, None], most: int) -> Generator[Item, None, None]:
    """Yields items in their order; up to ``most`` of the next ones are made meanwhile, in a thread.

    What making an item raises is raised here. When this iterator is closed, ``items`` is closed, too.
    """
    room = threading.Semaphore(most)
    made: Queue[Item | None] = Queue()
    stopped = threading.Event()

    def make() -> None:
        try:
            for item in items:
                made.put(item)
                room.acquire()
                if stopped.is_set():
                    break
        finally:
            items.close()
            made.put(None)  # the end; an error is in the future

    with ThreadPoolExecutor(1, "read-ahead") as pool:
        future: Future[None] = pool.submit(make)
        try:
            while (item := made.get()) is not None:
                yield item
                room.release()
            future.result()
        finally:
            stopped.set()
            room.release()
