"""Does once what takes an export its time, so that each of hundreds of attempts takes a second.

``remember_computing`` keeps what computes alone, and touches no file. ``Converted`` copies the files that a converter wrote in an
earlier attempt, and lets the converter itself run where one of its own file operations is to fail.
"""

from __future__ import annotations

import functools
import inspect
import pickle
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from unittest import mock

COMPUTING = (
    ("lxmert_export.reference.yardstick", "run_reference"),
    ("lxmert_export.reference.yardstick", "run_floors"),
)
TRACING = (("converters.to_onnx", "trace"),)
CONVERTERS = (
    ("lxmert_export.exporting.targets", "convert_to_onnx"),
    ("lxmert_export.exporting.targets", "convert_to_tensorflow"),
    ("lxmert_export.exporting.targets", "convert_to_tflite"),
    ("lxmert_export.exporting.engine", "convert_to_tensorrt"),
)


class Counter(Protocol):
    """Counts file operations: ``seen`` so far, and the one of ``number`` fails. ``busy``: nothing is counted."""

    seen: int
    number: int
    busy: bool


@contextmanager
def remember_computing(place: Path) -> Iterator[None]:
    """Graphs are traced once, and references computed once, for this process and those that are forked from it.

    One writer only: the n-th call of a function in a process gets what the n-th call of an earlier one got.
    """
    with ExitStack() as replaced:
        for holder, name in _imported(COMPUTING):
            remembered = Remembered(getattr(holder, name), place / name)
            replaced.enter_context(mock.patch.object(holder, name, remembered))
        for holder, name in _imported(TRACING):
            # Imports PyTorch, which a writer that converts nothing does without.
            from parity_tests.fixtures.traces import SharedTraces

            replaced.enter_context(mock.patch.object(holder, name, SharedTraces(getattr(holder, name), place)))
        yield


def _imported(functions: Iterable[tuple[str, str]]) -> Iterator[tuple[ModuleType, str]]:
    """Those whose modules are imported already: a writer uses no others."""
    return ((sys.modules[module], name) for module, name in functions if module in sys.modules)


@dataclass
class Remembered:
    """Takes the place of a function that only computes."""

    function: Callable[..., Any]
    place: Path
    calls: int = 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Computes, or returns what was computed before."""
        self.calls += 1
        file = self.place.with_name(f"{self.place.name}-{self.calls}")
        if not file.exists():
            file.write_bytes(pickle.dumps(self.function(*arguments, **options)))
        return pickle.loads(file.read_bytes())


def copy_conversions(place: Path, counter: Counter) -> None:
    """From now on in this process, converters copy what they wrote before, as ``Converted`` says."""
    for holder, name in _imported(CONVERTERS):
        setattr(holder, name, Converted(getattr(holder, name), place / name, counter))


@dataclass
class Converted:
    """Takes the place of a converter."""

    convert: Callable[..., Any]
    kept: Path
    counter: Counter
    signature: inspect.Signature = field(init=False)

    def __post_init__(self) -> None:
        self.signature = inspect.signature(self.convert)
        functools.update_wrapper(self, self.convert)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Converts, or copies: the counter has seen as many operations either way."""
        directory = self.signature.bind(*arguments, **options).arguments["directory"]
        before, told = self.counter.seen, self.kept.with_suffix(".told")
        if told.exists():
            returned, operations = pickle.loads(told.read_bytes())
            if not before < self.counter.number <= before + operations:
                self._apart(shutil.copytree, self.kept, directory, dirs_exist_ok=True)
                self.counter.seen += operations
                return returned
        returned = self.convert(*arguments, **options)
        if not told.exists():
            self._apart(shutil.copytree, directory, self.kept)
            self._apart(told.write_bytes, pickle.dumps((returned, self.counter.seen - before)))
        return returned

    def _apart(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        self.counter.busy = True
        work(*arguments, **options)
        self.counter.busy = False
