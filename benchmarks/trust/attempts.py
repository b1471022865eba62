"""Runs a writer of the table in a process forked for it, and tells what it said and what is there afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.trust.full_disks import prepare, run
from benchmarks.trust.remembered import remember_computing
from benchmarks.trust.writers import WRITERS, Writer
from lxmert_export.artifact.directory import is_artifact, open_artifact
from lxmert_export.errors import LxmertExportError

ROOT = Path(__file__).parent.parent.parent
OLD, LONG_AGO = " (old)", 1_000_000  # what files of an earlier run are marked with: the time of their last change
REPLACING = ("convert", "onnx", "tensorflow", "tflite", "tensorrt")  # commands that replace with --overwrite


@dataclass(frozen=True)
class Attempt:
    """How a writer ended, in how many seconds, and what it said. ``code`` is negative if a signal ended it."""

    code: int
    said: str
    seconds: float

    @property
    def fault(self) -> str | None:
        """What is wrong with how it ended; None if it is done, or said in one line why not."""
        lines = self.said.strip().splitlines()
        if self.code in (0, 1) and (self.code == 0 or (len(lines) == 1 and lines[0].startswith("error: "))):
            return None
        return f"ended with {self.code} and {len(lines)} lines, the last: {lines[-1][:200] if lines else ''}"


def rows_of(program: str, sources: Path, *arguments: str) -> list[dict[str, Any]]:
    """Runs a program of this package, which forks, in a process of its own; returns the rows that it prints as JSON."""
    command = [sys.executable, "-m", f"benchmarks.trust.{program}", str(sources), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program} {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def print_rows(parser: ArgumentParser, trials: Callable[..., Iterator[dict[str, Any]]], *numbers: str) -> None:
    """Such a program: of the writer that is named after SOURCES, with the numbers that follow."""
    parser.add_argument("sources", type=Path)
    parser.add_argument("writer", choices=WRITERS)
    for number in numbers:
        parser.add_argument(number, type=int)
    chosen = parser.parse_args()
    writer, sources = WRITERS[chosen.writer], chosen.sources.absolute()
    prepare(writer, sources)
    with tempfile.TemporaryDirectory(prefix="lxmert-export-computed-") as place, remember_computing(Path(place)):
        for found in trials(writer, sources, *(getattr(chosen, number) for number in numbers)):
            print(json.dumps(found), flush=True)


def attempt(
    writer: Writer,
    sources: Path,
    place: Path,
    *,
    arm: Callable[[], None] | None = None,
    kill_after: float | None = None,
) -> Attempt:
    """Runs a writer. ``arm`` prepares its process; ``kill_after`` seconds it is killed, unless it has ended."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            if arm is not None:
                arm()
            os._exit(run(writer, sources, place, said.fileno(), checked=True))
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        took = time.perf_counter() - began
        said.seek(0)
        return Attempt(os.waitstatus_to_exitcode(status), said.read().decode(errors="replace"), took)


def refused(again: Attempt) -> bool:
    """Whether it ended because the output is there, which only --overwrite replaces."""
    return again.code == 1 and "exists already" in again.said


def over(writer: Writer) -> Writer:
    """Returns the writer with --overwrite, if its command has that."""
    can = writer.words.split()[:1] and writer.words.split()[0] in REPLACING
    return replace(writer, words=f"{writer.words} --overwrite") if can else writer


def can_replace(writer: Writer) -> bool:
    """Whether it replaces a directory that an earlier run wrote."""
    return over(writer) is not writer


def age(place: Path) -> None:
    """Marks the outputs that are there as those of an earlier run."""
    for file in (path for path in place.rglob("*") if path.is_file()):
        os.utime(file, (LONG_AGO, LONG_AGO))


def visible(place: Path) -> frozenset[str]:
    """The names of all files that are not below a hidden name, with a mark behind those of an earlier run."""
    found = {path.relative_to(place): path.stat().st_mtime for path in place.rglob("*") if path.is_file()}
    return frozenset(
        f"{name.as_posix()}{OLD if changed == LONG_AGO else ''}"
        for name, changed in found.items()
        if not any(part.startswith(".") for part in name.parts)
    )


def remove_visible(place: Path) -> None:
    """Removes what has its final name."""
    for path in [path for path in place.iterdir() if not path.name.startswith(".")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def hidden(place: Path) -> list[str]:
    """What runs keep under hidden names while they write."""
    return sorted(path.name for path in place.iterdir() if path.name.startswith("."))


def unsound(place: Path) -> str | None:
    """Why an artifact that is there cannot be opened; None if all can."""
    for directory in place.iterdir():
        if is_artifact(directory) and not directory.name.startswith("."):
            try:
                open_artifact(directory)
            except LxmertExportError as error:
                return str(error)
    return None
