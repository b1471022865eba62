"""TensorRT through Polygraphy: one of its two runtimes in the life of a process, and its log turned into errors of ours.

Polygraphy decides when it is imported whether ``tensorrt`` means TensorRT-RTX or the classic one; nothing else imports it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from lxmert_export.engines.device_kinds import Runtime
from lxmert_export.engines.devices import EngineDevice, check_local_gpu
from lxmert_export.engines.profiles import Profile
from lxmert_export.errors import ConversionError, LxmertExportError, MissingExtra
from lxmert_export.extras import POLYGRAPHY, TENSORRT, TENSORRT_RTX, Library, missing
from lxmert_export.native_logs import quiet_native_logs

LIBRARIES: dict[Runtime, Library] = {"tensorrt-rtx": TENSORRT_RTX, "tensorrt": TENSORRT}
RTX_SWITCH = "POLYGRAPHY_USE_TENSORRT_RTX"
LOGGER = "Polygraphy"  # the name under which it uses Python's logging
# "2." is CUDA's number for it, which Polygraphy tells as it is
OUT_OF_MEMORY = ("outofmemory", "out of memory", "bad_alloc", "insufficient memory", "cuda error: 2.")

_counting = threading.Lock()
_inside, _propagated = 0, True


@dataclass(frozen=True)
class Engine:
    """An engine's file and hash, the runtime that built it, its version and the line that installs it, and the sizes it takes.

    ``gpu`` is the machine that it is to run on: its GPUs and their drivers.
    """

    file: Path
    sha256: str
    runtime: Runtime
    install: str
    version: str
    profiles: tuple[Profile, ...]
    gpu: str


def open_builder(device: EngineDevice) -> ModuleType:
    """The module that is to build an engine for a target: of a version that the target takes, and on a GPU of its kind.

    ``MissingExtra``: it is not installed. ``ConversionError``: it is of another version, or this machine is another device.
    """
    on_device = device.built == "on the device"
    elsewhere = " on the device; --bundle writes here what it builds from" if on_device else ""
    library = open_library(device.runtime, device.install + elsewhere)
    if (installed := library_version(library)) not in device.versions:
        raise ConversionError(
            f"--target {device.name} takes {device.runtime} {device.versions}, and {installed} is installed: "
            f"{device.install}{elsewhere}"
        )
    if on_device:
        check_local_gpu(device)
    return library


def open_library(runtime: Runtime, install: str) -> ModuleType:
    """The module of a runtime, Polygraphy set to use it; ``install`` is the line that brings both.

    ``MissingExtra``: one of them is not installed. ``ConversionError``: this process uses the other runtime already.
    """
    require_library(runtime, install)
    os.environ[RTX_SWITCH] = "1" if runtime == "tensorrt-rtx" else "0"
    with quiet_native_logs():
        config = import_module("polygraphy.config")
        if bool(config.USE_TENSORRT_RTX) is not (runtime == "tensorrt-rtx"):
            raise ConversionError(
                f"this process uses the other TensorRT already: open {runtime} in a process of its own"
            )
        log = import_module("polygraphy.logger").G_LOGGER
        log.use_python_logging_system, log.colors = True, False
        return import_module(LIBRARIES[runtime].module)


def require_library(runtime: Runtime, install: str) -> None:
    """``MissingExtra`` unless a runtime and Polygraphy are installed; imports neither."""
    if missing([LIBRARIES[runtime], POLYGRAPHY]):
        raise MissingExtra("building and running engines", runtime, install=install)


def prepare_polygraphy() -> None:
    """Before Polygraphy is imported for what needs no TensorRT: sets it to the one installed, so that engines open here, too."""
    os.environ.setdefault(RTX_SWITCH, "0" if missing([TENSORRT_RTX]) else "1")


@contextmanager
def as_one_error(
    what: str, error: type[LxmertExportError] = ConversionError, *, quiet: bool = True
) -> Iterator[LoggedErrors]:
    """Keeps TensorRT's log off the terminal; a failure of Polygraphy's becomes one line: ``what``, and what the log said.

    Without ``quiet`` only the log is kept off, and not what else is written to stderr: that takes a file each time, and turns.
    """
    from polygraphy.exception import PolygraphyException

    said = LoggedErrors()
    try:
        with _kept_off_the_terminal(said), _quiet() if quiet else nullcontext():
            yield said
    except (PolygraphyException, MemoryError) as failure:
        raise error(f"{what}: {said.reason(failure)}") from failure


@contextmanager
def interrupt_kept() -> Iterator[None]:
    """Raises a Ctrl-C that comes meanwhile at the end: TensorRT's callbacks into Python would lose it without a word."""
    heeded = signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None)
    if threading.current_thread() is not threading.main_thread() or not heeded:
        yield  # where no signal arrives, or none is to be heeded
        return
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed.is_set():
            raise KeyboardInterrupt


@contextmanager
def _kept_off_the_terminal(said: LoggedErrors) -> Iterator[None]:
    """What is logged goes to ``said`` alone. Threads may be inside at once: the last one out leaves the log as it was."""
    global _inside, _propagated
    logger = logging.getLogger(LOGGER)
    with _counting:
        if _inside == 0:
            _propagated, logger.propagate = logger.propagate, False
        _inside += 1
        logger.addHandler(said)
    try:
        yield
    finally:
        with _counting:
            logger.removeHandler(said)
            _inside -= 1
            if _inside == 0:
                logger.propagate = _propagated


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither chatter on stderr, nor warnings of Polygraphy's own use of what TensorRT-RTX deprecates; one thread at a time."""
    with quiet_native_logs(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


class LoggedErrors(logging.Handler):
    """What was logged as an error, in order."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Remembers a record, in one line."""
        self.lines.append(" ".join(record.getMessage().split()))

    def reason(self, failure: BaseException) -> str:
        """The first line, which is the cause; what came after is what came of it."""
        everything = " ".join(self.lines).lower()
        if isinstance(failure, MemoryError) or any(sign in everything for sign in OUT_OF_MEMORY):
            return "out of memory; build a narrower profile, or half precision, or on a larger machine"
        return self.first(str(failure) or type(failure).__name__)

    def first(self, otherwise: str) -> str:
        """The first line, without its mark; ``otherwise`` where nothing was logged."""
        return (self.lines or [otherwise])[0].removeprefix("[E] ").removeprefix("[!] ").removesuffix(".")


def library_version(module: Any) -> str:
    """The version of a runtime, as the manifest holds it."""
    return str(module.__version__)
