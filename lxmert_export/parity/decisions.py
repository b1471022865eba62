"""Judges a runner by its answers: are they float64's, near-ties aside, and how many are true?

A score measures how far numbers are apart. This module measures whether answers change. Rounding may swap two answers whose
float64 scores are close (a near-tie). Such a swap is counted, but does not fail.

The size of the margin follows from the threshold of scores. An artifact that just passes has an RMS error of ``THRESHOLD``
floors in the score of every answer. If these errors are independent, the difference of two scores has sqrt(2) times this error:

    near-tie margin = THRESHOLD x floor x sqrt(2)

A sound artifact errs by about one floor. To cross the margin it would need an error of ``THRESHOLD`` standard deviations. An
artifact that errs by nearly ``THRESHOLD`` floors does cross the margin for a few of many questions. It then fails here although
its score passes, because rounding does not change clear answers. Only int8 may change a few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lxmert_export.parity.recording import Arithmetic, shapes
from lxmert_export.parity.scores import THRESHOLD, Chunks

# int8 may change answers: it must give float64's in 97 % of clear cases, and reach 99 % of float64's accuracy (the rule of
# MLPerf Inference for quantised models).
LEAST_INT8_AGREEMENT, LEAST_INT8_ACCURACY = 0.97, 0.99
NO_ANSWER = -1  # a row that is missing or not finite
SCENES = "scenes"  # the built-in checkpoint's held-out questions, among the families of inputs


@dataclass(frozen=True)
class AnswerKey:
    """What answers are judged by.

    reference    float64 scores, in batches of [rows, answers]
    answer       int64 [rows], the true answers
    family       int64 [rows], the number of each row's family in ``families``
    """

    reference: Chunks
    answer: NDArray[np.int64]
    family: NDArray[np.int64]
    families: tuple[str, ...]


@dataclass(frozen=True)
class Tally:
    """Counts over some questions.

    near_ties            the two best float64 scores are closer than the margin
    agreed               no near-tie, and the answer is float64's
    flips                the answer is not float64's, and its float64 score is not within the margin of the best
    tied_flips           the answer is not float64's, but its float64 score is within the margin of the best
    correct              the runner's answer is true
    reference_correct    float64's answer is true
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
        """Number of questions that are not near-ties."""
        return self.questions - self.near_ties

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON values, with shares from 0 to 1; a share of no questions is None."""
        return {
            **asdict(self),
            "agreement": _share(self.agreed, self.clear),
            "accuracy": _share(self.correct, self.questions),
            "reference_accuracy": _share(self.reference_correct, self.questions),
        }


@dataclass(frozen=True)
class Decisions:
    """One runner's answers to held-out questions, or to a user's inputs with labels, compared with float64's and the true ones.

    ``reason``: why they fail, None if they pass. ``inputs``: the family of inputs that was answered.
    """

    runner: str
    arithmetic: Arithmetic
    reason: str | None
    near_tie_margin: float
    total: Tally
    families: Mapping[str, Tally]
    inputs: str = SCENES

    @property
    def asked(self) -> str:
        """What was asked, in words."""
        return asked_of(self.inputs)

    @property
    def passed(self) -> bool:
        """True if answers were compared and none changed outside near-ties (int8 may change a few)."""
        return self.reason is None

    def to_dict(self) -> dict[str, Any]:
        """The decisions as JSON values: totals at the top level, then the same counts for each family."""
        return {
            "runner": self.runner,
            "arithmetic": self.arithmetic,
            "inputs": self.inputs,
            "status": "pass" if self.passed else "FAIL",
            "reason": self.reason,
            "near_tie_margin": self.near_tie_margin if np.isfinite(self.near_tie_margin) else None,
            **self.total.to_dict(),
            "families": {name: tally.to_dict() for name, tally in self.families.items()},
        }


def asked_of(inputs: str) -> str:
    """Returns what the decisions on a family of inputs are about, in words."""
    return "held-out questions" if inputs == SCENES else f"labelled {inputs} inputs"


def near_tie_margin(floor: float) -> float:
    """Returns the difference of two float64 scores up to which an artifact that just passes may swap their answers."""
    return THRESHOLD * floor * float(np.sqrt(2))


def decide(
    runner: str,
    arithmetic: Arithmetic,
    computed: Chunks | None,
    key: AnswerKey,
    floor: float,
    *,
    precision: str = "fp32",
    inputs: str = SCENES,
) -> Decisions:
    """Compares a runner's answer scores with the key.

    ``computed``: batches of [rows, answers], or None if the output is missing. ``floor``: the noise floor of the runner's
    precision on these questions. int8 may flip a few answers, other precisions none.
    """
    margin = near_tie_margin(floor)
    reference = np.concatenate([np.asarray(chunk, np.float64) for chunk in key.reference] or [np.zeros((0, 2))])
    chosen = _answers(computed, key.reference)
    best = reference.argmax(axis=1)
    second, first = np.sort(reference, axis=1)[:, -2:].T
    # How far float64's score of the chosen answer is below its best: a near-tie with the second does not excuse a third answer.
    shortfall = np.where(chosen == NO_ANSWER, np.inf, first - np.take_along_axis(reference, chosen[:, None], 1)[:, 0])
    near = first - second < margin
    facts = {
        "near_ties": near,
        "agreed": ~near & (chosen == best),
        "flips": (chosen != best) & ~(shortfall < margin),
        "tied_flips": (chosen != best) & (shortfall < margin),
        "correct": chosen == key.answer,
        "reference_correct": best == key.answer,
    }
    total = _tally(facts, np.full(len(best), True))
    families = {name: _tally(facts, key.family == number) for number, name in enumerate(key.families)}
    reason = _structural_fault(computed, key.reference) or _wrong_decisions(total, precision)
    return Decisions(runner, arithmetic, reason, margin, total, families, inputs)


def clear_choices(computed: Chunks, reference: Chunks, floor: float, masks: Chunks | None) -> tuple[int, int] | None:
    """Counts choices (the best entry of the last axis) that are not near-ties: ``(equal to float64's, all)``.

    int8 is judged by these where no labels are known. ``masks`` are 0 for rows without a choice. Returns None if rows were
    flattened, as in a golden file's samples of a large output.
    """
    agreed = clear = 0
    for number, (got, wanted) in enumerate(zip(computed, reference, strict=True)):
        if wanted.ndim < 2:
            return None
        ordered = np.sort(wanted.astype(np.float64), axis=-1)
        counted = ordered[..., -1] - ordered[..., -2] >= near_tie_margin(floor)
        if masks is not None:
            counted &= masks[number] != 0
        agreed += int((counted & (got.argmax(axis=-1) == wanted.argmax(axis=-1))).sum())
        clear += int(counted.sum())
    return agreed, clear


def wrong_choices(agreed: int, clear: int) -> str | None:
    """Returns why int8 fails with this number of clear choices that agree, or None if it passes."""
    if not clear:
        return "nothing was compared: every choice is a near-tie"
    if agreed >= LEAST_INT8_AGREEMENT * clear:
        return None
    return f"only {agreed:,} of {clear:,} clear choices equal float64's; {LEAST_INT8_AGREEMENT:.0%} must"


def percent(part: int, whole: int) -> str:
    """Formats a share for people, rounded down, so that only a whole share is 100 %."""
    return f"{part * 1000 // whole / 10:g} %" if whole else "-"


def _answers(computed: Chunks | None, reference: Chunks) -> NDArray[np.int64]:
    """Returns each row's best answer, int64 [rows]; ``NO_ANSWER`` if the row is not finite or the shapes do not fit."""
    rows = sum(len(chunk) for chunk in reference)
    if computed is None or shapes(computed) != shapes(reference) or not rows:
        return np.full(rows, NO_ANSWER)
    scores = np.concatenate(computed).astype(np.float64)
    return np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1), NO_ANSWER)


def _structural_fault(computed: Chunks | None, reference: Chunks) -> str | None:
    if computed is None:
        return "missing output"
    if shapes(computed) != shapes(reference):
        return "the answers have another shape than float64's"
    return None if all(np.isfinite(chunk).all() for chunk in computed) else "NaN or infinity"


def _wrong_decisions(total: Tally, precision: str) -> str | None:
    if precision == "int8":
        return wrong_choices(total.agreed, total.clear) or _too_few_right(total)
    if total.flips:
        return f"{total.flips:,} of {total.questions:,} answers differ from float64's by more than a near-tie"
    return None if total.clear else "nothing was compared: every question is a near-tie"


def _too_few_right(total: Tally) -> str | None:
    if total.correct >= LEAST_INT8_ACCURACY * total.reference_correct:
        return None
    return f"{total.correct:,} true answers are less than {LEAST_INT8_ACCURACY:.0%} of float64's {total.reference_correct:,}"


def _tally(facts: Mapping[str, NDArray[np.bool_]], chosen: NDArray[np.bool_]) -> Tally:
    return Tally(questions=int(chosen.sum()), **{name: int((fact & chosen).sum()) for name, fact in facts.items()})


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
