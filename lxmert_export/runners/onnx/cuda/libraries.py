"""Finds CUDA's libraries for onnxruntime, and says in one line why its CUDA provider does not start or fails."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import onnxruntime

from lxmert_export.artifact.manifest import tool_versions
from lxmert_export.errors import PACKAGE
from lxmert_export.extras import ONNXRUNTIME_GPU, both_onnxruntimes
from lxmert_export.runners.onnx.providers import CUDA

# The libraries that the provider loads, by the beginning of their files' names. The driver brings libcuda, pip the others.
LIBRARIES = {
    "cublas": "cuBLAS", "cudnn": "cuDNN", "cudart": "the CUDA runtime", "curand": "cuRAND", "cufft": "cuFFT", "nvrtc": "NVRTC",
}  # fmt: skip
DRIVER = "libcuda.so"
MISSING_FILE = re.compile(
    r"(?:with error: |depends on \")(?:lib)?((?:lib)?[\w+-]+\.(?:so|dll)[\w.]*)(?:: cannot open|\" which is missing)"
)
CUDA_FAILURE = re.compile(r"CUDA failure (\d+): ([^;]+?) ?;")
NOT_LOADED = "Failed to load "  # how `preload_dlls` begins a line about a library that it does not find
# CUDA's codes of errors, and what they mean to a user. Source: cudaError_t of the CUDA Runtime API.
MEMORY = 2
FAILURES_IN_WORDS: Mapping[int, str] = {
    MEMORY: "the GPU has no memory left: nvidia-smi lists what holds it",
    35: "the driver is too old for CUDA {cuda}, for which {build} is built: install a newer driver, or an onnxruntime-gpu for an "
    "older CUDA",
    46: "the GPU is busy: another process has it for itself (nvidia-smi lists it, and the compute mode)",
    100: "the driver finds no GPU: look whether nvidia-smi and CUDA_VISIBLE_DEVICES show one",
    101: "the driver finds no GPU of this number: look at CUDA_VISIBLE_DEVICES",
    209: "{build} holds no machine code for this GPU: install another version",
    802: "the GPU is not ready: its fabric manager does not run",
    803: "the driver in the kernel and its libraries are of different versions: restart the machine, or install the driver again",
    804: "the driver is too old for CUDA {cuda}, and this GPU takes no newer libraries with an older one: install a newer driver",
}
OUT_OF_MEMORY = re.compile(
    r"Failed to allocate memory for requested buffer of size (\d+)|CUDA failure 2:|CUBLAS_STATUS_ALLOC_FAILED|out of memory"
)


def preload_libraries() -> None:
    """Loads CUDA's libraries from where NVIDIA's wheels or PyTorch's put them. PyTorch is not imported.

    What is not found there is looked for by the system, and what is not found at all is told when a session is opened.
    """
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is None:  # before 1.21
        return
    with redirect_stdout(io.StringIO()) as said:
        preload()
        if NOT_LOADED in said.getvalue() and (place := _libraries_of_pytorch()) is not None:
            preload(directory=str(place))


def _libraries_of_pytorch() -> Path | None:
    found = find_spec("torch")
    places = [Path(place, "lib") for place in (found.submodule_search_locations or ())] if found else []
    return next((place for place in places if place.is_dir()), None)


def why_no_provider() -> tuple[str, str] | None:
    """Returns why the installed onnxruntime has no CUDA provider, and how to mend it; None if it has one."""
    if both := both_onnxruntimes():
        return both
    if CUDA in onnxruntime.get_available_providers():
        return None
    return (
        f"onnxruntime {onnxruntime.__version__} is the build for CPUs",
        f"pip uninstall --yes onnxruntime && pip install '{PACKAGE}[{ONNXRUNTIME_GPU.extra}]'",
    )


def why_not_started(said: str) -> str:
    """Returns in one line why the provider did not start, from what onnxruntime wrote or raised."""
    if (missing := MISSING_FILE.search(said)) is not None:
        return _missing(missing[1])
    return why_it_failed(said)


def why_it_failed(said: str) -> str:
    """Returns what an error of CUDA means or, of another one, its first line."""
    if (failure := CUDA_FAILURE.search(said)) is None:
        return _first_error(said)
    words = FAILURES_IN_WORDS.get(int(failure[1]))
    if words is None:
        return f"CUDA failure {failure[1]}: {failure[2]}"
    return words.format(cuda=cuda_version() or "this", build=build())


def cuda_version() -> str | None:
    """Returns the version of CUDA that onnxruntime is built for, such as ``13.0``; None if it is a build for CPUs."""
    version: str | None = getattr(onnxruntime, "cuda_version", None)
    return version or None


def build() -> str:
    """Returns the name and the version of the installed onnxruntime."""
    found = tool_versions(ONNXRUNTIME_GPU.distributions)
    return ", ".join(f"{name} {number}" for name, number in found.items()) or f"onnxruntime {onnxruntime.__version__}"


def _missing(file: str) -> str:
    name = file.removeprefix("lib")
    if name.startswith(DRIVER.removeprefix("lib")) or name.startswith("nvcuda"):
        return f"NVIDIA's driver ({DRIVER}) is not found: install it; a container needs the option --gpus all"
    known = next((title for start, title in LIBRARIES.items() if name.startswith(start)), "a library")
    return (
        f"{known} ({file if file.endswith('.dll') else f'lib{name}'}) is not found: "
        f"pip install 'onnxruntime-gpu[cuda,cudnn]=={onnxruntime.__version__}' brings it, and so does a PyTorch for CUDA "
        f"{(cuda_version() or '').split('.')[0]}".rstrip()
    )


def _first_error(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if ":onnxruntime:" in line and "[E:" in line]
    line = next(iter(errors or lines), "onnxruntime does not say why")
    return re.sub(r"^.*?\[E:onnxruntime[^\]]*\] ?", "", line)
