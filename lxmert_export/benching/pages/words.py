"""How the pages of a bench write its figures, from its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxmert_export.benching.figures import LEAST_VALUES, Interval
from lxmert_export.parity.pages.overview import number

Facts = Mapping[str, Any]
QUIET = 0.10  # the largest spread of a quiet machine


def interval(found: Facts) -> str:
    """A median and its interval."""
    return str(Interval(**found))


def figure(value: float) -> str:
    """Milliseconds, or rows a second: three digits, or whole numbers from a thousand on."""
    return f"{value:,.0f}" if value >= 1000 else number(value)


def speed_legend(first: str, rounds: int) -> str:
    """What the column ``speed`` of a setting holds."""
    brackets = "its 95 % interval" if rounds >= LEAST_VALUES else "the least and the largest: too few for an interval"
    return f"speed: times as fast as {first}, the median of {rounds} round{'s' * (rounds != 1)} ({brackets})"


def giga(operations: int | None) -> str:
    """Operations of a call, in GFLOP; a dash if they are not counted."""
    return "–" if operations is None else f"{operations / 1e9:.3g}"


def share(part: float | None) -> str:
    """A share in percent; a dash for None."""
    return "–" if part is None else f"{part:.0%}"


def differs(agreement: Facts) -> str:
    """The largest difference from the first contestant's answers, and whether it is too large."""
    shown = agreement["fault"] or number(agreement["largest"])
    return shown if agreement["agrees"] else f"{shown} WRONG"
