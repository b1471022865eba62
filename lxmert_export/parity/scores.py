"""Scores: a runner's error against float64, divided by the error that its precision causes anyway.

The reference is the canonical model in float64. The noise floor of a precision is the RMS error of the canonical model
itself, run in that precision. A score is a runner's RMS error divided by the floor. Each output has one floor per input family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The distance from 1 to the next larger number (numpy has no bfloat16). For int8: one step, relative to the largest value that
# the scale can hold.
EPS = {"fp64": 2.0**-52, "fp32": 2.0**-23, "fp16": 2.0**-10, "bf16": 2.0**-7, "tf32": 2.0**-10, "int8": 2.0**-7}
# A floor is at least this many eps x the reference's RMS. Otherwise an output that happens to be exact would allow no error.
LEAST_FLOOR = 4.0
# A floor of a larger share of the reference's RMS proves nothing: noise of that size hides every fault. The shares of correct
# checkpoints are in benchmarks/floor_shares.md; noise of 1e-3 of an output must not pass as a floor of fp32.
LARGEST_SHARE = {"fp64": 1e-4, "fp32": 1e-4, "fp16": 0.25, "bf16": 0.5, "tf32": 0.25, "int8": float("inf")}
# Where all words or objects of a row may be masked, fp32's floor is a thousand times as large: float32 has steps of 2^-10 near
# -10000, which is added to each score.
LARGEST_MASKED_SHARE = 5e-3
# A score above these fails. `make study` (benchmarks/study.md) measured 3,050 random correct checkpoints: no score was above 7
# (TFLite fp16; 2.7 elsewhere, int8 aside). Every planted fault of 20 floors or more was caught.
THRESHOLD = 8.0
PAIR_THRESHOLD = 8.0

Chunks = Sequence[NDArray[np.generic]]


@dataclass(frozen=True)
class Floor:
    """The noise floor of one output in one input family: the canonical model's RMS error at a precision.

    ``reference_rms``: RMS of the float64 outputs. ``samples``, ``values``: number of rows and values in the measurement.
    ``ties``: for an output of integers, which must be exact: where the reference is near a tie, in each batch (bool, of the
    output's shape). There rounding may choose another integer, so that nothing is compared. None for floating-point outputs.
    """

    rms: float
    reference_rms: float
    samples: int
    values: int
    ties: tuple[NDArray[np.bool_], ...] | None = None


@dataclass(frozen=True)
class Errors:
    """The difference of two sets of arrays: its root mean square, its largest absolute value, and the number of values."""

    rms: float
    maximum: float
    values: int


def measure_floor(reference: Chunks, computed: Chunks, precision: str) -> Floor:
    """Returns the floor of a precision, from the same batches computed in float64 and in that precision.

    The floor is at least ``LEAST_FLOOR`` eps x the reference's RMS. Integers have the floor 0, and ties where the two differ.
    """
    reference_rms = rms(reference)
    if are_exact(reference):
        differ = tuple(got != wanted for wanted, got in zip(reference, computed, strict=True))
        return Floor(0.0, reference_rms, sum(map(len, reference)), sum(chunk.size for chunk in reference), differ)
    least = LEAST_FLOOR * EPS[precision] * reference_rms
    return Floor(
        rms=max(errors(reference, computed).rms, least),
        reference_rms=reference_rms,
        samples=sum(len(chunk) for chunk in reference),
        values=sum(chunk.size for chunk in reference),
    )


def are_exact(chunks: Chunks) -> bool:
    """Whether arrays hold integers or flags, which have no rounding error."""
    return all(chunk.dtype.kind in "iub" for chunk in chunks)


def without_ties(chunks: Chunks, floor: Floor) -> Chunks:
    """Returns the values that are compared: those of integers that are not near a tie, flat; all others as they are."""
    if floor.ties is None:
        return chunks
    return [chunk[~tied] for chunk, tied in zip(chunks, floor.ties, strict=True)]


def int8_floor(reference: Chunks) -> Floor:
    """Returns the floor of int8: four int8 steps x the RMS deviation of each entry of the last axis from its mean over rows.

    Only deviations count, so that a constant answer does not come near to passing. Batches with last axes of different sizes
    (attention over different lengths) have separate means. The floor is at least float32's: attention over one object never
    varies.
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
    """Returns the least floor of float32, for two runs that should compute the same."""
    return measure_floor(reference, reference, "fp32")


def errors(reference: Chunks, computed: Chunks) -> Errors:
    """Returns the errors pooled over batches, in float64; NaN if any value is NaN."""
    total, largest, values = 0.0, 0.0, 0
    for wanted, got in zip(reference, computed, strict=True):
        difference = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
        total += float(np.square(difference).sum())
        largest = float(np.maximum(largest, difference.max(initial=0.0)))
        values += difference.size
    return Errors(float(np.sqrt(total / values)) if values else float("nan"), largest, values)


def rms(chunks: Chunks) -> float:
    """Returns the root mean square over all batches."""
    total = sum(float(np.square(chunk.astype(np.float64)).sum()) for chunk in chunks)
    return float(np.sqrt(total / max(sum(chunk.size for chunk in chunks), 1)))


def largest_share(precision: str, *, masked_rows: bool) -> float:
    """Returns the largest share of the reference's RMS that a floor may be. ``masked_rows``: rows may be masked as a whole."""
    limit = LARGEST_SHARE[precision]
    return max(limit, LARGEST_MASKED_SHARE) if masked_rows else limit


def score_of(error_rms: float, floor_rms: float) -> float:
    """Returns error / floor. If the floor is 0 (an output that is zero everywhere): 0 without an error, else infinity."""
    if not floor_rms:
        return float("inf") if error_rms else 0.0
    return error_rms / floor_rms


def pair_score(difference: Errors, one: Floor, other: Floor) -> float:
    """Returns RMS(A - B) / sqrt(floor_A^2 + floor_B^2); needs no reference."""
    return score_of(difference.rms, float(np.hypot(one.rms, other.rms)))
