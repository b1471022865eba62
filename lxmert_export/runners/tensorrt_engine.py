"""Runs a TensorRT engine on an NVIDIA GPU through Polygraphy. No run of ours has executed it yet: no GPU was at hand."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lxmert_export.errors import ArtifactError
from lxmert_export.profiles import call_sizes, pick_profile, pieces
from lxmert_export.runners.runner import Arrays, InputLimits, Runner
from lxmert_export.signature import Signature
from lxmert_export.tensorrt_library import Engine, as_one_error, library_version, open_library


class TensorRtRunner(Runner):
    """An engine on the GPU: one context for each optimisation profile, made when it is first needed, and kept.

    Threads may share it: calls take turns, as contexts and their buffers serve one call at a time.
    """

    def __init__(self, engine: Engine, signature: Signature, limits: InputLimits, *, name: str) -> None:
        super().__init__(name, signature, limits)
        self.profiles = engine.profiles
        library = open_library(engine.runtime, engine.install)
        if (installed := library_version(library)) != engine.version:
            raise ArtifactError(
                f"{engine.file}: was built by {engine.runtime} {engine.version}, and {installed} is installed: "
                "install that version, or build it again"
            )
        from polygraphy.backend.trt import EngineFromBytes

        serialized = engine.file.read_bytes()
        with as_one_error(f"{engine.file}: cannot be loaded here", ArtifactError):
            _check_header(library, serialized, engine.file)
            self._engine = EngineFromBytes(serialized)()
        self._contexts: dict[int, Any] = {}
        self._turn = threading.Lock()

    def pieces(self, shapes: Mapping[str, tuple[int, ...]]) -> list[int] | None:
        return pieces(self.profiles, call_sizes(shapes, self.signature))

    def compute(self, inputs: Arrays) -> Arrays:
        sizes = call_sizes({name: array.shape for name, array in inputs.items()}, self.signature)
        number = pick_profile(self.profiles, sizes)
        with self._turn, as_one_error(f"{self.name}: failed while it ran", ArtifactError):
            found = self._context(number).infer(inputs, check_inputs=False)
            # What infer() returns lies in buffers that the next call writes to.
            return {spec.name: np.array(found[spec.name]) for spec in self.signature.outputs}

    def release(self) -> None:
        with self._turn:
            for context in self._contexts.values():
                context.deactivate()
            self._contexts.clear()

    def _context(self, number: int) -> Any:
        from polygraphy.backend.trt import TrtRunner

        if number not in self._contexts:
            context = TrtRunner(self._engine, optimization_profile=number)
            context.activate()
            self._contexts[number] = context
        return self._contexts[number]


def _check_header(library: ModuleType, engine: bytes, path: Path) -> None:
    """``ArtifactError`` where the runtime can tell from the header that it cannot run the engine; classic TensorRT cannot."""
    if not hasattr(library, "EngineValidity"):
        return
    from polygraphy.backend.trt import get_trt_logger

    runtime = library.Runtime(get_trt_logger())
    validity, _ = runtime.get_engine_validity(engine)
    if validity == library.EngineValidity.INVALID:
        raise ArtifactError(f"{path}: this GPU and this version of TensorRT-RTX cannot run it: build it for them")
