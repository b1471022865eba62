"""Which execution providers of onnxruntime compute in half precision; imports no runtime."""

from __future__ import annotations

from collections.abc import Sequence

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# Providers that compute in half precision; all others compute a half-precision graph in float32.
HALF_PRECISION = frozenset(
    f"{name}ExecutionProvider" for name in ("CUDA", "Tensorrt", "NvTensorRTRTX", "ROCM", "MIGraphX", "Dml")
)
# onnxruntime's CUDA provider computes float32 in TF32 unless it is told not to, and TF32 keeps 10 bits of a mantissa.
PROVIDER_OPTIONS = {CUDA: {"use_tf32": "0"}}


def settings_of(providers: Sequence[str]) -> tuple[str, ...]:
    """Returns, in words for a report, what the providers are told that changes their arithmetic."""
    return tuple(f"TF32 off ({name})" for name in providers if PROVIDER_OPTIONS.get(name, {}).get("use_tf32") == "0")


def device_of(providers: Sequence[str]) -> str:
    """Returns the device of the first provider, as a report names it: ``CPU``, ``CUDA``."""
    return providers[0].removesuffix("ExecutionProvider") if providers else "CPU"


def computes_in(precision: str, providers: Sequence[str]) -> bool:
    """Returns whether the first provider computes a graph of this precision in this precision."""
    return precision == "fp32" or providers[0] in HALF_PRECISION
