"""Errors in units of the noise floor: how far a runner is from float64, beside how far its precision must be.

The reference is the canonical model in float64. The floor of a precision is the error of the canonical model itself, run
in that precision; a score is a runner's error divided by it. One (output, input family) has one floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The distance from 1 to the next number: numpy's finfo.eps, and bfloat16's, which numpy does not have. One step of int8, of
# the largest value that its scale holds.
EPS = {"fp64": 2.0**-52, "fp32": 2.0**-23, "fp16": 2.0**-10, "bf16": 2.0**-7, "int8": 2.0**-7}
# A floor is never below this many eps of the reference's RMS: an output that happens to be exact leaves no room at all.
LEAST_FLOOR = 4.0
# Above these a score fails. Measured by `make study` (benchmarks/study.md): no score of 320 random correct checkpoints, each
# in two precisions, was above 1.3; every planted fault of 20 floors or more scores above 8.
THRESHOLD = 8.0
PAIR_THRESHOLD = 8.0

Chunks = Sequence[NDArray[np.generic]]


@dataclass(frozen=True)
class Floor:
    """The noise floor of one (output, family): RMS error of the canonical model at a precision, and what it was pooled from."""

    rms: float
    reference_rms: float
    samples: int
    values: int


@dataclass(frozen=True)
class Errors:
    """How far two sets of arrays are apart: root mean square and largest absolute difference, and how many values."""

    rms: float
    maximum: float
    values: int


def measure_floor(reference: Chunks, computed: Chunks, precision: str) -> Floor:
    """The floor of a precision, from the same batches computed in float64 and in that precision."""
    reference_rms = rms(reference)
    least = LEAST_FLOOR * EPS[precision] * reference_rms
    return Floor(
        rms=max(errors(reference, computed).rms, least),
        reference_rms=reference_rms,
        samples=sum(len(chunk) for chunk in reference),
        values=sum(chunk.size for chunk in reference),
    )


def int8_floor(reference: Chunks) -> Floor:
    """The floor of int8: four of its steps, of how much each entry of the last axis differs from its own mean.

    What all rows have in common says nothing of a model: a constant answer must not come near to passing. Batches whose last
    axes differ (attention over other lengths) have means of their own. What never varies at all (attention over one object)
    has the floor of float32.
    """
    centred = []
    for width in {chunk.shape[-1] for chunk in reference}:
        rows = np.concatenate([c.astype(np.float64).reshape(-1, width) for c in reference if c.shape[-1] == width])
        centred.append(rows - rows.mean(axis=0))
    return Floor(
        rms=max(LEAST_FLOOR * EPS["int8"] * rms(centred), exact_floor(reference).rms),
        reference_rms=rms(reference),
        samples=sum(len(chunk) for chunk in reference),
        values=sum(chunk.size for chunk in reference),
    )


def exact_floor(reference: Chunks) -> Floor:
    """The least floor of float32, for what ought to be the same computation."""
    return measure_floor(reference, reference, "fp32")


def errors(reference: Chunks, computed: Chunks) -> Errors:
    """Errors pooled over batches, in float64; NaN if anything is NaN."""
    total, largest, values = 0.0, 0.0, 0
    for wanted, got in zip(reference, computed, strict=True):
        difference = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
        total += float(np.square(difference).sum())
        largest = float(np.maximum(largest, difference.max(initial=0.0)))
        values += difference.size
    return Errors(float(np.sqrt(total / values)) if values else float("nan"), largest, values)


def rms(chunks: Chunks) -> float:
    """Root mean square over all batches."""
    total = sum(float(np.square(chunk.astype(np.float64)).sum()) for chunk in chunks)
    return float(np.sqrt(total / max(sum(chunk.size for chunk in chunks), 1)))


def score_of(error_rms: float, floor_rms: float) -> float:
    """An error in noise floors; of an output that is zero everywhere, infinite unless it is met."""
    if not floor_rms:
        return float("inf") if error_rms else 0.0
    return error_rms / floor_rms


def pair_score(difference: Errors, one: Floor, other: Floor) -> float:
    """RMS(A - B) over the root sum of squares of both floors: needs no reference."""
    return score_of(difference.rms, float(np.hypot(one.rms, other.rms)))
