"""Opens an artifact in the runtime that its target needs; each runtime is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from lxmert_export.artifact.directory import (
    ENGINE_FILE,
    KERAS_FILE,
    NOT_RUN,
    ONNX_FILE,
    SAVED_MODEL,
    TFLITE_FILE,
    WEIGHTLESS,
    Artifact,
)
from lxmert_export.engines.gpus import find_gpus, why_not_run
from lxmert_export.engines.library import MODULES, Engine, require_library
from lxmert_export.engines.profiles import Profile, check_profiles
from lxmert_export.errors import ArtifactError, BuiltNotRun, ConfigError, ConversionError, MissingExtra
from lxmert_export.extras import check_keras_backend
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.parity.recording import Arithmetic
from lxmert_export.runners.onnx.providers import CPU, computes_in
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import InputLimits

# Targets whose runtimes take a number of threads for each runner. TensorFlow has one for the whole process.
SETS_THREADS = frozenset({"onnx", "tflite"})


def judged_ways(
    artifact: Artifact, providers: Sequence[str], *, emulate: bool = True, threads: int | None = None
) -> list[tuple[Arithmetic, Callable[[], Runner]]]:
    """The ways in which an artifact is run to be judged, each with what its arithmetic proves.

    A half-precision graph that a provider computes in float32 is also emulated; bf16, for which the CPU has no kernels, is
    emulated only. ``emulate=False`` leaves the emulator out where something else can be run.
    """
    precision = artifact.manifest.precision
    if (
        artifact.manifest.target != "onnx"
    ):  # these compute on a CPU as the manifest's `arithmetic` says, which the file shows
        return [("native", lambda: open_runner(artifact, threads=threads))]
    if computes_in(precision, providers):
        return [("native", lambda: open_runner(artifact, providers=providers, threads=threads))]
    ways: list[tuple[Arithmetic, Callable[[], Runner]]] = []
    if precision == "fp16":
        ways.append(("cpu-fp32-arithmetic", lambda: open_runner(artifact, providers=providers, threads=threads)))
    if emulate or not ways:
        ways.append(("emulated", lambda: open_emulator(artifact, threads=threads)))
    return ways


def open_runner(artifact: Artifact, *, providers: Sequence[str] = (CPU,), threads: int | None = None) -> Runner:
    """The artifact in its own runtime, on as many threads as that likes best where ``threads`` is left out.

    ``MissingExtra``: it is not installed, with the line that installs it. ``ArtifactError``: the target takes no ``threads``.
    """
    target = artifact.manifest.target
    if target not in OPENERS:
        raise ArtifactError(f"{artifact.path}: this version has no runner for target {target!r}")
    if threads is not None and target not in SETS_THREADS:
        raise ArtifactError(f"{artifact.path}: a runner of target {target!r} takes no number of threads: leave it out")
    return OPENERS[target](artifact, providers, threads)


def open_signature(artifact: Artifact, serve: str) -> Runner:
    """A SavedModel under another of its signatures than the first."""
    with quiet_native_logs():
        from lxmert_export.runners.tensorflow.saved_model import SavedModelRunner

        return SavedModelRunner(
            artifact.file(SAVED_MODEL),
            artifact.manifest.signature,
            InputLimits.of(artifact.manifest.config),
            name=f"{artifact.name} {serve}",
            serve=serve,
        )


def _open_onnx(artifact: Artifact, providers: Sequence[str], threads: int | None) -> Runner:
    if find_spec("onnxruntime") is None:
        raise MissingExtra("running an ONNX artifact", "onnx")
    from lxmert_export.runners.onnx.session import OnnxRuntimeRunner

    manifest = artifact.manifest
    return OnnxRuntimeRunner(
        artifact.file(ONNX_FILE),
        manifest.signature,
        InputLimits.of(manifest.config),
        precision=manifest.precision,
        providers=providers,
        threads=threads,
        name=artifact.name,
    )


def _open_tensorflow(artifact: Artifact, providers: Sequence[str], threads: int | None) -> Runner:
    if find_spec("tensorflow") is None:
        raise MissingExtra("running a TensorFlow artifact", "tensorflow")
    signature, limits = artifact.manifest.signature, InputLimits.of(artifact.manifest.config)
    with quiet_native_logs():
        if artifact.is_keras:
            check_keras_backend()
            from lxmert_export.runners.tensorflow.keras_model import KerasRunner

            return KerasRunner(artifact.file(KERAS_FILE), signature, limits, name=artifact.name)
        from lxmert_export.runners.tensorflow.saved_model import SavedModelRunner

        return SavedModelRunner(artifact.file(SAVED_MODEL), signature, limits, name=artifact.name)


def _open_tflite(artifact: Artifact, providers: Sequence[str], threads: int | None) -> Runner:
    if find_spec("ai_edge_litert") is None:
        raise MissingExtra("running a TFLite artifact", "tflite")
    manifest = artifact.manifest
    with quiet_native_logs():
        from lxmert_export.runners.tflite.litert import LiteRtRunner

        return LiteRtRunner(
            artifact.file(TFLITE_FILE),
            manifest.signature,
            InputLimits.of(manifest.config),
            threads=threads,
            name=artifact.name,
        )


def _open_tensorrt(artifact: Artifact, providers: Sequence[str], threads: int | None) -> Runner:
    found = find_engine(artifact)
    from lxmert_export.runners.tensorrt.engine import TensorRtRunner

    return TensorRtRunner(
        found, artifact.manifest.signature, InputLimits.of(artifact.manifest.config), name=artifact.name
    )


def find_engine(artifact: Artifact) -> Engine:
    """An engine's file and what its manifest says of it, where there is a GPU, and the runtime is installed.

    ``BuiltNotRun``: there is no GPU, or the engine holds no weights. ``ArtifactError``: the manifest describes no engine.
    ``MissingExtra``: no runtime.
    """
    manifest = artifact.manifest
    try:
        engine, version = manifest.options["engine"], str(manifest.options["build"]["runtime_version"])
        profiles = tuple(Profile.from_dict(values) for values in manifest.options["profiles"])
        check_profiles(profiles, manifest.config, manifest.signature)
        install, target, weightless = str(engine["install"]), str(engine["target"]), "strip" in engine["options"]
        runtime, digest = engine["runtime"], manifest.files[ENGINE_FILE]["sha256"]
        if runtime not in MODULES:
            raise ConfigError(f"its runtime is {runtime!r}")
    except (KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(f"{artifact.path}: its manifest describes no engine: {error}; build it again") from error
    if weightless:
        raise BuiltNotRun(f"{artifact.path}: {WEIGHTLESS}")
    try:
        gpus = find_gpus()
    except ConversionError as error:
        raise BuiltNotRun(
            f"{artifact.path}: {NOT_RUN} ({why_not_run(error)}); verify it on a device of --target {target}"
        ) from error
    require_library(runtime, install)
    gpu = "; ".join(map(str, gpus))
    return Engine(artifact.file(ENGINE_FILE), digest, runtime, install, version, profiles, gpu)


OPENERS: dict[str, Callable[[Artifact, Sequence[str], int | None], Runner]] = {
    "onnx": _open_onnx,
    "tensorflow": _open_tensorflow,
    "tflite": _open_tflite,
    "tensorrt": _open_tensorrt,
}


def open_emulator(artifact: Artifact, *, threads: int | None = None) -> Runner:
    """The artifact's own graph with every half-precision result rounded, on the CPU."""
    if find_spec("onnx_ir") is None:
        raise MissingExtra(f"emulating {artifact.manifest.precision} on a CPU", "onnx")
    from lxmert_export.runners.onnx.emulator import EmulatedOnnxRunner

    manifest = artifact.manifest
    return EmulatedOnnxRunner(
        artifact.file(ONNX_FILE),
        manifest.signature,
        InputLimits.of(manifest.config),
        precision=manifest.precision,
        threads=threads,
        name=artifact.name,
    )
