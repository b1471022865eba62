"""Runs an ONNX file with onnxruntime, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
    RuntimeException,
)

from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.errors import ArtifactError, first_line
from lxmert_export.runners.onnx.providers import CPU, computes_in
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

# What onnxruntime raises on a file that it cannot load or run.
FAILURES: tuple[type[Exception], ...] = (
    Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, NotImplemented, RuntimeException, RuntimeError, ValueError,
)  # fmt: skip
# Where a graph that comes as bytes finds its weights.
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxRuntimeRunner(Runner):
    """An onnxruntime session under a signature.

    ``ArtifactError``: a file that onnxruntime cannot load, a provider that is not there, bf16 where no provider has kernels.
    """

    failures = FAILURES

    def __init__(
        self,
        path: Path,
        signature: Signature,
        limits: InputLimits,
        *,
        precision: str,
        providers: Sequence[str] = (CPU,),
        optimize: bool = True,
        threads: int | None = None,
        name: str = "onnxruntime",
    ) -> None:
        super().__init__(name, signature, limits)
        check_providers(providers)
        if precision == "bf16" and not computes_in(precision, providers):
            raise ArtifactError(
                f"{path}: bf16 has no kernels in {providers[0]}; run it with --provider CUDAExecutionProvider on a GPU"
            )
        self._session = open_session(path, providers, optimize, threads)
        self._outputs = [value.name for value in self._session.get_outputs()]

    def compute(self, inputs: Arrays) -> Arrays:
        needed = {value.name for value in self._session.get_inputs()}
        values = self._session.run(self._outputs, {name: array for name, array in inputs.items() if name in needed})
        return dict(zip(self._outputs, values, strict=True))

    def release(self) -> None:
        del self._session


def check_providers(providers: Sequence[str]) -> None:
    """``ArtifactError`` where this onnxruntime has not got one of the providers."""
    available = onnxruntime.get_available_providers()
    if missing := [provider for provider in providers if provider not in available]:
        raise ArtifactError(f"onnxruntime here has no {', '.join(missing)}; it has {', '.join(available)}")


def open_session(
    path: Path,
    providers: Sequence[str],
    optimize: bool,
    threads: int | None = None,
    *,
    content: bytes | None = None,
) -> onnxruntime.InferenceSession:
    """A session on a file, or on another graph over the weights that lie beside it; ``ArtifactError``: it cannot be loaded."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: one for each core
    if content is not None:
        options.add_session_config_entry(WEIGHTS_FOLDER, str(path.parent.resolve()))
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Prepacking would hold every weight twice, for a graph that is run a few times only.
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return onnxruntime.InferenceSession(content or str(path), options, providers=list(providers))
    except FAILURES as error:
        raise ArtifactError(f"{path}: onnxruntime cannot load it: {first_line(error)}") from error


def open_onnx(artifact: Artifact, providers: Sequence[str], threads: int | None) -> Runner:
    """The runner of an ONNX artifact."""
    manifest = artifact.manifest
    return OnnxRuntimeRunner(
        artifact.file(ONNX_FILE),
        manifest.signature,
        manifest.limits,
        precision=manifest.precision,
        providers=providers,
        threads=threads,
        name=artifact.name,
    )
