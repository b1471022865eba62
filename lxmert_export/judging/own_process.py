"""Runs an artifact in a separate process with a time limit, so that a runtime that crashes or hangs stops nothing else."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import IO, Protocol, TypeVar

from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.targets import TARGETS
from lxmert_export.errors import InputWarning, LxmertExportError, RuntimeFailed
from lxmert_export.option_names import option
from lxmert_export.progress import Progress, silent

AnswerT = TypeVar("AnswerT", covariant=True)
ROOT = Path(__file__).resolve().parents[2]  # where this package lies
TIME_LIMIT = 1800  # the default, in seconds
IN_THIS_PROCESS = "judge in this process, with time_limit=None (or save the model as a checkpoint)"
# As Python's option -P, which Python 3.10 lacks: the empty place is the working directory.
LAUNCH = (
    "import runpy, sys; sys.path[:] = [place for place in sys.path if place]; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
MARK = "lxmert-export-progress"  # begins a line of progress on the child's stdout; other lines are ignored


class Runnable(Protocol[AnswerT]):
    """A request that another process can run. Both the request and its answer are pickled."""

    @property
    def artifact(self) -> Artifact:
        """The artifact that is run; errors name it."""

    def run(self, progress: Progress = silent) -> AnswerT:
        """Runs the request in this process."""


def run_within(request: Runnable[AnswerT], time_limit: float | None, progress: Progress = silent) -> AnswerT:
    """Runs a request in a separate process for at most ``time_limit`` seconds; if that is None, in this process.

    ``RuntimeFailed``: the process crashed or took longer. Errors of this package that the request raises are raised here.
    """
    if time_limit is None:
        return request.run(progress)
    with tempfile.TemporaryDirectory(prefix="lxmert-export-judging-") as place:
        asked, answered = Path(place) / "request", Path(place) / "answer"
        _write_request(request, asked)
        with _child(asked, answered) as child:
            try:
                in_time = _wait(child, time.monotonic() + time_limit, progress)
            finally:
                child.kill()
        if not in_time:
            raise RuntimeFailed(
                f"{request.artifact.path}: did not end within {time_limit:g} s; {option('time_limit')} allows more"
            )
        if not answered.is_file():
            raise RuntimeFailed(f"{request.artifact.path}: its runtime {_end(child.returncode)}")
        # Safe to unpickle: our own child wrote it, where only we can write.
        answer: AnswerT | LxmertExportError = pickle.loads(answered.read_bytes())
    if isinstance(answer, LxmertExportError):
        raise answer
    return answer


def _write_request(request: Runnable[AnswerT], asked: Path) -> None:
    """Writes a request with its target's row: that may come from a module that the child does not import.

    ``RuntimeFailed``: it cannot be pickled, such as a module with a hook.
    """
    try:
        with asked.open("wb") as file:
            pickle.dump((request.artifact.target, request), file, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RuntimeFailed(f"{IN_THIS_PROCESS}: this model cannot be sent to another: {error}") from error


def _child(asked: Path, answered: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        child_command("lxmert_export.judging.own_process", str(asked), str(answered)),
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def child_command(module: str, *arguments: str) -> list[str]:
    """Returns the command that runs a module in a child which does not look for modules in its working directory."""
    return [sys.executable, "-c", LAUNCH, module, *arguments]


def child_environment() -> dict[str, str]:
    """Returns the environment in which a child finds modules where this process does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*(place for place in sys.path if place), str(ROOT)])}


def _wait(child: subprocess.Popen[str], deadline: float, progress: Progress) -> bool:
    """Passes on the child's progress until the child ends. Returns False if it does not end in time."""
    assert child.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            return False
        if line is None:
            break
        if line.startswith(MARK):
            _, done, total, step = line.rstrip("\n").split("\t")
            progress(step, int(done), int(total))
    try:
        child.wait(timeout=max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        return False
    return True


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    try:
        for line in stream:
            lines.put(line)
    finally:
        lines.put(None)


def _end(code: int) -> str:
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    return f"ended its process with exit code {code}"


def _report(step: str, done: int, total: int) -> None:
    sys.stdout.write(f"{MARK}\t{done}\t{total}\t{step}\n")
    sys.stdout.flush()


def main() -> None:
    """Runs in the child: reads a request, runs it, and writes its answer or the error of this package that it raised."""
    asked, answered = map(Path, sys.argv[1:])
    answer: object
    warnings.simplefilter("ignore", InputWarning)  # whoever asked reads the same inputs, and says it
    try:
        request = _read_request(asked)
        answer = request.run(_report)
    except LxmertExportError as error:
        answer = error
    unfinished = answered.with_suffix(".unfinished")
    unfinished.write_bytes(pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL))
    unfinished.rename(answered)


def _read_request(asked: Path) -> Runnable[object]:
    """Reads a request, and enters its target. ``RuntimeFailed``: it holds an object of a module that is not found here."""
    try:
        with asked.open("rb") as file:
            target, request = pickle.load(file)
    except (AttributeError, ImportError) as error:
        raise RuntimeFailed(f"{IN_THIS_PROCESS}: another process cannot read the request: {error}") from error
    TARGETS[target.name] = target
    loaded: Runnable[object] = request
    return loaded


if __name__ == "__main__":
    main()
