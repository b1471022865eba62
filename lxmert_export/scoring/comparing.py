"""Compares two sets of answers question by question: who answers something else, and whether a difference may be chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lxmert_export.data.questions.question_set import Question, QuestionSet
from lxmert_export.scoring.scored import Scored

COVERAGE = 95  # per cent of the interval
RESAMPLES, SEED = 10_000, 0
# Up to so many questions that only one side answers better, McNemar's test is exact; beyond, the normal distribution is.
MOST_EXACT = 1_000


@dataclass(frozen=True)
class Flip:
    """A question that the second answers in another way than the first. ``scores``: of both, per cent; None: not scored."""

    question: Question
    answers: tuple[str, str]
    scores: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return {
            "id": self.question.id,
            "pictures": list(self.question.pictures),
            "question": self.question.text,
            "answers": list(self.answers),
            "scores": None if self.scores is None else list(self.scores),
        }


@dataclass(frozen=True)
class Difference:
    """How many points better the second is: the mean over the counted questions, with an interval by the paired bootstrap.

    ``better``, ``worse``: the questions that the second scores higher, and lower. ``p_value``: McNemar's: how likely so uneven
    a split of them is if both were equally good. ``exact``: by the binomial distribution.
    """

    points: float
    low: float
    high: float
    better: int
    worse: int
    p_value: float
    exact: bool

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return {
            "points": self.points,
            "interval": {
                "low": self.low,
                "high": self.high,
                "coverage": COVERAGE,
                "resamples": RESAMPLES,
                "seed": SEED,
            },
            "mcnemar": {"better": self.better, "worse": self.worse, "p_value": self.p_value, "exact": self.exact},
        }


@dataclass(frozen=True)
class Comparison:
    """A set of answers beside the first one. ``flips``: the worst losses first. ``difference``: None if nothing is scored."""

    first: str
    second: str
    questions: int
    flips: tuple[Flip, ...]
    difference: Difference | None

    @property
    def agreement(self) -> float:
        """The share of questions that both answer alike, per cent."""
        return 100 * (self.questions - len(self.flips)) / self.questions

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return {
            "first": self.first,
            "second": self.second,
            "agreement": self.agreement,
            "same": self.questions - len(self.flips),
            "difference": None if self.difference is None else self.difference.to_dict(),
            "flips": [flip.to_dict() for flip in self.flips],
        }


def compare(
    questions: QuestionSet,
    names: tuple[str, str],
    answers: tuple[Mapping[str, str], Mapping[str, str]],
    scored: tuple[Scored, Scored] | None,
) -> Comparison:
    """Compares the second set of answers with the first; every question must be among both."""
    first, second = answers
    flips = []
    for question in questions.questions:
        given = first[question.id], second[question.id]
        if given[0] != given[1]:
            points = None if scored is None else (scored[0].questions[question.id], scored[1].questions[question.id])
            flips.append(Flip(question, given, points))
    flips.sort(key=_gain)
    difference = difference_of(*(_counted(one) for one in scored)) if scored and scored[0].counted else None
    return Comparison(*names, len(questions.questions), tuple(flips), difference)


def _gain(flip: Flip) -> float:
    return 0.0 if flip.scores is None else flip.scores[1] - flip.scores[0]


def _counted(scored: Scored) -> list[float]:
    return [scored.questions[id] for id in scored.counted]


def difference_of(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Returns how much better the second scores are than the first, question by question, per cent."""
    gains = np.round(
        np.asarray(second, np.float64) - np.asarray(first, np.float64), 6
    )  # so that equal gains are equal numbers
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    low, high = _interval(gains)
    exact = better + worse <= MOST_EXACT
    return Difference(float(gains.mean()), low, high, better, worse, mcnemar(better, worse, exact=exact), exact)


def _interval(gains: NDArray[np.float64]) -> tuple[float, float]:
    """The interval of the mean by the bootstrap: questions are drawn with replacement, each with both of its scores.

    Only how often each gain is drawn matters. These counts are multinomial, so they are drawn themselves: a few numbers for each
    resample instead of one for each question.
    """
    values, counts = np.unique(gains, return_counts=True)
    generator = np.random.Generator(np.random.PCG64(SEED))
    means = generator.multinomial(len(gains), counts / len(gains), RESAMPLES) @ values / len(gains)
    outside = (100 - COVERAGE) / 2
    low, high = np.percentile(means, (outside, 100 - outside))
    return float(low), float(high)


def mcnemar(better: int, worse: int, *, exact: bool) -> float:
    """Returns the two-sided p-value of McNemar's test, given how many questions each side answers better.

    With partial credit it is the sign test of the questions' differences, which for right and wrong is the same.
    """
    total = better + worse
    if total == 0:
        return 1.0
    if exact:
        tail = sum(math.comb(total, count) for count in range(min(better, worse) + 1))
        return min(1.0, float(2 * tail / 2**total))
    corrected = max(abs(better - worse) - 1, 0) ** 2 / total  # Edwards' correction for continuity
    return math.erfc(math.sqrt(corrected / 2))
