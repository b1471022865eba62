"""Opens ONNX artifacts on a GPU, and says what this machine lacks for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lxmert_export.artifact.directory import IN_RUNTIME, Artifact
from lxmert_export.artifact.session_settings import CUDA_PROVIDER, provider_options
from lxmert_export.artifact.targets import Lack
from lxmert_export.engines.gpus import find_gpus, reason_of, written
from lxmert_export.errors import ArtifactError, BuiltNotRun, ConversionError, InputError, MissingExtra
from lxmert_export.extras import ONNXRUNTIME_GPU
from lxmert_export.option_names import option
from lxmert_export.runners.onnx.cuda.libraries import build, cuda_version, why_no_provider
from lxmert_export.runners.onnx.cuda.runner import CudaRunner
from lxmert_export.runners.onnx.cuda.session import CudaSettings
from lxmert_export.runners.runner import Runner
from lxmert_export.runners.split import open_whole_or_split
from lxmert_export.spec.signature import DYNAMIC_AXES, Signature

# With it NVIDIA's libraries compute in TF32 (1) or never do (0), whatever a program tells them.
OVERRIDE = "NVIDIA_TF32_OVERRIDE"


def open_cuda(
    artifact: Artifact, providers: Sequence[str], threads: int | None, *, cuda_graph: bool | None = None
) -> Runner:
    """Opens the runner of an ONNX artifact on the GPU.

    The provider is told what the manifest carries for it.

    ``cuda_graph``: whether calls are captured and replayed; None: if all axes are fixed. ``InputError``: it is asked for, and an
    axis is dynamic. Other errors: as of ``find_cuda`` and ``CudaRunner``.
    """
    find_cuda(artifact)
    manifest = artifact.manifest
    fixed = set(manifest.signature.fixed_sizes) == set(DYNAMIC_AXES)
    if cuda_graph and not fixed:
        dynamic = [axis for axis in DYNAMIC_AXES if axis not in manifest.signature.fixed_sizes]
        raise InputError(
            f"{artifact.path}: a CUDA graph repeats calls of one shape, and its axes {', '.join(dynamic)} are dynamic: export it "
            f"again with {option('fixed')}, or leave the CUDA graph out"
        )
    settings = CudaSettings(
        tf32=bool(artifact.runtime.rounds),
        graph=fixed if cuda_graph is None else cuda_graph,
        provider=provider_options(manifest.options).get(CUDA_PROVIDER, {}),
    )

    def opened(file: Path, signature: Signature) -> Runner:
        return CudaRunner(file, signature, manifest.limits, settings=settings, name=artifact.name)

    return open_whole_or_split(artifact, opened)


def find_cuda(artifact: Artifact) -> None:
    """Checks that an artifact can be run on a GPU here. CUDA's libraries are not loaded.

    ``BuiltNotRun``: there is no GPU. ``MissingExtra``: the installed onnxruntime is the build for CPUs, or is there twice.
    ``ArtifactError``: TF32 of an artifact that is not fp32, or the environment says the contrary of what the runtime is for.
    """
    precision, runtime = artifact.manifest.precision, artifact.runtime
    if runtime.rounds and precision not in runtime.rounds:
        raise ArtifactError(
            f"{artifact.path}: {runtime.name} runs {' and '.join(runtime.rounds)} artifacts, and this is {precision}: run it "
            f"{IN_RUNTIME}cuda"
        )
    if reason := lacks_gpu():
        instead = f", or judge it by {option('checkpoint')}, where the emulator stands in" if runtime.rounds else ""
        raise BuiltNotRun(
            f"{artifact.named(str(artifact.path))}: {reason.reason}: run it on a machine with one{instead}"
        )
    if lack := why_no_provider():
        raise MissingExtra(
            f"running ONNX artifacts in {runtime.name} ({lack[0]})", ONNXRUNTIME_GPU.extra, install=lack[1]
        )
    told, wanted = os.environ.get(OVERRIDE), "1" if runtime.rounds else "0"
    if told in ("0", "1") and told != wanted:
        raise ArtifactError(
            f"{artifact.named(str(artifact.path))}: {OVERRIDE}={told} is set, which {'allows' if told == '1' else 'forbids'} "
            "TF32 whatever a program says: unset it"
        )


def lacks_gpu() -> Lack | None:
    """Returns why there is no GPU to run on here; None if there is one."""
    try:
        find_gpus()
    except ConversionError as error:
        return Lack(reason_of(error), "an NVIDIA GPU, and its driver")
    return None


def lacks_cuda() -> Lack | None:
    """Returns what this machine lacks to run artifacts on a GPU; None: nothing that can be told without loading a file."""
    lack = why_no_provider()
    return Lack(*lack) if lack else lacks_gpu()


def gpu_facts() -> dict[str, str]:
    """Returns the name, compute capability and driver of the first GPU, and the CUDA of onnxruntime; empty if there is no GPU."""
    try:
        gpu = find_gpus()[0]
    except ConversionError:
        return {}
    capability = "unknown" if gpu.capability is None else written(gpu.capability)
    facts = {"name": gpu.name, "capability": capability, "driver": gpu.driver, "onnxruntime": build()}
    return {**facts, "cuda": version} if (version := cuda_version()) else facts
