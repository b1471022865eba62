"""The scores of one set of answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scored:
    """The scores of a set of answers, in per cent.

    ``scores``: by their official names, rounded where the official program rounds. ``questions``: of each question. ``main``: the
    name of the score by which sets of answers are compared, the mean over the questions ``counted``. ``notes``: what is not
    as official, and why.
    """

    scores: Mapping[str, Any]
    questions: Mapping[str, float]
    main: str
    counted: Sequence[str]
    notes: tuple[str, ...] = ()


def mean(values: Sequence[float]) -> float:
    """Returns the mean as the official programs compute it: a plain sum, then one division; of nothing, 0."""
    return float(sum(values)) / len(values) if values else 0.0


def means_by(
    kinds: Sequence[str], values: Sequence[float], mean_of: Callable[[Sequence[float]], float] = mean
) -> dict[str, float]:
    """Returns the mean of the values of each kind, the kinds sorted."""
    grouped: dict[str, list[float]] = {}
    for kind, value in zip(kinds, values, strict=True):
        grouped.setdefault(kind, []).append(value)
    return {kind: mean_of(grouped[kind]) for kind in sorted(grouped)}
