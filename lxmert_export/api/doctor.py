"""Finds out what works on this machine, and the exact install line for what does not."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from lxmert_export.artifact.directory import IN_RUNTIME
from lxmert_export.artifact.manifest import tool_versions
from lxmert_export.artifact.targets import TARGETS, Part, Runtime, Target
from lxmert_export.engines.device_kinds import KINDS, RTX
from lxmert_export.engines.device_kinds import Runtime as EngineRuntime
from lxmert_export.engines.devices import install_line
from lxmert_export.engines.gpus import Gpu, find_gpus, is_among, reason_of, written
from lxmert_export.engines.library import LIBRARIES
from lxmert_export.errors import PACKAGE, ArtifactError, ConversionError
from lxmert_export.extras import (
    H5PY,
    H5PY_OF_FEATURES,
    ONNX,
    ONNXRUNTIME,
    PICTURES,
    POLYGRAPHY,
    PYARROW,
    TORCH,
    Library,
    missing,
)

INT8_KERNELS = Part("lxmert_export.runners.onnx.int8_kernels:is_exact", (ONNXRUNTIME, ONNX))


@dataclass(frozen=True)
class Capability:
    """One thing that the tool can do: whether it works here, the libraries or GPU found for it, and how to mend it."""

    what: str
    works: bool
    detail: str
    mend: str | None


def examine() -> list[Capability]:
    """Returns every capability, judged by what is installed. Of the runtimes those are imported that say what they lack here:
    onnxruntime its providers and whether its int8 is exact, OpenVINO the CPU's bf16.
    """
    found = [_capability(what, libraries) for what, libraries in needs().items()]
    found = [_on_this_machine(one) for one in found]
    return [*found, _int8_kernels(), _half_precision_on_gpu(), *examine_engines()]


def needs() -> dict[str, tuple[Library, ...]]:
    """Returns the things that the tool can do, those of each target included, and the libraries that each needs."""
    rows = TARGETS.values()
    return {
        "read .pth, .bin and .safetensors checkpoints": (TORCH,),
        "read and write tf_model.h5": (H5PY,),
        **{f"convert to {_with_formats(row)}": row.converter.needs for row in rows if row.converter is not None},
        "read features of GQA (HDF5) and Hugging Face datasets (arrow)": (H5PY_OF_FEATURES, PYARROW),
        "ask about pictures": PICTURES,
        **{_running(row, one): one.opens.needs for row in rows for one in row.runtimes if one.opens.needs},
        **{
            f"judge {_emulated(row)} of {row.title} on a CPU (emulator)": row.emulator.needs
            for row in rows
            if row.emulator
        },
    }


def _running(row: Target, runtime: Runtime) -> str:
    chosen = "" if runtime is row.runtime else f" {IN_RUNTIME}{runtime.name}"
    return f"run and verify {row.title} artifacts{chosen}"


def _on_this_machine(capability: Capability) -> Capability:
    """The same, not working if its runtime says that this machine lacks something."""
    runtimes = {_running(row, one): one for row in TARGETS.values() for one in row.runtimes}
    runtime = runtimes.get(capability.what)
    if runtime is None or runtime.lacks is None or not capability.works:
        return capability
    try:
        lack = runtime.lacks.load()()
    except ArtifactError as error:
        return replace(capability, works=False, detail=str(error), mend="install it again")
    if lack is None:
        facts = runtime.describes.load()() if runtime.describes is not None else {}
        found = f"{facts['name']}, compute capability {facts['capability']}, driver {facts['driver']}" if facts else ""
        on = f"{found}, CUDA {facts['cuda']}" if "cuda" in facts else found
        return replace(capability, detail=f"{capability.detail}; {on}" if on else capability.detail)
    return replace(capability, works=False, detail=f"{capability.detail}; {lack.reason}", mend=lack.mend)


def _with_formats(row: Target) -> str:
    return f"{row.title} ({', '.join(row.formats)})" if row.formats else row.title


def _emulated(row: Target) -> str:
    return " and ".join((*row.runtime.cpu_widens, *row.runtime.cpu_lacks))


def _capability(what: str, libraries: tuple[Library, ...]) -> Capability:
    lacking = missing(libraries)
    versions = tool_versions(name for library in libraries for name in library.distributions)
    extras = sorted({library.extra for library in lacking})
    return Capability(
        what=what,
        works=not lacking,
        detail=", ".join(f"{name} {number}" for name, number in versions.items()) or "nothing installed",
        mend=f"pip install '{PACKAGE}[{','.join(extras)}]'" if lacking else None,
    )


def examine_engines(detect: Callable[[], tuple[Gpu, ...]] = find_gpus) -> list[Capability]:
    """Returns what this machine's GPU and the installed TensorRT can do. TensorRT is not loaded."""
    try:
        gpus, detail = detect(), ""
    except ConversionError as error:
        gpus, detail = (), reason_of(error)
    detail = "; ".join(map(str, gpus)) or detail
    mend = None if gpus else "building for --target rtx needs no GPU; running an engine needs one, and its driver"
    classic = {name: kind.capabilities for name, kind in KINDS.items() if kind.runtime == "tensorrt"}
    here = {gpu.capability for gpu in gpus}
    # A Jetson's TensorRT depends on its JetPack, which cannot be read from the GPU: several kinds may fit.
    kinds = [name for name, possible in classic.items() if here & set(possible)] or ["datacenter"]
    possible = {capability for capabilities in classic.values() for capability in capabilities}
    run = _engines("run TensorRT-RTX engines (unexecuted: never run by us)", "tensorrt-rtx", ["rtx"])
    both = _engines("build and run TensorRT engines (unexecuted: never run by us)", "tensorrt", kinds)
    return [
        Capability("find an NVIDIA GPU", bool(gpus), detail, mend),
        _engines("build TensorRT-RTX engines, without a GPU", "tensorrt-rtx", ["rtx"]),
        _on_gpu(run, gpus, set(RTX), and_later=True),
        _on_gpu(both, gpus, possible, and_later=False),
    ]


def machine() -> dict[str, Any]:
    """Returns what a bug report needs to say about this machine."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "tools": tool_versions((PACKAGE, "numpy", "safetensors", "huggingface_hub", "tokenizers")),
        "capabilities": [asdict(capability) for capability in examine()],
    }


def _int8_kernels() -> Capability:
    """Whether onnxruntime's int8 kernels are exact here: products of whole numbers, held to numpy's."""
    what = "multiply int8 exactly in onnxruntime, on this CPU"
    if lacking := missing(INT8_KERNELS.needs):
        names = ", ".join(library.module for library in lacking)
        return Capability(what, False, f"not tried: {names} is not installed", f"pip install '{PACKAGE}[onnx]'")
    from lxmert_export.graphs.int8_saturation import WEIGHT_RANGES

    try:
        is_exact = INT8_KERNELS.load()
    except ArtifactError as error:
        return Capability(what, False, str(error), "install it again")
    if is_exact(WEIGHT_RANGES["8bit"]):
        return Capability(what, True, "8-bit weights are exact", None)
    if is_exact(WEIGHT_RANGES["7bit"]):
        return Capability(what, False, "7-bit weights are exact, 8-bit ones saturate", "export with --int8-range 7bit")
    return Capability(what, False, "products are wrong", "install another version of onnxruntime")


def _half_precision_on_gpu() -> Capability:
    what = "run fp16 and bf16 in their own arithmetic (GPU)"
    if missing([ONNXRUNTIME]):
        return Capability(what, False, "onnxruntime is not installed", f"pip install '{PACKAGE}[onnx]'")
    import onnxruntime

    from lxmert_export.runners.onnx.providers import HALF_PRECISION

    providers = onnxruntime.get_available_providers()
    works = any(provider in HALF_PRECISION for provider in providers)
    mend = None if works else f"pip uninstall --yes onnxruntime && pip install '{PACKAGE}[cuda]'"
    return Capability(what, works, f"onnxruntime has {', '.join(providers)}", mend)


def _engines(what: str, runtime: EngineRuntime, kinds: list[str]) -> Capability:
    """Whether a TensorRT is installed, and Polygraphy, through which it is called."""
    lacking = missing([LIBRARIES[runtime], POLYGRAPHY])
    installed = ", ".join(f"{name} {number}" for name, number in tool_versions((runtime, "polygraphy")).items())
    mend = " or ".join(
        f"{install_line(kind)} (--target {kind})" if len(kinds) > 1 else install_line(kind) for kind in kinds
    )
    return Capability(what, not lacking, installed or "nothing installed", mend if lacking else None)


def _on_gpu(
    installed: Capability, gpus: tuple[Gpu, ...], possible: set[tuple[int, int]], *, and_later: bool
) -> Capability:
    """The capability ``installed``, not working if there is no GPU that the installed TensorRT can use."""
    if not installed.works:
        return installed
    if not gpus:
        return replace(
            installed, works=False, detail=f"{installed.detail}; no GPU found", mend="an NVIDIA GPU, and its driver"
        )
    if not any(gpu.capability is None or is_among(gpu.capability, possible, and_later=and_later) for gpu in gpus):
        listed = ", ".join(map(written, sorted(possible))) + (" or later" if and_later else "")
        detail = f"{installed.detail}; not for {gpus[0]}"
        return replace(installed, works=False, detail=detail, mend=f"a GPU of compute capability {listed}")
    return installed
