"""The figures of calls: percentiles, spread, throughput, and ratios with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COVERAGE = 0.95
LEAST_VALUES = 6  # of which the least and the largest hold the median with this probability


@dataclass(frozen=True)
class Interval:
    """A median, and an interval that holds the true median with at least 95 % confidence.

    The interval is between two of the sorted values (order statistics), so it assumes no distribution. Of fewer than six
    values, no two are far enough apart: the interval is then from the least to the largest, and its confidence is lower.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """The median and the interval; the median alone if nothing varies, as of one value."""
        return f"{self.median:.2f}" + (f" ({self.low:.2f}–{self.high:.2f})" if self.low < self.high else "")


def interval_of(values: Sequence[float]) -> Interval:
    """Returns the median of values, with its interval."""
    ordered = sorted(values)
    outside = _left_out(len(ordered))
    return Interval(float(np.median(ordered)), float(ordered[outside]), float(ordered[-1 - outside]))


def _left_out(count: int) -> int:
    """How many of the sorted values may be left out on each side: by the binomial law of how many lie below the median."""
    below, left_out = 0.0, 0
    for number in range(count):
        below += math.comb(count, number) / 2**count
        if below > (1 - COVERAGE) / 2:
            break
        left_out = number
    return left_out


@dataclass(frozen=True)
class Latency:
    """Percentiles of milliseconds a call. ``spread``: the distance between quartiles, as a share of the median."""

    p50: float
    p95: float
    p99: float
    spread: float


def latency_of(milliseconds: Sequence[float]) -> Latency:
    """Returns the percentiles of the calls, interpolated linearly."""
    p25, p50, p75, p95, p99 = map(float, np.percentile(milliseconds, [25, 50, 75, 95, 99]))
    return Latency(p50, p95, p99, (p75 - p25) / p50 if p50 else 0.0)


def speed_of(first: Sequence[float], own: Sequence[float]) -> Interval:
    """Returns how many times as fast as the first contestant another is: the ratio of each round, first ÷ own."""
    return interval_of([one / other for one, other in zip(first, own, strict=True)])
