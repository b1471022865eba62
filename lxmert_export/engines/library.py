"""Opens TensorRT through Polygraphy, and turns its log into our errors.

A process can use only one of the two runtimes: Polygraphy decides when it is imported whether ``tensorrt`` means TensorRT-RTX or
classic TensorRT. So Polygraphy is imported only after ``open_library`` or ``prepare_polygraphy`` has chosen the runtime.
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
from lxmert_export.engines.gpus import written
from lxmert_export.engines.profiles import Profile
from lxmert_export.errors import ConversionError, LxmertExportError, MissingExtra
from lxmert_export.extras import POLYGRAPHY, TENSORRT, TENSORRT_RTX, Library, missing
from lxmert_export.native_logs import quiet_native_logs

LIBRARIES: dict[Runtime, Library] = {"tensorrt-rtx": TENSORRT_RTX, "tensorrt": TENSORRT}
RTX_SWITCH = "POLYGRAPHY_USE_TENSORRT_RTX"
LOGGER = "Polygraphy"  # the name of its logger in Python's logging
# "cuda error: 2." is how Polygraphy reports CUDA's code for out of memory
OUT_OF_MEMORY = ("outofmemory", "out of memory", "bad_alloc", "insufficient memory", "cuda error: 2.")

_counting = threading.Lock()
_inside, _propagated = 0, True


@dataclass(frozen=True)
class Engine:
    """An engine's file and hash, the runtime that built it (with version and install command), and its profiles.

    ``gpu`` describes the machine that is to run the engine: its GPUs and their drivers.
    """

    file: Path
    sha256: str
    runtime: Runtime
    install: str
    version: str
    profiles: tuple[Profile, ...]
    gpu: str


def open_builder(device: EngineDevice) -> ModuleType:
    """Imports the runtime that builds an engine for a target.

    Raises ``MissingExtra`` if the runtime is not installed. Raises ``ConversionError`` if the target does not take the installed
    version, or if the engine must be built on the device and this machine is not such a device.
    """
    if device.name == "this-gpu" and device.kind == "datacenter" and missing([TENSORRT]):
        capability = ", ".join(map(written, device.compute_capabilities))
        raise ConversionError(
            f"--target this-gpu: TensorRT-RTX does not run on this GPU (compute capability {capability}), and classic TensorRT, "
            f"which does, is not installed ({device.install}): run the ONNX artifact @cuda instead, made with --optimize-for cuda"
        )
    on_device = device.built == "on the device"
    elsewhere = " on the device, or write a bundle for the device here with --bundle" if on_device else ""
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
    """Sets Polygraphy to use a runtime, and imports the runtime. ``install`` is the command that installs both.

    Raises ``MissingExtra`` if one of them is not installed. Raises ``ConversionError`` if this process uses the other runtime
    already.
    """
    require_library(runtime, install)
    os.environ[RTX_SWITCH] = "1" if runtime == "tensorrt-rtx" else "0"
    with quiet_native_logs():
        config = import_module("polygraphy.config")
        if bool(config.USE_TENSORRT_RTX) is not (runtime == "tensorrt-rtx"):
            raise ConversionError(f"this process uses the other TensorRT already: open {runtime} in a new process")
        log = import_module("polygraphy.logger").G_LOGGER
        log.use_python_logging_system, log.colors = True, False
        return import_module(LIBRARIES[runtime].module)


def require_library(runtime: Runtime, install: str) -> None:
    """Raises ``MissingExtra`` unless a runtime and Polygraphy are installed; imports neither."""
    if missing([LIBRARIES[runtime], POLYGRAPHY]):
        raise MissingExtra("building and running engines", runtime, install=install)


def prepare_polygraphy() -> None:
    """Sets Polygraphy to the installed runtime. Call this before an import of Polygraphy for work that needs no TensorRT.

    Otherwise engines might not open later in the same process.
    """
    os.environ.setdefault(RTX_SWITCH, "0" if missing([TENSORRT_RTX]) else "1")


@contextmanager
def as_one_error(
    what: str, error: type[LxmertExportError] = ConversionError, *, quiet: bool = True
) -> Iterator[LoggedErrors]:
    """Keeps TensorRT's log off the terminal, and turns a failure in Polygraphy into ``error``: ``what``, then the log's reason.

    With ``quiet``, everything that native code writes to stderr is kept off, too. That costs a file each time, and only one
    thread at a time can do it.
    """
    from polygraphy.exception import PolygraphyException

    logged = LoggedErrors()
    try:
        with _kept_off_the_terminal(logged), _quiet() if quiet else nullcontext():
            yield logged
    except (PolygraphyException, MemoryError) as failure:
        raise error(f"{what}: {logged.reason(failure)}") from failure


@contextmanager
def interrupt_kept() -> Iterator[None]:
    """Delays a Ctrl-C to the end of the block: TensorRT's callbacks into Python would silently lose it."""
    handled = signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None)
    if threading.current_thread() is not threading.main_thread() or not handled:
        yield  # signals do not arrive in this thread, or Ctrl-C is ignored
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
def _kept_off_the_terminal(handler: LoggedErrors) -> Iterator[None]:
    """Sends the log to ``handler`` only. Several threads may be inside at once: the last one to leave restores the logger."""
    global _inside, _propagated
    logger = logging.getLogger(LOGGER)
    with _counting:
        if _inside == 0:
            _propagated, logger.propagate = logger.propagate, False
        _inside += 1
        logger.addHandler(handler)
    try:
        yield
    finally:
        with _counting:
            logger.removeHandler(handler)
            _inside -= 1
            if _inside == 0:
                logger.propagate = _propagated


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides native stderr output, and warnings that Polygraphy uses deprecated parts of TensorRT-RTX; one thread at a time."""
    with quiet_native_logs(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


class LoggedErrors(logging.Handler):
    """Collects what is logged as an error, in order."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record, as one line."""
        self.lines.append(" ".join(record.getMessage().split()))

    def reason(self, failure: BaseException) -> str:
        """Returns advice if memory ran out, otherwise the first error: later ones follow from the first."""
        everything = " ".join(self.lines).lower()
        if isinstance(failure, MemoryError) or any(sign in everything for sign in OUT_OF_MEMORY):
            return "out of memory; build a narrower profile, in half precision, or on a larger machine"
        return self.first(str(failure) or type(failure).__name__)

    def first(self, otherwise: str) -> str:
        """Returns the first error without its ``[E]`` or ``[!]``, or ``otherwise`` if nothing was logged."""
        return (self.lines or [otherwise])[0].removeprefix("[E] ").removeprefix("[!] ").removesuffix(".")


def library_version(module: Any) -> str:
    """Returns the version of a runtime's module, as the manifest records it."""
    return str(module.__version__)
