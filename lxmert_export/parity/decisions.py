"""Judged by decisions: does a runner give float64's answer to every question that is not a near-tie, and how many are right?

A score says how far the numbers are apart; this says what comes of it. Two answers whose float64 scores lie close together
may change places with the rounding of a sound artifact, so that such flips are counted and not condemned. How close
"close" is follows from the score: an artifact that just passes errs by ``THRESHOLD`` floors (RMS) in every score; the
difference of two scores then errs by sqrt(2) times that (RMS, if the two err independently). Hence

    near-tie margin = THRESHOLD x floor x sqrt(2)

A sound artifact, which errs by about one floor, would have to err by ``THRESHOLD`` standard deviations to cross it. One that
errs by nearly ``THRESHOLD`` floors does cross it now and then, among many questions, and fails here although its score
passes: errors that change confident answers are no rounding. int8 alone may change a few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lxmert_export.parity.recording import Arithmetic, shapes
from lxmert_export.parity.scores import THRESHOLD, Chunks

# int8 turns answers round: how many it may. Accuracy is the rule of MLPerf Inference for quantised models, 99 % of the
# reference's; three answers in a hundred may be others than float64's, near-ties apart.
LEAST_INT8_AGREEMENT, LEAST_INT8_ACCURACY = 0.97, 0.99
NO_ANSWER = -1  # a row that is missing or not finite


@dataclass(frozen=True)
class AnswerKey:
    """What answers are judged by: float64 scores in batches of [rows, answers], true answers and families of all rows."""

    reference: Chunks
    answer: NDArray[np.int64]
    family: NDArray[np.int64]
    families: tuple[str, ...]


@dataclass(frozen=True)
class Tally:
    """Counts over some questions.

    ``near_ties`` are those whose two best float64 scores are closer than the margin; ``agreed`` are answers that are float64's
    among the others, ``flips`` those that lie further than the margin below float64's best, and ``tied_flips`` those that
    are not the best, yet tied with it. ``correct`` is the runner's, ``reference_correct`` float64's.
    """

    questions: int
    near_ties: int
    agreed: int
    flips: int
    tied_flips: int
    correct: int
    reference_correct: int

    @property
    def clear(self) -> int:
        """How many questions are not near-ties."""
        return self.questions - self.near_ties

    def to_dict(self) -> dict[str, Any]:
        """The counts, and what they come to: shares between 0 and 1, None of nothing."""
        return {
            **asdict(self),
            "agreement": _share(self.agreed, self.clear),
            "accuracy": _share(self.correct, self.questions),
            "reference_accuracy": _share(self.reference_correct, self.questions),
        }


@dataclass(frozen=True)
class Decisions:
    """One runner's answers to the held-out questions, beside float64's and the true ones; ``reason`` is why they fail."""

    runner: str
    arithmetic: Arithmetic
    reason: str | None
    near_tie_margin: float
    total: Tally
    families: Mapping[str, Tally]

    @property
    def passed(self) -> bool:
        """True only where something was compared, and no answer (of int8: few) was turned round outside near-ties."""
        return self.reason is None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: the totals beside the names, then each family's."""
        return {
            "runner": self.runner,
            "arithmetic": self.arithmetic,
            "status": "pass" if self.passed else "FAIL",
            "reason": self.reason,
            "near_tie_margin": self.near_tie_margin if np.isfinite(self.near_tie_margin) else None,
            **self.total.to_dict(),
            "families": {name: tally.to_dict() for name, tally in self.families.items()},
        }


def near_tie_margin(floor: float) -> float:
    """How far apart two float64 scores must be for no artifact that just passes to turn them round by its usual error."""
    return THRESHOLD * floor * float(np.sqrt(2))


def decide(
    runner: str,
    arithmetic: Arithmetic,
    computed: Chunks | None,
    key: AnswerKey,
    floor: float,
    *,
    precision: str = "fp32",
) -> Decisions:
    """Compares a runner's answer scores with the key; ``computed`` is None where the output is missing.

    ``floor`` is the noise floor of the runner's precision on these questions. int8 is allowed a few flips, others none.
    """
    margin = near_tie_margin(floor)
    reference = np.concatenate([np.asarray(chunk, np.float64) for chunk in key.reference] or [np.zeros((0, 2))])
    chosen = _answers(computed, key.reference)
    best = reference.argmax(axis=1)
    second, first = np.sort(reference, axis=1)[:, -2:].T
    # How far below float64's best its score of the runner's answer lies: a near-tie with the second says nothing of a third.
    given_up = np.where(chosen == NO_ANSWER, np.inf, first - np.take_along_axis(reference, chosen[:, None], 1)[:, 0])
    near = first - second < margin
    facts = {
        "near_ties": near,
        "agreed": ~near & (chosen == best),
        "flips": (chosen != best) & ~(given_up < margin),
        "tied_flips": (chosen != best) & (given_up < margin),
        "correct": chosen == key.answer,
        "reference_correct": best == key.answer,
    }
    total = _tally(facts, np.full(len(best), True))
    families = {name: _tally(facts, key.family == number) for number, name in enumerate(key.families)}
    reason = _structural_fault(computed, key.reference) or _wrong_decisions(total, precision)
    return Decisions(runner, arithmetic, reason, margin, total, families)


def clear_choices(computed: Chunks, reference: Chunks, floor: float, masks: Chunks | None) -> tuple[int, int] | None:
    """How many of int8's choices among the last axis' entries are float64's, of how many that are no near-ties.

    This is for checkpoints without labels. ``masks`` are 0 where there is nothing to choose. None where rows were flattened, as
    a golden file does with large outputs.
    """
    agreed = clear = 0
    for number, (found, wanted) in enumerate(zip(computed, reference, strict=True)):
        if wanted.ndim < 2:
            return None
        ordered = np.sort(wanted.astype(np.float64), axis=-1)
        counted = ordered[..., -1] - ordered[..., -2] >= near_tie_margin(floor)
        if masks is not None:
            counted &= masks[number] != 0
        agreed += int((counted & (found.argmax(axis=-1) == wanted.argmax(axis=-1))).sum())
        clear += int(counted.sum())
    return agreed, clear


def wrong_choices(agreed: int, clear: int) -> str | None:
    """Why so many of int8's clear choices will not do."""
    if not clear:
        return "nothing was compared: no choice but near-ties"
    if agreed >= LEAST_INT8_AGREEMENT * clear:
        return None
    return f"only {agreed:,} of {clear:,} clear choices are float64's; {LEAST_INT8_AGREEMENT:.0%} are needed"


def percent(part: int, whole: int) -> str:
    """A share for people to read, cut and not rounded: only all of them are 100 %."""
    return f"{part * 1000 // whole / 10:g} %" if whole else "-"


def _answers(computed: Chunks | None, reference: Chunks) -> NDArray[np.int64]:
    """Each row's best answer; ``NO_ANSWER`` in all of them if the shapes do not fit."""
    rows = sum(len(chunk) for chunk in reference)
    if computed is None or shapes(computed) != shapes(reference) or not rows:
        return np.full(rows, NO_ANSWER)
    scores = np.concatenate(computed).astype(np.float64)
    return np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1), NO_ANSWER)


def _structural_fault(computed: Chunks | None, reference: Chunks) -> str | None:
    if computed is None:
        return "missing output"
    if shapes(computed) != shapes(reference):
        return "answers of another shape"
    return None if all(np.isfinite(chunk).all() for chunk in computed) else "NaN or infinity"


def _wrong_decisions(total: Tally, precision: str) -> str | None:
    if precision == "int8":
        return wrong_choices(total.agreed, total.clear) or _too_few_right(total)
    if total.flips:
        return f"{total.flips:,} of {total.questions:,} answers are not float64's, nor tied with them"
    return None if total.clear else "nothing was compared: no question but near-ties"


def _too_few_right(total: Tally) -> str | None:
    if total.correct >= LEAST_INT8_ACCURACY * total.reference_correct:
        return None
    return f"{total.correct:,} right answers are less than {LEAST_INT8_ACCURACY:.0%} of float64's {total.reference_correct:,}"


def _tally(facts: Mapping[str, NDArray[np.bool_]], chosen: NDArray[np.bool_]) -> Tally:
    return Tally(questions=int(chosen.sum()), **{name: int((fact & chosen).sum()) for name, fact in facts.items()})


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
