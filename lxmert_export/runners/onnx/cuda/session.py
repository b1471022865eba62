"""Opens a session of onnxruntime on a GPU: it runs there, whole and as it was told, or it is an error."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime

from lxmert_export.errors import ArtifactError
from lxmert_export.native_logs import heard_native_logs
from lxmert_export.option_names import option
from lxmert_export.runners.onnx.cuda.gpu_thread import on_gpu_thread
from lxmert_export.runners.onnx.cuda.libraries import preload_libraries, why_not_started
from lxmert_export.runners.onnx.cuda.placement import RECORD, computed_on_cpu, fallback, nodes_on_cpu
from lxmert_export.runners.onnx.providers import CUDA
from lxmert_export.runners.onnx.session import FAILURES

INFORMATION, WARNINGS, ERRORS = 1, 2, 3  # severities of onnxruntime's log
NOT_ON_GPU = "graph capture feature"  # in onnxruntime's refusal of a CUDA graph


@dataclass(frozen=True)
class CudaSettings:
    """What a session on a GPU is told.

    | field | meaning |
    |---|---|
    | ``tf32`` | whether matrix products of float32 may be computed in TF32 |
    | ``graph`` | whether a call is captured as a CUDA graph, and replayed from then on |
    | ``session``, ``provider`` | further entries of the session's configuration, and of the provider's |
    """

    tf32: bool = False
    graph: bool = False
    session: Mapping[str, str] = field(default_factory=dict)
    provider: Mapping[str, str] = field(default_factory=dict)

    @property
    def of_provider(self) -> dict[str, str]:
        """All entries for the CUDA provider."""
        return {**self.provider, "use_tf32": str(int(self.tf32)), "enable_cuda_graph": str(int(self.graph))}


def open_cuda_session(path: Path, settings: CudaSettings) -> onnxruntime.InferenceSession:
    """Opens a session on the GPU thread.

    ``ArtifactError``: the provider does not start (the message says which library is missing, or what the driver says), nodes
    would run on the CPU, or a CUDA graph cannot be captured.
    """
    with heard_native_logs() as heard:
        try:
            session = on_gpu_thread(_start, path, settings, ERRORS)
        except FAILURES as error:
            raise _not_opened(path, f"{error}\n{heard()}") from error
        if CUDA not in session.get_providers():
            raise ArtifactError(f"{path}: onnxruntime could not start {CUDA}: {why_not_started(heard())}")
    on_cpu = nodes_on_cpu(session)
    if computed := computed_on_cpu(path, on_cpu):
        del session
        raise fallback(path, computed, _what_it_says(path, settings))
    if settings.graph and on_cpu:
        raise ArtifactError(
            f"{path}: cannot be captured as a CUDA graph: {len(on_cpu)} of its nodes run on the CPU, such as {on_cpu[0]}: "
            f"{_with_fixed_axes()}"
        )
    return session


def _start(path: Path, settings: CudaSettings, severity: int) -> onnxruntime.InferenceSession:
    preload_libraries()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = severity
    for key, value in {**settings.session, RECORD: "1"}.items():
        options.add_session_config_entry(key, value)
    # Without its own fallback, which would go on with the CPU. The CPU is there for the arithmetic of sizes alone.
    return onnxruntime.InferenceSession(
        str(path), options, providers=[(CUDA, settings.of_provider), ("CPUExecutionProvider", {})], enable_fallback=0
    )


def _not_opened(path: Path, said: str) -> ArtifactError:
    if NOT_ON_GPU in said:
        return ArtifactError(
            f"{path}: cannot be captured as a CUDA graph: onnxruntime runs nodes of it on the CPU: {_with_fixed_axes()}"
        )
    return ArtifactError(f"{path}: onnxruntime cannot load it on the GPU: {why_not_started(said)}")


def _with_fixed_axes() -> str:
    return f"export it again with fixed axes ({option('fixed')}), or run it without a CUDA graph"


def _what_it_says(path: Path, settings: CudaSettings) -> str:
    """What onnxruntime writes as it places the nodes. It is asked only after a fallback, because it writes much."""
    with heard_native_logs() as heard:
        onnxruntime.set_default_logger_severity(INFORMATION)
        try:
            with suppress(*FAILURES):  # the caller tells of the fallback, whatever this second start ends with
                on_gpu_thread(_start, path, settings, INFORMATION)
        finally:
            onnxruntime.set_default_logger_severity(WARNINGS)
        return heard()
