"""Whether a contestant answers as the first one does: a fast file that answers something else is worthless."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import ComputedPrecision

# The largest RMS difference that counts as the same answer, as a share of the output's RMS. Rounding to fp16 or TF32 (2^-11)
# costs about 0.001 over all layers and bf16 (2^-8) eight times that; fp32 costs about 1e-6. Each limit is ten times as much or
# more: parity judges precisions, this check finds what computes something else, whose difference is about 1. int8 has no such
# law: its limit is half of what unrelated answers differ by.
LIMITS: Mapping[ComputedPrecision, float] = {"fp32": 0.001, "fp16": 0.02, "tf32": 0.02, "bf16": 0.1, "int8": 0.5}


@dataclass(frozen=True)
class Agreement:
    """The output in which a contestant differs most from the first one.

    ``largest``: the largest difference of two values. ``share``: the RMS difference ÷ the RMS of the first one's output.
    ``limit``: the largest ``share`` of these two precisions. ``fault``: what is wrong if the outputs cannot be compared.
    """

    output: str
    largest: float | None
    share: float | None
    limit: float
    fault: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether both compute the same function."""
        return self.fault is None and self.share is not None and self.share <= self.limit


def agreement_of(first: Arrays, own: Arrays, precisions: tuple[ComputedPrecision, ComputedPrecision]) -> Agreement:
    """Compares a contestant's outputs with the first one's, by name; returns the output that differs most."""
    limit = max(LIMITS[precision] for precision in precisions)
    compared = [_compared(name, first[name], own.get(name), limit) for name in first]
    return max(compared, key=lambda one: float("inf") if one.share is None else one.share)


def _compared(name: str, first: np.ndarray, own: np.ndarray | None, limit: float) -> Agreement:
    if own is None:
        return Agreement(name, None, None, limit, "is missing")
    if own.shape != first.shape:
        return Agreement(
            name, None, None, limit, f"has shape {list(own.shape)}, the first one's is {list(first.shape)}"
        )
    one, other = first.astype(np.float64), own.astype(np.float64)
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return Agreement(name, None, None, limit, "holds NaN or infinity")
    difference = other - one
    size, rms = _rms(one), _rms(difference)
    share = rms / size if size else float(rms > 0)
    return Agreement(name, float(np.abs(difference).max(initial=0.0)), share, limit)


def _rms(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(array)))) if array.size else 0.0
