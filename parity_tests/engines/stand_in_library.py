"""A stand-in for TensorRT and Polygraphy: what the runner of engines calls, without a GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from lxmert_export.engines.devices import install_line
from lxmert_export.engines.library import Engine, open_library
from lxmert_export.engines.profiles import make_profiles
from lxmert_export.runners.tensorrt import engine as tensorrt_engine
from lxmert_export.runners.tensorrt.engine import REASONS, TensorRtRunner
from lxmert_export.runners.tensorrt.runtime_cache import SETTING
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.random_models import SMALL, inputs_for

SIGNATURE = task_signature(SMALL, "question-answering")


PROFILES = make_profiles(SMALL, SIGNATURE, batch=["1", "2:4:8"])


OUTPUT = SIGNATURE.outputs[0].name


BITS = {name: 1 << place for place, name in enumerate(REASONS)}


class StandIn:
    """A TensorRT-RTX that compiles one kernel for each context, and whose contexts answer with the number of the call."""

    __version__ = "1.7.1"
    EngineValidity = SimpleNamespace(VALID=0, SUBOPTIMAL=1, INVALID=2)
    EngineInvalidityDiagnostics = SimpleNamespace(__members__=BITS)

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.validity: tuple[int, int] = (0, 0)
        self.takes_kernels = True
        self.kernels: list[bytes] = []
        self.failing: dict[str, Callable[[], None]] = {}
        self.running = self.most_running = 0

    def did(self, call: str) -> None:
        self.calls.append(call)
        if call in self.failing:
            self.failing[call]()

    def count(self, call: str) -> int:
        return self.calls.count(call)

    # What the library itself offers.

    def Runtime(self, logger: Any) -> StandIn:  # noqa: N802
        return self

    def get_engine_validity(self, engine: bytes) -> tuple[int, int]:
        self.did("validity")
        return self.validity

    # An engine, its runtime configuration, and that one's cache, in one.

    def create_runtime_config(self) -> StandIn:
        self.kernels = []
        return self

    def create_runtime_cache(self) -> StandIn:
        return self

    def deserialize(self, kernels: bytes) -> bool:
        self.did("deserialize")
        if self.takes_kernels:
            self.kernels = kernels.split(b"\n")
        return self.takes_kernels

    def set_runtime_cache(self, cache: Any) -> bool:
        self.did("set cache")
        return True

    def create_execution_context(self, config: Any = None) -> str:
        self.did("context" if config is None else "context from cache")
        return "context"

    def serialize(self) -> memoryview:
        self.did("serialize")
        return memoryview(b"\n".join(self.kernels))

    # What of Polygraphy's is used.

    def load(self, serialized: bytes) -> Callable[[], StandIn]:
        self.did("load")
        return lambda: self

    def open_context(self, source: Any, *, optimization_profile: int) -> StandInContext:
        if callable(source):
            source()
        else:
            source.create_execution_context()
        return StandInContext(self, optimization_profile)


class StandInContext:
    """Polygraphy's runner of one profile; its results lie in one buffer, which the next call writes to."""

    def __init__(self, library: StandIn, profile: int) -> None:
        self.library, self.profile = library, profile
        self.buffer = np.zeros((1, SMALL.num_qa_labels), np.float32)

    def activate(self) -> None:
        self.library.did(f"activate {self.profile}")
        kernel = b"kernel %d" % self.profile
        self.library.kernels = sorted({*self.library.kernels, kernel})

    def deactivate(self) -> None:
        self.library.did(f"deactivate {self.profile}")

    def infer(self, inputs: Any, *, check_inputs: bool) -> dict[str, Any]:
        self.library.did("infer")
        self.library.running += 1
        self.library.most_running = max(self.library.most_running, self.library.running)
        time.sleep(0.002)
        self.buffer[:] = inputs["visual_pos"].sum()
        self.library.running -= 1
        return {OUTPUT: self.buffer}


@contextmanager
def stand_in(place: Path) -> Iterator[StandIn]:
    """Has TensorRT and Polygraphy replaced by the stand-in, with a cache of kernels below a directory."""
    open_library("tensorrt-rtx", install_line("rtx"))  # Polygraphy's modules, whose classes are replaced
    import polygraphy.backend.trt as trt

    found = StandIn()
    with (
        mock.patch.object(trt, "EngineFromBytes", found.load),
        mock.patch.object(trt, "TrtRunner", found.open_context),
        mock.patch.object(tensorrt_engine, "open_library", return_value=found),
        mock.patch.dict(os.environ, {SETTING: str(place / "cache")}),
    ):
        yield found


def engine_of(tmp_path: Path, **facts: Any) -> Engine:
    file = tmp_path / "model.engine"
    file.write_bytes(b"engine")
    engine = Engine(file, "0f" * 32, "tensorrt-rtx", "pip install it", "1.7.1", PROFILES, "Some GPU, driver 1")
    return replace(engine, **facts)


def opened(tmp_path: Path, **facts: Any) -> TensorRtRunner:
    return TensorRtRunner(engine_of(tmp_path, **facts), SIGNATURE, InputLimits.of(SMALL), name="engine")


def call(rows: int = 1) -> dict[str, Any]:
    inputs = inputs_for("question-answering")
    return {name: tensor[:1].numpy().repeat(rows, axis=0) for name, tensor in inputs.items()}
