"""An artifact of any target as a Polygraphy runner, for Polygraphy's ``Comparator``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata

from lxmert_export.artifact.directory import open_artifact
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.opening import open_runner
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays


class ArtifactRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy ships no types
    """Runs an artifact in its own runtime, from Polygraphy's activation of the runner to its deactivation."""

    def __init__(self, path: str | Path, *, providers: Sequence[str] = (CPU,), name: str | None = None) -> None:
        super().__init__(name=name, prefix="lxmert-export")
        self._path, self._providers = path, providers
        self._runner: Runner | None = None

    def activate_impl(self) -> None:
        self._runner = open_runner(open_artifact(self._path), providers=self._providers)

    def get_input_metadata_impl(self) -> TensorMetadata:
        metadata = TensorMetadata()
        for spec in self._opened().signature.inputs:
            shape = tuple(None if isinstance(axis, str) else axis for axis in spec.axes)
            metadata.add(spec.name, dtype=np.dtype(spec.dtype), shape=shape)
        return metadata

    def infer_impl(self, feed_dict: Mapping[str, NDArray[np.generic]]) -> Arrays:
        start = time.perf_counter()
        outputs = self._opened().run(feed_dict)
        self.inference_time = time.perf_counter() - start
        return outputs

    def deactivate_impl(self) -> None:
        self._opened().close()
        self._runner = None

    def _opened(self) -> Runner:
        assert self._runner is not None, "Polygraphy activates a runner before it uses it"
        return self._runner
