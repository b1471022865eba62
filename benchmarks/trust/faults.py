"""Fails every file operation of every writer, one at a time; each is one line, and nothing is left behind.

A program of its own, because it forks: python -m benchmarks.trust.faults SOURCES WRITER
"""

from __future__ import annotations

import argparse
import builtins
import errno
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    refused,
    remove_visible,
    rows_of,
    unsound,
    visible,
)
from benchmarks.trust.remembered import copy_conversions
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
OF_TWO = ("os.link", "os.rename")
NOT_TOLD = ("fsync", "stat", "lstat", "write")  # functions of os that are replaced
WRITES = 16  # of the writes to one file, one of so many fails
# `verify --polygraphy` writes what it was asked for before it judges the artifact, whatever comes of that.
BEFORE_THE_END = (WRITERS["polygraphy"],)


def apart(writer: str, sources: Path) -> dict[str, Any]:
    """Fails the operations of one writer, in a process of its own."""
    began = time.perf_counter()
    total, *rows = rows_of("faults", sources, writer)
    return {
        **total, "faults": len(rows), "kinds": dict(Counter(row["operation"] for row in rows)),
        "refused": sum(row["code"] == 1 for row in rows), "done_all_the_same": sum(row["code"] == 0 for row in rows),
        "findings": [row for row in rows if row["fault"]], "seconds": time.perf_counter() - began,
    }  # fmt: skip


class Operations:
    """Counts the file operations on paths below some places, and has the one of a number fail; 0: notes all of them.

    ``kept`` holds what converters wrote in earlier attempts.
    """

    def __init__(self, places: tuple[Path, ...], number: int, note: Path, kept: Path) -> None:
        self.places, self.number, self.note, self.seen = tuple(map(str, places)), number, note, 0
        self.kept, self.busy = kept, False

    def arm(self) -> None:
        """Watches this process from now on."""
        copy_conversions(self.kept, self)
        sys.addaudithook(self._told)
        for name in NOT_TOLD:
            setattr(os, name, partial(self._replaced, getattr(os, name), name))
        builtins.open = io.open = partial(self._opened, io.open)

    def happens(self, what: str, *paths: Any) -> None:
        """Raises ``OSError`` if it is this operation's turn."""
        if self.busy or not any(self._is_ours(path) for path in paths):
            return
        self.seen += 1
        if self.number in (0, self.seen):
            self.busy = True
            with self.note.open("a", encoding="utf-8") as note:
                note.write(f"{json.dumps([what, *(os.fsdecode(path) for path in paths if _is_path(path))])}\n")
            self.busy = False
        if self.seen == self.number:
            code = CODES[self.number % len(CODES)]
            raise OSError(code, os.strerror(code), str(paths[0]))

    def _told(self, event: str, values: tuple[Any, ...]) -> None:
        if event in TOLD:
            self.happens(event, *values[: 2 if event in OF_TWO else 1])  # of the others the second is a mode

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
        text = os.fsdecode(path) if _is_path(path) else ""
        return os.path.abspath(text).startswith(self.places) if text else False  # noqa: PTH100


def _is_path(value: Any) -> bool:
    return isinstance(value, str | bytes | os.PathLike)


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


def trials(writer: Writer, sources: Path) -> Iterator[dict[str, Any]]:
    """Yields how many operations there are; then fails each. As an output is replaced, those on what is read are left out."""
    with tempfile.TemporaryDirectory(prefix="lxmert-export-faults-") as directory:
        bench = Bench(writer, sources, Path(directory))
        found = {
            replaces: bench.operations(replaces) for replaces in ((False, True) if can_replace(writer) else (False,))
        }
        yield {"operations": sum(map(len, found.values()))}
        for replaces, operations in found.items():
            for number in chosen(operations, bench.place if replaces else None):
                if (row := bench.trial(number, replaces)) is not None:
                    yield {"number": number, "replaces": replaces, **row}


def chosen(operations: list[list[str]], place: Path | None) -> list[int]:
    """The numbers of the operations to fail: all, but of many writes to one file every sixteenth and the last.

    ``place``: leave out those on paths that are not below it.
    """
    writes = Counter(tuple(paths) for what, *paths in operations if what == "write")
    numbers, seen = [], Counter[tuple[str, ...]]()
    for number, (what, *paths) in enumerate(operations, 1):
        written = tuple(paths)
        if what == "write":
            seen[written] += 1
            if seen[written] % WRITES != 1 and seen[written] != writes[written]:
                continue
        if place is None or any(os.path.abspath(path).startswith(str(place)) for path in paths):  # noqa: PTH100
            numbers.append(number)
    return numbers


class Bench:
    """A writer, what it writes if nothing fails, and a place for it to write into."""

    def __init__(self, writer: Writer, sources: Path, directory: Path) -> None:
        self.writer, self.sources = writer, sources
        self.old, self.place, self.note, self.kept = (directory / name for name in ("old", "place", "note", "kept"))
        self.kept.mkdir()
        self.old.mkdir()
        done = attempt(writer, sources, self.old)
        self.new = visible(self.old)
        assert done.code == 0, f"the writer fails by itself: {done.said}"
        age(self.old)

    def operations(self, replaces: bool) -> list[list[str]]:
        """Returns what the writer does to files, in order: of each operation its name and its paths."""
        with self._placed(replaces):
            done = self._attempt(0, replaces)
            assert done.code == 0, f"the writer fails if it is watched: {done.said}"
            return [json.loads(line) for line in self.note.read_text(encoding="utf-8").splitlines()]

    def trial(self, number: int, replaces: bool) -> dict[str, Any] | None:
        """Fails one operation, and looks; what is left, the same command cleans up. None: there was no such operation."""
        with self._placed(replaces):
            before = visible(self.place)
            ended = self._attempt(number, replaces)
            if not self.note.exists():
                return None
            operation, *_ = json.loads(self.note.read_text(encoding="utf-8"))
            fault = ended.fault or _left(self.writer, ended, self.place, before, self.new) or unsound(self.place)
            fault = fault or self._again(ended.code == 0)
            return {"operation": operation, "code": ended.code, "said": ended.said[-300:], "fault": fault}

    def _again(self, done: bool) -> str | None:
        """What is wrong after the same command, where something was left that could not be removed. ``done``: all was written."""
        if not hidden(self.place):
            return None
        if not can_replace(self.writer):
            remove_visible(self.place)
        again = attempt(self.writer, self.sources, self.place)
        if again.code and not (done and refused(again)):
            return f"again: {again.said}"
        return f"left {left}" if (left := hidden(self.place)) else None

    def _attempt(self, number: int, replaces: bool) -> Attempt:
        watch = Operations((self.place, self.sources), number, self.note, self.kept)
        return attempt(over(self.writer) if replaces else self.writer, self.sources, self.place, arm=watch.arm)

    @contextmanager
    def _placed(self, replaces: bool) -> Iterator[None]:
        """There is a place, empty or with what an earlier run wrote."""
        if replaces:
            shutil.copytree(self.old, self.place)
        else:
            self.place.mkdir()
        try:
            yield
        finally:
            shutil.rmtree(self.place)
            self.note.unlink(missing_ok=True)


def _left(writer: Writer, ended: Attempt, place: Path, before: frozenset[str], new: frozenset[str]) -> str | None:
    expected = new if ended.code == 0 else before
    if (seen := visible(place)) != expected and not (seen == new and writer in BEFORE_THE_END):
        missing, more = sorted(expected - seen)[:3], sorted(seen - expected)[:3]
        return f"ended with {ended.code}; missing: {missing}; more: {more}"
    return f"left {hidden(place)}" if ended.code and hidden(place) else None


if __name__ == "__main__":
    print_rows(argparse.ArgumentParser(description=__doc__), trials)
