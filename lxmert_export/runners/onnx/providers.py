"""onnxruntime's execution providers, as far as parity depends on them; imports nothing."""

from __future__ import annotations

from collections.abc import Sequence

CPU = "CPUExecutionProvider"
# Providers with half-precision arithmetic of their own; all others compute a half-precision graph in float32.
HALF_PRECISION = frozenset(
    f"{name}ExecutionProvider" for name in ("CUDA", "Tensorrt", "NvTensorRTRTX", "ROCM", "MIGraphX", "Dml")
)


def computes_in(precision: str, providers: Sequence[str]) -> bool:
    """Whether the first provider computes a graph of this precision in this precision."""
    return precision == "fp32" or providers[0] in HALF_PRECISION
