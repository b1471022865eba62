"""Evaluates sets of answers to one set of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lxmert_export.data.questions.question_set import QuestionSet
from lxmert_export.errors import InputError, shortened
from lxmert_export.option_names import option
from lxmert_export.scoring.comparing import compare
from lxmert_export.scoring.official import Scorer
from lxmert_export.scoring.report import Evaluated, EvaluationReport


@dataclass(frozen=True)
class AnswerSet:
    """Answers to be evaluated: a name, where they come from, and the answer to each question's id."""

    name: str
    facts: Mapping[str, Any]
    answers: Mapping[str, str]


def evaluate_answers(
    questions: QuestionSet,
    sets: Sequence[AnswerSet],
    scorer: Scorer | None,
    *,
    max_drop: float | None = None,
    notes: Sequence[str] = (),
) -> EvaluationReport:
    """Scores each set of answers, and compares every other one with the first. ``notes``: for the report.

    ``InputError``: a question is not answered, or nothing can be said: one set alone, without true answers.
    """
    check_sets(sets, scorer, max_drop)
    told = [*notes, *(note for one in sets for note in _check_complete(questions, one))]
    runners = []
    for one in sets:
        answers = {question.id: one.answers[question.id] for question in questions.questions}
        runners.append(Evaluated(one.name, one.facts, answers, None if scorer is None else scorer.score(answers)))
    told += dict.fromkeys(note for one in runners if one.scored for note in one.scored.notes)
    first = runners[0]
    if max_drop is not None and first.scored and not first.scored.counted:
        raise InputError(f"{option('max_drop')}: no question of {questions.path} counts for {first.scored.main}")
    comparisons = tuple(
        compare(
            questions, (first.name, other.name), (first.answers, other.answers),
            (first.scored, other.scored) if first.scored and other.scored else None,
        )
        for other in runners[1:]
    )  # fmt: skip
    return EvaluationReport(questions, scorer, tuple(runners), comparisons, max_drop, tuple(told))


def check_sets(sets: Sequence[AnswerSet] | Sequence[str], scorer: Scorer | None, max_drop: float | None) -> None:
    """``InputError``: nothing can be said, or the gate has nothing to compare. Called before anything is run, too."""
    if not sets:
        raise InputError("nothing to evaluate: give a file of answers, or an artifact")
    names = sorted(one if isinstance(one, str) else one.name for one in sets)
    if twice := next((one for one, other in pairwise(names) if one == other), None):
        raise InputError(f"{twice}: is given twice; each set of answers is evaluated once")
    if scorer is None and len(sets) == 1:
        raise InputError(
            f"there are no true answers to score by, and only one set of answers: give {option('annotations')}, or another "
            "set of answers to compare with"
        )
    if max_drop is not None and (scorer is None or len(sets) == 1):
        missing = (
            f"true answers: give {option('annotations')}" if scorer is None else "a second set of answers to compare"
        )
        raise InputError(f"{option('max_drop')}: needs {missing}")


def _check_complete(questions: QuestionSet, answered: AnswerSet) -> list[str]:
    """Notes on answers to other questions. ``InputError``: a question is not answered; official programs refuse that, too."""
    asked = {one.id for one in questions.questions}
    if missing := [one.id for one in questions.questions if one.id not in answered.answers]:
        raise InputError(
            f"{answered.name}: does not answer {len(missing)} of the {len(asked)} questions of {questions.path}: "
            f"{shortened(missing)}; every question needs an answer"
        )
    others = len(answered.answers) - len(asked)
    return [f"{answered.name}: answers to {others:,} other questions were left out"] if others else []
