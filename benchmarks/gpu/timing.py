"""Times calls in turn: A, B, C, then B, C, A, …, so that a drift of the clock speed affects all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Call = Callable[[], object]
Wait = Callable[[], object]


@dataclass
class Timed:
    """The times of one contestant by round: seconds of each single call, and mean seconds of a call in a burst."""

    latencies: list[list[float]] = field(default_factory=list)
    bursts: list[float] = field(default_factory=list)

    def to_dict(self, batch: int) -> dict[str, Any]:
        """Returns milliseconds over all rounds, the median of each round, and samples per second of each burst."""
        every = [seconds for latencies in self.latencies for seconds in latencies]
        return {
            "calls": len(every),
            "p50_ms": 1000 * percentile(every, 0.5),
            "p99_ms": 1000 * percentile(every, 0.99),
            "round_medians_ms": [1000 * statistics.median(latencies) for latencies in self.latencies],
            "samples_per_second": [batch / seconds for seconds in self.bursts],
        }


def time_in_turn(
    calls: Mapping[str, Call],
    *,
    rounds: int,
    calls_each: int,
    wait: Wait,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timed]:
    """Times each call in each round: ``calls_each`` single calls, waiting for each, then as many in one burst."""
    found = {name: Timed() for name in calls}
    names = list(calls)
    for number in range(rounds):
        start = number % max(1, len(names))
        for name in names[start:] + names[:start]:
            call = calls[name]
            wait()
            latencies = [_seconds(call, 1, wait, clock) for _ in range(calls_each)]
            found[name].latencies.append(latencies)
            found[name].bursts.append(_seconds(call, calls_each, wait, clock) / calls_each)
    return found


def warm_up(
    call: Call, *, wait: Wait, seconds: float, least: int, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Calls ``least`` times and for ``seconds`` or more, because kernels are compiled behind the first calls."""
    began, count = clock(), 0
    while count < least or clock() - began < seconds:
        call()
        wait()
        count += 1


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that is at least as large as ``share`` of the values."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _seconds(call: Call, count: int, wait: Wait, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(count):
        call()
    wait()
    return clock() - began
