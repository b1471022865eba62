"""Kills a writer before each of its file operations, and prints what is there after the next run has cleaned up.

    python -m parity_tests.artifact.kill_steps WRITER PLACE

A program of its own: it forks, which a process with threads should not. Its lines are JSON: the step, and the contents of what
was written before and after the cleaning up.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lxmert_export.files.appearing_together import appearing_together, finish_killed_runs
from lxmert_export.files.atomic_directory import atomic_directory
from lxmert_export.files.atomic_files import replace_files, write_together

OPERATIONS = frozenset(("open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"))


def write_directory(place: Path, text: str, overwrite: bool) -> None:
    """Writes one directory."""
    with atomic_directory(place / "out", overwrite=overwrite) as temporary:
        (temporary / "manifest.json").write_text('{"target": "onnx", "files": {"file": {}}}')
        (temporary / "file").write_text(text)


def write_pair(place: Path, text: str, overwrite: bool) -> None:
    """Writes a directory and a file beside it."""
    with appearing_together(place / "out", place / "out.tar.gz", overwrite=overwrite) as (directory, archive):
        directory.mkdir()
        (directory / "file").write_text(text)
        archive.write_text(text)


def write_files(place: Path, text: str, overwrite: bool) -> None:
    """Writes four files."""
    names = ("a.json", "b.html", "c.xml", "d.md")
    replace_files(place, {name: text.encode() for name in names}, overwrite=overwrite)


def write_two_directories(place: Path, text: str, overwrite: bool) -> None:
    """Writes two files into each of two directories."""
    for name in ("a", "b"):
        (place / name).mkdir(exist_ok=True)
    paths = (place / "b" / "b.html", place / "a" / "a.json", place / "b" / "c.xml", place / "a" / "d.md")
    write_together({path: text.encode() for path in paths}, overwrite=overwrite)


WRITERS: dict[str, Callable[[Path, str, bool], None]] = {
    "directory": write_directory,
    "directory and archive": write_pair,
    "files": write_files,
    "two directories": write_two_directories,
}


def main() -> None:
    """Kills the writer at each step, once with and once without something to replace."""
    write, place = WRITERS[sys.argv[1]], Path(sys.argv[2])
    os.fsync = lambda _: None  # a kill loses nothing that was written; only the disk's time is saved
    for overwrite in (True, False):
        step, died = 0, True
        while died:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            if overwrite:
                write(place, "old", False)
            step, died = step + 1, _dies(partial(write, place, "new", overwrite), step + 1)
            found = state(place)
            left = leftovers(place)
            first, *others = _places(place, step)
            finish_killed_runs(first)
            after = state(place)
            for other in others:
                finish_killed_runs(other)
            told = {"step": step, "overwrite": overwrite, "killed": died, "left": left, "found": found}
            assert after == state(place), "a later run changes what the next one left"
            sys.stdout.write(json.dumps({**told, "after": after, "left_after": leftovers(place)}) + "\n")
            sys.stdout.flush()  # a child would print what is not printed yet once more


def _dies(act: Callable[[], None], step: int) -> bool:
    """Runs the act in another process, and kills it before its file operation of this number. False: it has fewer."""
    child = os.fork()
    if child == 0:
        seen = 0

        def watch(event: str, _: Any) -> None:
            nonlocal seen
            if event in OPERATIONS:
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            act()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the writer failed"
    return os.WIFSIGNALED(status)


def state(place: Path) -> list[str]:
    """The contents of everything that has its final name; of an artifact those of ``file`` in it."""
    found = [path for path in sorted(place.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    return [path.read_text() for path in found if not _is_hidden(path.relative_to(place))]


def leftovers(place: Path) -> list[str]:
    """The hidden names."""
    return sorted(path.name for path in place.rglob(".*"))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _places(place: Path, step: int) -> list[Path]:
    """Where runs write, another one first at every other step."""
    inner = [place / name for name in ("a", "b") if (place / name).is_dir()]
    return inner[:: 1 if step % 2 else -1] or [place]


if __name__ == "__main__":
    main()
