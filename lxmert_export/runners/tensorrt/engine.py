"""Runs a TensorRT engine on an NVIDIA GPU through Polygraphy. No run of ours has executed it yet: no GPU was at hand."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lxmert_export.engines.library import Engine, LoggedErrors, as_one_error, library_version, open_library
from lxmert_export.engines.profiles import call_sizes, pick_profile, pieces
from lxmert_export.errors import ArtifactError
from lxmert_export.runners.runner import Runner
from lxmert_export.runners.tensorrt.runtime_cache import CacheFile, RuntimeCache, cache_directory
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

LOGGER = logging.getLogger(__name__)

# Why a runtime says that an engine is not for it, in words: members of EngineInvalidityDiagnostics, which are bits.
REASONS = {
    "VERSION_MISMATCH": "it is of another version of TensorRT-RTX",
    "UNSUPPORTED_CC": "this runtime does not support this GPU, or the engine was not built for it",
    "OLD_CUDA_DRIVER": "the GPU's driver is too old",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has not enough memory",
    "MALFORMED_ENGINE": "it is no engine",
    "CUDA_ERROR": "CUDA or the driver is not installed properly",
}


class TensorRtRunner(Runner):
    """An engine on the GPU: one context for each optimisation profile, made when it is first needed, and kept.

    Threads may share it: calls take turns, as contexts and their buffers serve one call at a time. Kernels that TensorRT-RTX
    compiles meanwhile are kept for the next runner of this engine.
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
        with as_one_error(f"{engine.file}: cannot be loaded here", ArtifactError) as said:
            _check_header(library, serialized, engine.file, said)
            self._engine = EngineFromBytes(serialized)()
            self._cache = _open_cache(self._engine, engine)
        if self._cache is not None and self._cache.ignored:
            LOGGER.warning("%s; kernels are compiled anew", self._cache.ignored)
        self._contexts: dict[int, Any] = {}
        self._turn = threading.Lock()

    def pieces(self, shapes: Mapping[str, tuple[int, ...]]) -> list[int] | None:
        return pieces(self.profiles, call_sizes(shapes, self.signature))

    def compute(self, inputs: Arrays) -> Arrays:
        sizes = call_sizes({name: array.shape for name, array in inputs.items()}, self.signature)
        number = pick_profile(self.profiles, sizes)
        failed, new = f"{self.name}: failed while it ran", number not in self._contexts
        with self._turn, as_one_error(failed, ArtifactError, quiet=new):
            found = self.context(number).infer(inputs, check_inputs=False)
            # What infer() returns lies in buffers that the next call writes to.
            return {spec.name: np.array(found[spec.name]) for spec in self.signature.outputs}

    def context(self, number: int) -> Any:
        """Polygraphy's runner of one profile, with buffers of its own that all calls use; one thread at a time may have it."""
        from polygraphy.backend.trt import TrtRunner

        if number not in self._contexts:
            source = self._engine if self._cache is None else self._cache.create_context
            context = TrtRunner(source, optimization_profile=number)
            context.activate()
            self._contexts[number] = context
        return self._contexts[number]

    def release(self) -> None:
        with self._turn:
            kernels = None
            with as_one_error(f"{self.name}: cannot be closed", ArtifactError):
                used = bool(self._contexts)
                while self._contexts:
                    self._contexts.popitem()[1].deactivate()
                if self._cache is not None and used:
                    kernels = self._cache.serialized()
            if self._cache is not None and kernels is not None:
                try:
                    self._cache.keep(kernels)
                except ArtifactError as error:  # what was computed stands without it
                    LOGGER.warning("%s", error)
            self._cache = self._engine = None


def _open_cache(engine: Any, facts: Engine) -> RuntimeCache | None:
    """The cache of compiled kernels, where TensorRT-RTX runs the engine and the user has not turned it off."""
    if facts.runtime != "tensorrt-rtx" or (directory := cache_directory()) is None:
        return None
    return RuntimeCache(engine, CacheFile(directory, engine=facts.sha256, runtime=facts.version, gpu=facts.gpu))


def _check_header(library: ModuleType, engine: bytes, path: Path, said: LoggedErrors) -> None:
    """``ArtifactError`` where the runtime can tell from the header that it cannot run the engine; classic TensorRT cannot."""
    if not hasattr(library, "EngineValidity"):
        return
    from polygraphy.backend.trt import get_trt_logger

    runtime = library.Runtime(get_trt_logger())
    validity, bits = runtime.get_engine_validity(engine)
    if validity == library.EngineValidity.INVALID:
        members = library.EngineInvalidityDiagnostics.__members__
        found = [words for name, words in REASONS.items() if name in members and int(members[name]) & int(bits)]
        reason = ", and ".join(found) or said.first("the runtime gives no reason")
        raise ArtifactError(
            f"{path}: cannot be run by TensorRT-RTX here: {reason}; build it with this version, for this GPU"
        )
