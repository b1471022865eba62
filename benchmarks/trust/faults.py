"""Fails every file operation of every writer, one at a time; each is one line, and nothing is left behind.

A program of its own, because it forks: python -m benchmarks.trust.faults SOURCES WRITER EVERY
"""

from __future__ import annotations

import argparse
import builtins
import errno
import io
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.trust.attempts import (
    Attempt,
    age,
    attempt,
    can_replace,
    hidden,
    over,
    print_rows,
    remove_visible,
    rows_of,
    unsound,
    visible,
)
from benchmarks.trust.writers import WRITERS, Writer

CODES = (errno.ENOSPC, errno.EIO, errno.EACCES)
# What Python tells before it does it; each event's first value is the path, or one of two paths.
TOLD = frozenset(
    (
        "open",
        "os.chmod",
        "os.link",
        "os.listdir",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.scandir",
        "os.truncate",
    )
)
NOT_TOLD = ("fsync", "stat", "lstat", "write")  # functions of os that are replaced
MOST_OPERATIONS = 10_000
# `verify --polygraphy` writes what it was asked for before it judges the artifact, whatever comes of that.
BEFORE_THE_END = (WRITERS["polygraphy"],)


def apart(writer: str, sources: Path, every: int) -> dict[str, Any]:
    """Fails the operations of one writer, in a process of its own."""
    began = time.perf_counter()
    rows = rows_of("faults", sources, writer, str(every))
    return {
        "faults": len(rows), "operations": dict(Counter(row["operation"] for row in rows)),
        "refused": sum(row["code"] == 1 for row in rows), "done_all_the_same": sum(row["code"] == 0 for row in rows),
        "findings": [row for row in rows if row["fault"]], "seconds": time.perf_counter() - began,
    }  # fmt: skip


class Operations:
    """Counts the file operations on paths below some places, and has the one of a number fail."""

    def __init__(self, places: tuple[Path, ...], number: int, note: Path) -> None:
        self.places, self.number, self.note, self.seen = tuple(map(str, places)), number, note, 0
        self.busy = False

    def arm(self) -> None:
        """Watches this process from now on."""
        sys.addaudithook(self._told)
        for name in NOT_TOLD:
            setattr(os, name, partial(self._replaced, getattr(os, name), name))
        builtins.open = io.open = partial(self._opened, io.open)

    def happens(self, what: str, *paths: Any) -> None:
        """Raises ``OSError`` if it is this operation's turn."""
        if self.busy or not any(self._is_ours(path) for path in paths):
            return
        self.seen += 1
        if self.seen == self.number:
            self.busy = True
            self.note.write_text(what)
            self.busy = False
            code = CODES[self.number % len(CODES)]
            raise OSError(code, os.strerror(code), str(paths[0]))

    def _told(self, event: str, values: tuple[Any, ...]) -> None:
        if event in TOLD:
            self.happens(event, *values[:2])

    def _replaced(self, function: Callable[..., Any], name: str, target: Any, *rest: Any, **options: Any) -> Any:
        path = target
        if isinstance(target, int):
            path = _path_of(target)
        self.happens(f"os.{name}", path)
        return function(target, *rest, **options)

    def _opened(self, function: Callable[..., Any], file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        stream = function(file, mode, *rest, **options)
        return stream if set(mode) <= set("rbt") or not self._is_ours(file) else Watched(stream, self, file)

    def _is_ours(self, path: Any) -> bool:
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        return os.path.abspath(text).startswith(self.places) if text else False  # noqa: PTH100


def _path_of(descriptor: int) -> str:
    """The path of an open file; empty if it has none. A function that is replaced here must not call itself."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115  (pathlib would make a path of "pipe:[1]")
    except OSError:
        return ""


class Watched:
    """A file that is written to; writes, flushes and closing count as operations."""

    def __init__(self, stream: Any, operations: Operations, path: Any) -> None:
        self._stream, self._operations, self._path = stream, operations, path

    def write(self, content: Any) -> Any:
        """Writes, unless it is this write's turn to fail."""
        self._operations.happens("write", self._path)
        return self._stream.write(content)

    def flush(self) -> None:
        """Flushes, unless it is its turn to fail."""
        self._operations.happens("flush", self._path)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> Watched:
        self._stream.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.__exit__(*error)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)


def trials(writer: Writer, sources: Path, every: int) -> Iterator[dict[str, Any]]:
    """Fails the first operation of a writer, the next of so many, … until it has no more; then again as it replaces an output."""
    with tempfile.TemporaryDirectory(prefix="lxmert-export-faults-") as directory:
        old, place, note = (Path(directory) / name for name in ("old", "place", "note"))
        old.mkdir()
        done = attempt(writer, sources, old)
        new = visible(old)
        assert done.code == 0, f"the writer fails by itself: {done.said}"
        age(old)
        for replaces in (False, True) if can_replace(writer) else (False,):
            for number in range(1, MOST_OPERATIONS, every):
                if replaces:
                    shutil.copytree(old, place)
                else:
                    place.mkdir()
                found = trial(over(writer), sources, place, new, number, note)
                shutil.rmtree(place)
                if found is None:
                    break
                yield {"number": number, "replaces": replaces, **found}
                note.unlink()


def trial(
    writer: Writer, sources: Path, place: Path, new: frozenset[str], number: int, note: Path
) -> dict[str, Any] | None:
    """Fails one operation, and looks; what is left, the same command cleans up. None: there was no such operation."""
    before = visible(place)
    ended = attempt(writer, sources, place, arm=Operations((place, sources), number, note).arm)
    if not note.exists():
        return None
    fault = ended.fault or _left(writer, ended, place, before, new) or unsound(place)
    if fault is None and hidden(place):  # only where it could not be removed, and the next run does that
        if not can_replace(writer):
            remove_visible(place)
        again = attempt(writer, sources, place)
        fault = f"again: {again.said}" if again.code else f"left {left}" if (left := hidden(place)) else None
    return {"operation": note.read_text(), "code": ended.code, "said": ended.said[-300:], "fault": fault}


def _left(writer: Writer, ended: Attempt, place: Path, before: frozenset[str], new: frozenset[str]) -> str | None:
    expected = new if ended.code == 0 else before
    if (seen := visible(place)) != expected and not (seen == new and writer in BEFORE_THE_END):
        missing, more = sorted(expected - seen)[:3], sorted(seen - expected)[:3]
        return f"ended with {ended.code}; missing: {missing}; more: {more}"
    return f"left {hidden(place)}" if ended.code and hidden(place) else None


if __name__ == "__main__":
    print_rows(argparse.ArgumentParser(description=__doc__), trials)
