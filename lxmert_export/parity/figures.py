"""Further measures of an error beside its RMS: its size, where it is, and which choices it changes. They judge nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lxmert_export.parity.decisions import near_tie_margin
from lxmert_export.parity.scores import EPS, Chunks, rms

TOP = 5  # the number of best entries that `top_k_overlap` compares
WORST_INPUTS = 3
# Edges of the histogram of |error| / floor, in powers of two. The two outermost bins count everything beyond them.
HISTOGRAM_POWERS = (-12, 8)
HISTOGRAM_EDGES = np.concatenate([[0.0], 2.0 ** np.arange(HISTOGRAM_POWERS[0], HISTOGRAM_POWERS[1] + 1), [np.inf]])

Float64s = NDArray[np.float64]


@dataclass(frozen=True)
class Choices:
    """How errors change the choice (the best entry of the last axis) in each row that has one.

    rows             the number of rows with a choice
    agreed           rows with the same choice
    tied_flips       rows with another choice that is a near-tie
    flips            rows with another choice that is not a near-tie
    top_k_overlap    the share of the ``TOP`` best entries that both have, averaged over rows
    divergence       the Kullback-Leibler divergence of the distributions in nats, averaged over rows
    """

    rows: int
    agreed: int
    flips: int
    tied_flips: int
    top_k_overlap: float
    divergence: float


@dataclass(frozen=True)
class WorstInput:
    """One row of one batch of a family, and the RMS error of the output in that row."""

    batch: int
    row: int
    error_rms: float


@dataclass(frozen=True)
class Figures:
    """The error in the usual measures, pooled over the batches of a family.

    relative_*    error / magnitude of the reference; magnitudes below the noise floor count as the floor
    ulp_*         error in units in the last place of the precision, at the reference's magnitude; None for int8
    histogram     the number of values by |error| / floor, between ``HISTOGRAM_EDGES``
    """

    error_mean: float
    relative_rms: float
    relative_mean: float
    relative_max: float
    cosine: float | None
    ulp_median: float | None
    ulp_max: float | None
    histogram: tuple[int, ...]
    worst_inputs: tuple[WorstInput, ...]
    choices: Choices | None


def measure_figures(
    reference: Chunks, computed: Chunks, floor: float, precision: str | None, *, masks: Chunks | None, chosen: bool
) -> Figures:
    """Returns all figures of finite arrays of the same shapes.

    ``chosen``: whether the last axis holds scores to choose by. ``masks``: for each batch, 0 for rows without a choice; None if
    all rows have one.
    """
    wanted, got = _flat(reference), _flat(computed)
    error = np.abs(got - wanted)
    relative = error / np.maximum(np.abs(wanted), max(floor, np.finfo(np.float64).tiny))
    units = None if precision not in EPS or precision == "int8" else error / _last_place(wanted, precision)
    return Figures(
        error_mean=float(error.mean()),
        relative_rms=float(np.sqrt(np.square(relative).mean())),
        relative_mean=float(relative.mean()),
        relative_max=float(relative.max()),
        cosine=_cosine(wanted, got),
        ulp_median=None if units is None else float(np.median(units)),
        ulp_max=None if units is None else float(units.max()),
        histogram=_histogram(error, floor),
        worst_inputs=_worst_inputs(reference, computed),
        choices=_choices(reference, computed, floor, masks) if chosen else None,
    )


def _flat(chunks: Chunks) -> Float64s:
    flat: Float64s = np.concatenate([chunk.reshape(-1).astype(np.float64) for chunk in chunks])
    return flat


def _last_place(values: Float64s, precision: str) -> Float64s:
    """Returns one unit in the last place of a precision at each magnitude, never less than at its smallest normal number."""
    least = -14 if precision == "fp16" else -1022 if precision == "fp64" else -126
    _, exponent = np.frexp(values)
    units: Float64s = np.ldexp(EPS[precision], np.maximum(exponent - 1, least))
    return units


def _cosine(wanted: Float64s, got: Float64s) -> float | None:
    lengths = float(np.linalg.norm(wanted) * np.linalg.norm(got))
    return float(wanted @ got) / lengths if lengths else None


def _histogram(error: Float64s, floor: float) -> tuple[int, ...]:
    counts, _ = np.histogram(error / floor if floor else np.where(error > 0, np.inf, 0), HISTOGRAM_EDGES)
    return tuple(int(count) for count in counts)


def _worst_inputs(reference: Chunks, computed: Chunks) -> tuple[WorstInput, ...]:
    rows = [
        WorstInput(batch, row, rms([one_got.astype(np.float64) - one_wanted.astype(np.float64)]))
        for batch, (wanted, got) in enumerate(zip(reference, computed, strict=True))
        if wanted.ndim > 1  # a golden file's samples of a large output are flat, without rows
        for row, (one_wanted, one_got) in enumerate(zip(wanted, got, strict=True))
    ]
    return tuple(sorted(rows, key=lambda row: -row.error_rms)[:WORST_INPUTS])


def _choices(reference: Chunks, computed: Chunks, floor: float, masks: Chunks | None) -> Choices | None:
    if any(wanted.ndim < 2 or wanted.shape[-1] < 2 for wanted in reference):
        return None
    rows = [_chosen_rows(number, reference, computed, masks) for number in range(len(reference))]
    margin, counts = near_tie_margin(floor), {"rows": 0, "agreed": 0, "tied_flips": 0}
    overlap = divergence = 0.0
    for wanted, got in rows:
        best, chosen = wanted.argmax(axis=-1), got.argmax(axis=-1)
        at = np.arange(len(wanted))
        shortfall = wanted[at, best] - wanted[at, chosen]
        counts["rows"] += len(wanted)
        counts["agreed"] += int((best == chosen).sum())
        counts["tied_flips"] += int(((best != chosen) & (shortfall < margin)).sum())
        overlap += float(_top_overlap(wanted, got).sum())
        divergence += float(_divergence(wanted, got).sum())
    if not counts["rows"]:
        return None
    flips = counts["rows"] - counts["agreed"] - counts["tied_flips"]
    return Choices(
        **counts, flips=flips, top_k_overlap=overlap / counts["rows"], divergence=divergence / counts["rows"]
    )


def _chosen_rows(number: int, reference: Chunks, computed: Chunks, masks: Chunks | None) -> tuple[Float64s, Float64s]:
    """Returns the rows of one batch that have a choice: [rows, entries] of the reference and of the runner."""
    wanted, got = (side[number].astype(np.float64) for side in (reference, computed))
    seen = np.full(wanted.shape[:-1], True) if masks is None else masks[number] != 0
    return wanted[seen], got[seen]


def _top_overlap(wanted: Float64s, got: Float64s) -> Float64s:
    count = min(TOP, wanted.shape[-1])
    best, found = (np.argpartition(side, -count, axis=-1)[:, -count:] for side in (wanted, got))
    shares: Float64s = (best[:, :, None] == found[:, None, :]).any(axis=2).mean(axis=1)
    return shares


def _divergence(wanted: Float64s, got: Float64s) -> Float64s:
    log_p, log_q = (side - _log_sum(side) for side in (wanted, got))
    divergence: Float64s = np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=-1), 0)  # not below 0 by rounding
    return divergence


def _log_sum(scores: Float64s) -> Float64s:
    largest = scores.max(axis=-1, keepdims=True)
    summed: Float64s = largest + np.log(np.exp(scores - largest).sum(axis=-1, keepdims=True))
    return summed
