"""Runs a TensorRT engine on an NVIDIA GPU through Polygraphy. Never run by us yet: no GPU was available."""

from __future__ import annotations

import logging
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

# Why a runtime cannot run an engine: members of EngineInvalidityDiagnostics, which are bits, in words.
REASONS = {
    "VERSION_MISMATCH": "another version of TensorRT-RTX built it",
    "UNSUPPORTED_CC": "this runtime does not support this GPU (its ONNX artifact runs @cuda), or the engine was not built "
    "for it",
    "OLD_CUDA_DRIVER": "the GPU's driver is too old",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has not enough memory",
    "MALFORMED_ENGINE": "it is not an engine",
    "CUDA_ERROR": "CUDA or the driver is not installed properly",
}


class TensorRtRunner(Runner):
    """Runs an engine on the GPU, with one execution context per optimisation profile, made when first needed and kept.

    Calls of threads take turns, because a context and its buffers serve one call at a time. Kernels that TensorRT-RTX
    compiles are kept for the next runner of this engine. ``ArtifactError``: another version of the
    runtime is installed, or it cannot load or run the engine. ``MissingExtra``: the runtime is not installed.
    """

    def __init__(self, engine: Engine, signature: Signature, limits: InputLimits, *, name: str) -> None:
        super().__init__(name, signature, limits)
        self.profiles = engine.profiles
        library = open_library(engine.runtime, engine.install)
        if (installed := library_version(library)) != engine.version:
            raise ArtifactError(
                f"{engine.file}: was built by {engine.runtime} {engine.version}, and {installed} is installed: "
                f"install {engine.version}, or build the engine again"
            )
        from polygraphy.backend.trt import EngineFromBytes

        serialized = engine.file.read_bytes()
        with as_one_error(f"{engine.file}: cannot be loaded here", ArtifactError) as logged:
            _check_header(library, serialized, engine.file, logged)
            self._engine = EngineFromBytes(serialized)()
            self._cache = _open_cache(self._engine, engine)
        if self._cache is not None and self._cache.ignored:
            LOGGER.warning("%s; kernels are compiled again", self._cache.ignored)
        self._contexts: dict[int, Any] = {}

    def pieces(self, shapes: Mapping[str, tuple[int, ...]]) -> list[int] | None:
        return pieces(self.profiles, call_sizes(shapes, self.signature))

    def compute(self, inputs: Arrays) -> Arrays:
        sizes = call_sizes({name: array.shape for name, array in inputs.items()}, self.signature)
        number = pick_profile(self.profiles, sizes)
        failed, new = f"{self.name}: failed while it ran", number not in self._contexts
        with as_one_error(failed, ArtifactError, quiet=new):
            outputs = self.context(number).infer(inputs, check_inputs=False)
            # infer() returns buffers that the next call overwrites.
            return {spec.name: np.array(outputs[spec.name]) for spec in self.signature.outputs}

    def context(self, number: int) -> Any:
        """Returns Polygraphy's runner of one profile. Calls share its buffers, so one thread at a time may use it."""
        from polygraphy.backend.trt import TrtRunner

        if number not in self._contexts:
            source = self._engine if self._cache is None else self._cache.create_context
            context = TrtRunner(source, optimization_profile=number)
            context.activate()
            self._contexts[number] = context
        return self._contexts[number]

    def release(self) -> None:
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
            except ArtifactError as error:  # the computed outputs are valid without the cache
                LOGGER.warning("%s", error)
        self._cache = self._engine = None


def _open_cache(engine: Any, facts: Engine) -> RuntimeCache | None:
    """Opens the cache of compiled kernels; None for classic TensorRT, or if there is no directory for the cache."""
    if facts.runtime != "tensorrt-rtx" or (directory := cache_directory()) is None:
        return None
    return RuntimeCache(engine, CacheFile(directory, engine=facts.sha256, runtime=facts.version, gpu=facts.gpu))


def _check_header(library: ModuleType, engine: bytes, path: Path, logged: LoggedErrors) -> None:
    """Asks TensorRT-RTX whether it can run an engine; classic TensorRT cannot tell. ``ArtifactError``: it cannot."""
    if not hasattr(library, "EngineValidity"):
        return
    from polygraphy.backend.trt import get_trt_logger

    runtime = library.Runtime(get_trt_logger())
    validity, bits = runtime.get_engine_validity(engine)
    if validity == library.EngineValidity.INVALID:
        members = library.EngineInvalidityDiagnostics.__members__
        reasons = [words for name, words in REASONS.items() if name in members and int(members[name]) & int(bits)]
        reason = ", and ".join(reasons) or logged.first("the runtime gives no reason")
        raise ArtifactError(
            f"{path}: cannot be run by TensorRT-RTX here: {reason}; build it again with this version, for this GPU"
        )
