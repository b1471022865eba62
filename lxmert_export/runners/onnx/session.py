"""Runs an ONNX file with onnxruntime alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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

from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.session_settings import (
    LOWEST_KNOWN,
    carried_settings,
    chosen_settings,
    parsed,
    provider_options,
)
from lxmert_export.errors import ArtifactError, first_line
from lxmert_export.native_logs import heard_native_logs
from lxmert_export.option_names import option
from lxmert_export.runners.onnx.cuda.libraries import preload_libraries, why_not_started
from lxmert_export.runners.onnx.providers import CPU, CUDA, PROVIDER_OPTIONS, computes_in
from lxmert_export.runners.runner import Runner
from lxmert_export.runners.split import open_whole_or_split
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

# What onnxruntime raises on a file that it cannot load or run.
FAILURES: tuple[type[Exception], ...] = (
    Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, NotImplemented, RuntimeException, RuntimeError, ValueError,
)  # fmt: skip
# Threads of one half that wait for its next call, awake, could slow the other half.
NO_SPINNING = {"session.force_spinning_stop": "1"}
# The folder in which a graph that is given as bytes finds its weights.
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxRuntimeRunner(Runner):
    """Runs an ONNX file under a signature, in an onnxruntime session.

    ``ArtifactError``: onnxruntime cannot load the file, lacks a provider, or has no bf16 kernels in the first provider.
    """

    failures = FAILURES
    parallel = True

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
        settings: Mapping[str, str] | None = None,
        told: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        super().__init__(name, signature, limits)
        check_providers(providers)
        if precision == "bf16" and not computes_in(precision, providers):
            raise ArtifactError(
                f"{path}: bf16 has no kernels in {providers[0]}: run the artifact @openvino, in float32, or with "
                f"{option('providers')} CUDAExecutionProvider on a GPU"
            )
        self._session = open_session(path, providers, optimize, threads, settings=settings, told=told)
        self._outputs = [value.name for value in self._session.get_outputs()]

    def compute(self, inputs: Arrays) -> Arrays:
        needed = {value.name for value in self._session.get_inputs()}
        values = self._session.run(self._outputs, {name: array for name, array in inputs.items() if name in needed})
        return dict(zip(self._outputs, values, strict=True))

    def release(self) -> None:
        del self._session


def check_providers(providers: Sequence[str]) -> None:
    """Checks that this onnxruntime has the providers. ``ArtifactError``: it lacks one."""
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
    settings: Mapping[str, str] | None = None,
    told: Mapping[str, Mapping[str, str]] | None = None,
) -> onnxruntime.InferenceSession:
    """Opens a session on a file, or on the graph ``content`` with the weights beside that file.

    ``settings``: entries of the session's configuration. ``told``: options of execution providers, by provider.
    ``ArtifactError``: onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: one for each core
    for key, value in (settings or {}).items():
        options.add_session_config_entry(key, value)
    if content is not None:
        options.add_session_config_entry(WEIGHTS_FOLDER, str(path.parent.resolve()))
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Prepacking would hold every weight twice, and this graph is run a few times only.
        options.add_session_config_entry("session.disable_prepacking", "1")
    given = [(name, {**PROVIDER_OPTIONS.get(name, {}), **(told or {}).get(name, {})}) for name in providers]
    if CUDA in providers:
        preload_libraries()
    # What onnxruntime writes of its CPU provider stays on the terminal.
    with heard_native_logs() if providers[0] != CPU else nullcontext(str) as heard:
        try:
            session = onnxruntime.InferenceSession(content or str(path), options, providers=given)
        except FAILURES as error:
            raise ArtifactError(f"{path}: onnxruntime cannot load it: {first_line(error)}") from error
        if (used := session.get_providers()[0]) != providers[0]:
            raise ArtifactError(
                f"{path}: onnxruntime could not start {providers[0]} and fell back to {used}: {why_not_started(heard())}"
            )
    return session


def open_onnx(artifact: Artifact, providers: Sequence[str], threads: int | None) -> Runner:
    """Opens the runner of an ONNX artifact, with the session settings that its manifest carries for this onnxruntime.

    ``ArtifactError``: it carries settings, and this onnxruntime is older than those for which they are known.
    """
    manifest = artifact.manifest
    settings = session_settings(artifact) if providers[0] == CPU else {}
    if artifact.halves is not None:
        settings |= NO_SPINNING

    def opened(file: Path, signature: Signature) -> Runner:
        return OnnxRuntimeRunner(
            file, signature, manifest.limits, precision=manifest.precision, providers=providers, threads=threads,
            name=artifact.name, settings=settings, told=provider_options(manifest.options),
        )  # fmt: skip

    return open_whole_or_split(artifact, opened)


def session_settings(artifact: Artifact) -> dict[str, str]:
    """Returns the session settings that an artifact carries for this onnxruntime. ``ArtifactError``: it is too old for them."""
    settings = carried_settings(artifact.manifest.options)
    if settings and parsed(onnxruntime.__version__) < parsed(LOWEST_KNOWN):
        raise ArtifactError(
            f"{artifact.path}: was made with {option('optimize_for', 'cpu')}, whose settings are known for onnxruntime "
            f"{LOWEST_KNOWN} and later, and {onnxruntime.__version__} is installed: install a later one, or export it without"
        )
    return chosen_settings(settings, onnxruntime.__version__)
