"""Each contestant's process, from the outside: starts it, asks it, and stops it if it takes too long."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from multiprocessing import Pipe
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from lxmert_export.artifact.targets import TARGETS
from lxmert_export.benching.turns import Call
from lxmert_export.benching.worker import Begin, Opens
from lxmert_export.errors import LxmertExportError, RuntimeFailed
from lxmert_export.judging.own_process import child_command, child_environment
from lxmert_export.option_names import option
from lxmert_export.spec.halves import Half
from lxmert_export.spec.inputs import Arrays

if TYPE_CHECKING:
    from typing_extensions import Self

# By these variables BLAS, OpenMP and TensorFlow choose their numbers of threads as they start.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
ONE_AT_A_TIME = "TF_NUM_INTEROP_THREADS"  # TensorFlow: operators that run at the same time


class Worker:
    """One contestant in a process of its own. A context manager, which ends the process.

    ``startup_seconds``: from the start of the process until the contestant was open, Python's own start included.
    ``RuntimeFailed``: the process crashed, or took longer than ``time_limit`` seconds for one answer. The message names it.
    """

    def __init__(self, name: str, opens: Opens, *, threads: int, time_limit: float) -> None:
        self.name, self._time_limit = name, time_limit
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (``close`` closes it)
        self._connection, there = Pipe()
        started = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                child_command("lxmert_export.benching.worker", str(there.fileno())),
                env=_environment(threads), pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, stdout=self._said,
                stderr=self._said,
            )  # fmt: skip
        finally:
            there.close()
        try:
            self._ask_for(Begin(opens, threads, dict(TARGETS)))
        except BaseException:
            self.close()
            raise
        self.startup_seconds = time.perf_counter() - started

    def load(self, inputs: Arrays, half: Half | None = None) -> None:
        """Gives it the inputs of the next calls; ``half``: of which half of a split artifact they are."""
        self._ask_for(("load", inputs, half))

    def call(self) -> Call:
        """Has it compute once."""
        call: Call = self._ask_for(("call",))
        return call

    def outputs(self) -> Arrays:
        """Returns the outputs of its last call."""
        outputs: Arrays = self._ask_for(("outputs",))
        return outputs

    def peak_bytes(self) -> int:
        """Returns the most memory that its process has held."""
        peak: int = self._ask_for(("peak_bytes",))
        return peak

    def _ask_for(self, request: object) -> Any:
        try:
            self._connection.send(request)
            if not self._connection.poll(self._time_limit):
                self._process.kill()
                raise RuntimeFailed(
                    f"{self.name}: did not answer within {self._time_limit:g} s; {option('time_limit')} allows more"
                )
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeFailed(f"{self.name}: its process {self._end()}") from error
        if isinstance(answer, LxmertExportError):
            raise _named(answer, self.name)
        return answer

    def _end(self) -> str:
        """How the process ended, and the last line that it wrote."""
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        how = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
        return f"{how}: {lines[-1].strip()}" if lines else how

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _environment(threads: int) -> dict[str, str]:
    return {**child_environment(), **dict.fromkeys(THREAD_VARIABLES, str(threads)), ONE_AT_A_TIME: "1"}


def _named(error: LxmertExportError, name: str) -> LxmertExportError:
    """The error with the contestant's name, unless the message has it."""
    if name not in str(error):
        error.args = (f"{name}: {error}",)
    return error
