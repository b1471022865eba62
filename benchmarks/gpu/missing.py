"""What this machine lacks for the check, and how to bring it without a network: the first lines that `make gpu` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from lxmert_export.engines.device_kinds import RTX
from lxmert_export.engines.gpus import Gpu, find_gpus, is_among, reason_of, written
from lxmert_export.errors import ConversionError
from lxmert_export.extras import ONNXRUNTIME, POLYGRAPHY, TENSORRT, TENSORRT_RTX, missing

OFFLINE = (
    "without a network: on a machine with one, `pip download --only-binary :all: -d wheels PACKAGE`; carry the folder over (in "
    "pieces, if need be: `split -b 60M`); `pip install --no-index --find-links wheels PACKAGE`. `python -m "
    "benchmarks.gpu.prune_library` makes onnxruntime's CUDA library a quarter of its size"
)


@dataclass(frozen=True)
class Missing:
    """Something that is missing: what, what is not measured without it (None: nothing is), and the package that brings it."""

    what: str
    without: str | None
    package: str | None

    def __str__(self) -> str:
        told = f"missing: {self.what}: {self.without or 'nothing can be measured'}"
        return f"{told}; {self.package}" if self.package else told


def what_is_missing() -> list[Missing]:
    """Returns what is missing, the most important first. Those without ``without`` end the check."""
    return [*_of_machine(), *_of_onnxruntime(), *_of_pytorch()]


def why_no_engines(target: str) -> str | None:
    """Returns in one line why no engine can be built and run here; None: one can."""
    library = TENSORRT_RTX if target == "rtx" else TENSORRT
    if lacking := missing([library, POLYGRAPHY]):
        return f"{', '.join(one.module for one in lacking)} is not installed"
    if target != "rtx":
        return None
    return _refused_by_rtx(find_gpus()[0])


def _refused_by_rtx(gpu: Gpu) -> str | None:
    if is_among(gpu.capability, set(RTX), and_later=True):
        return None
    known = ", ".join(map(written, sorted(RTX)))
    capability = "unknown" if gpu.capability is None else written(gpu.capability)
    return f"TensorRT-RTX does not run on {gpu.name}, compute capability {capability}; it runs on {known} and later"


def _of_machine() -> Iterator[Missing]:
    try:
        find_gpus()
    except ConversionError as error:
        yield Missing(reason_of(error), None, None)


def _of_onnxruntime() -> Iterator[Missing]:
    if missing([ONNXRUNTIME]):
        yield Missing("onnxruntime-gpu", "our files are not run", "pip install onnxruntime-gpu")
        return
    from lxmert_export.runners.onnx.cuda.libraries import why_no_provider

    if lack := why_no_provider():
        yield Missing(lack[0], "our files are not run", lack[1])


def _of_pytorch() -> Iterator[Missing]:
    if not torch.cuda.is_available():
        yield Missing(
            f"a PyTorch that can use this GPU (PyTorch {torch.__version__} cannot)", None,
            "install one that is built for CUDA and fits the driver",
        )  # fmt: skip
    if find_spec("triton") is None:
        yield Missing("triton", "compiled PyTorch is not timed", "pip install triton")
    if not torch.profiler.kineto_available():
        yield Missing("PyTorch's profiler with CUPTI", "kernels are not counted", None)
