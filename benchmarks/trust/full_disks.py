"""Runs a writer on disks of many sizes that are too small for it, and tells what it left and said.

    python -m benchmarks.trust.full_disks SOURCES [WRITER …] [--sizes 64] [--brief]

Prints a line of JSON for each size. Disks are memory (tmpfs), so it needs the right to mount. A program of its own: it forks
once a size, so that libraries are imported once. SOURCES is a directory for what writers read; what is not there is made.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from pathlib import Path
from unittest import mock

from benchmarks.trust.remembered import remember_computing
from benchmarks.trust.writers import WRITERS, Writer, make_sources, words_of

PAGE = os.sysconf("SC_PAGE_SIZE")  # a disk in memory grows by whole pages
AMPLE, MANY = 1 << 16, 1 << 10  # pages and files: more than any writer of the table needs
UNEXPECTED = 70  # the exit code of an error that nobody expected
SET_BY_USE = ("tensorrt", "polygraphy")  # which of the two TensorRTs Polygraphy speaks to is decided as it is imported
BALLAST = "ballast"  # fills the one page without which the disk would have no limit


@dataclass(frozen=True)
class Outcome:
    """What a writer did on a disk with room for so many pages and files; ``checked``: it looked for space before it began."""

    pages: int
    files: int
    checked: bool
    code: int
    said: str
    left: list[str]

    @property
    def fault(self) -> str | None:
        """What is wrong with it; None if it wrote everything, or said in one line that it could not and left nothing."""
        if self.code == 0:
            hidden = [name for name in self.left if "/." in f"/{name}"]
            return f"left {hidden}" if hidden else None
        lines = self.said.strip().splitlines()
        if self.code != 1:
            return f"ended with {self.code}"
        if len(lines) != 1 or not lines[0].startswith("error: "):
            return f"said {len(lines)} lines"
        return f"left {self.left}" if self.left else None


@contextmanager
def disk(pages: int, files: int = MANY) -> Iterator[Path]:
    """Yields a directory with room for so many pages and files. ``PermissionError``: this process may not mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory(prefix="full-disk-") as place:
        options = f"size={(pages + 1) * PAGE},nr_inodes={files + 2},mode=755".encode()
        if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, options) != 0:
            raise PermissionError(ctypes.get_errno(), f"no disk can be mounted: {os.strerror(ctypes.get_errno())}")
        try:
            (Path(place) / BALLAST).write_bytes(bytes(PAGE))
            yield Path(place)
        finally:
            libc.umount2(os.fsencode(place), 2)  # also if something in it is still open


def prepare(writer: Writer, sources: Path) -> None:
    """Makes what a writer reads, and imports here what it imports, in the same order."""
    with tempfile.TemporaryDirectory() as place:
        modules = Path(place) / "modules"
        child = os.fork()
        if child == 0:
            try:
                make_sources(writer, sources)
                with tempfile.TemporaryDirectory() as out, tempfile.TemporaryFile() as said:
                    run(writer, sources, Path(out), said.fileno(), checked=True)
                modules.write_text("\n".join(sys.modules))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        for name in modules.read_text().splitlines():
            if not name.startswith(SET_BY_USE):
                with suppress(Exception):  # a few cannot be imported by themselves
                    importlib.import_module(name)


def sizes_of(writer: Writer, sources: Path, count: int, *, ends: bool = True) -> list[int]:
    """Returns ``count`` sizes from nothing to all of a writer's output, in pages.

    With ``ends`` also the sizes at which a file is just written, and those of one page less.
    """
    with disk(AMPLE) as place:
        outcome = attempt(writer, sources, place, AMPLE, MANY, checked=True)
        assert outcome.code == 0, f"the writer fails on a disk that is large enough: {outcome.said}"
        files = [path for path in place.rglob("*") if path.is_file() and path.name != BALLAST]
        files.sort(key=lambda path: path.stat().st_mtime_ns)
        written = [*accumulate(-(-path.stat().st_size // PAGE) for path in files)]
    sizes = {round(written[-1] * number / max(1, count - 1)) for number in range(count)}
    return sorted(sizes | {end - less for end in written for less in (0, 1) if ends})


def attempt(writer: Writer, sources: Path, place: Path, pages: int, files: int, *, checked: bool) -> Outcome:
    """Runs a writer in a process of its own. ``checked``: whether it may look for space before it begins."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os._exit(run(writer, sources, place, said.fileno(), checked=checked))
        _, status = os.waitpid(child, 0)
        said.seek(0)
        text = said.read().decode(errors="replace")
    left = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.name != BALLAST)
    return Outcome(pages, files, checked, os.waitstatus_to_exitcode(status), text, left)


def run(writer: Writer, sources: Path, place: Path, said: int, *, checked: bool) -> int:
    """Runs a writer with stderr in a file; returns its exit code."""
    from lxmert_export.cli.main import main
    from lxmert_export.errors import LxmertExportError

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(said, 2)
    os.chdir(sources)
    try:
        with nullcontext() if checked else mock.patch("shutil.disk_usage", return_value=mock.Mock(total=0)):
            if writer.call is not None:
                writer.call(sources, place)
            else:
                sys.argv = ["lxmert-export", *words_of(writer, place)]
                main()
        return 0
    except SystemExit as end:
        return int(end.code or 0)
    except LxmertExportError as error:  # what the command line prints
        sys.stderr.write(f"error: {error}\n")
        return 1
    except BaseException:  # noqa: BLE001  (whatever it is, the trial shows it)
        traceback.print_exc()
        return UNEXPECTED
    finally:
        sys.stderr.flush()


def trials(writer: Writer, sources: Path, pages: Sequence[int]) -> Iterator[Outcome]:
    """Runs a writer on a disk of each size without its look for space before it begins, and on each eighth with it."""
    for number, size in enumerate(pages):
        for checked in (False, True) if number % 8 == 0 else (False,):
            with disk(size) as place:
                yield attempt(writer, sources, place, size, MANY, checked=checked)


def trials_of_few_files(writer: Writer, sources: Path) -> Iterator[Outcome]:
    """Runs a writer on disks with room for no file, one, two, … until all that it writes finds room."""
    for files in range(MANY):
        with disk(AMPLE, files) as place:
            outcome = attempt(writer, sources, place, AMPLE, files, checked=True)
        yield outcome
        if outcome.code == 0:
            return


def main() -> None:
    """Prints what came of each size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sources", type=Path)
    parser.add_argument("writers", nargs="*", metavar="WRITER", help=f"default: all of {', '.join(WRITERS)}")
    parser.add_argument("--sizes", type=int, default=64, help="how many sizes from nothing to all of the output")
    parser.add_argument(
        "--brief", action="store_true", help="leave out sizes at which a file ends, and room for few files"
    )
    chosen = parser.parse_args()
    for name in chosen.writers or WRITERS:
        writer, sources = WRITERS[name], chosen.sources.absolute()
        prepare(writer, sources)
        with (
            tempfile.TemporaryDirectory(prefix="lxmert-export-computed-") as computed,
            remember_computing(Path(computed)),
        ):
            sizes = sizes_of(writer, sources, chosen.sizes, ends=not chosen.brief)
            few = () if chosen.brief else trials_of_few_files(writer, sources)
            for outcome in chain(trials(writer, sources, sizes), few):
                print(json.dumps({"writer": name, **asdict(outcome), "fault": outcome.fault}), flush=True)


if __name__ == "__main__":
    main()
