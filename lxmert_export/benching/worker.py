"""The process of one contestant: opens it, then loads inputs, calls it, and gives its outputs, as it is asked."""

from __future__ import annotations

import os
import sys
import time
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from lxmert_export.artifact.targets import TARGETS, Target
from lxmert_export.benching.turns import Call
from lxmert_export.errors import ArtifactError, InputWarning, LxmertExportError, first_line
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.halves import Half
from lxmert_export.spec.inputs import Arrays, prepare_inputs


class Opens(Protocol):
    """Opens a contestant in its own process. It is pickled, so its class must be importable there."""

    def __call__(self, threads: int) -> Runner:
        """Returns the opened runner, which computes with so many threads."""


@dataclass(frozen=True)
class Begin:
    """The first message: what to open, with how many threads, and the table of targets."""

    opens: Opens
    threads: int
    targets: dict[str, Target]


class Contest:
    """The contestant's side: one runner, and the inputs that are loaded."""

    def __init__(self, runner: Runner) -> None:
        self._runner = self._called = runner
        self._inputs: Arrays = {}
        self._outputs: Arrays = {}

    def load(self, inputs: Arrays, half: Half | None = None) -> None:
        """Keeps inputs for the next calls, cast to the dtypes of the contestant's own signature.

        ``half``: ``vision`` or ``question``, the half of a split artifact that the next calls are of.
        """
        self._called = self._runner if half is None else getattr(self._runner, half)
        self._inputs = prepare_inputs(inputs, self._called.signature, self._called.limits)
        shapes = {name: array.shape for name, array in self._inputs.items()}
        if self._called.pieces(shapes) is None:
            listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise ArtifactError(f"takes no call of these shapes: {listed}")

    def call(self) -> Call:
        """Computes the loaded inputs once."""
        busy, started = time.process_time(), time.perf_counter()
        self._outputs = self._called.compute(self._inputs)
        return Call(time.perf_counter() - started, time.process_time() - busy)

    def outputs(self) -> Arrays:
        """Returns the outputs of the last call."""
        return self._outputs

    def peak_bytes(self) -> int:
        """Returns the most memory that this process has held: its resident set, with the pages of files that it maps."""
        return peak_bytes()

    def failures(self) -> tuple[type[Exception], ...]:
        """What the runtime may raise on a call."""
        return self._runner.failures


def peak_bytes() -> int:
    """Returns the peak of this process's resident set.

    Linux's own count of this process (VmHWM) is taken where there is one: the other also counts what the parent held when it
    started the process.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource  # of Unix alone

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else 1024 * used


def main() -> None:
    """Opens the contestant, then answers requests until the connection ends. An error of this package is an answer, too."""
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    warnings.simplefilter("ignore", InputWarning)
    begin: Begin = connection.recv()
    TARGETS.update(begin.targets)
    try:
        contest = Contest(begin.opens(begin.threads))
    except LxmertExportError as error:
        connection.send(error)
        return
    connection.send(None)
    while True:
        try:
            asked, *values = connection.recv()
        except EOFError:
            break
        try:
            answer = getattr(contest, asked)(*values)
        except LxmertExportError as error:
            answer = error
        except contest.failures() as error:
            answer = ArtifactError(f"failed while it ran: {first_line(error)}")
        connection.send(answer)
    os._exit(0)  # some runtimes take seconds to free what the system frees at once


if __name__ == "__main__":
    main()
