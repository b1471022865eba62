"""Scoring answers and comparing who gave them: what ``lxmert-export evaluate`` does, as a function."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from lxmert_export.data.questions.answers import read_answers
from lxmert_export.data.questions.reading import read_questions
from lxmert_export.errors import InputError, as_given
from lxmert_export.option_names import option
from lxmert_export.scoring.evaluation import AnswerSet, check_sets, evaluate_answers
from lxmert_export.scoring.official import scorer_of
from lxmert_export.scoring.report import EvaluationReport


def evaluate(
    runners: Sequence[str | Path],
    *,
    questions: str | Path,
    annotations: str | Path | None = None,
    choices: str | Path | None = None,
    dataset: str | None = None,
    max_drop: float | None = None,
) -> EvaluationReport:
    """Scores answers as the official programs do, and compares every other set with the first, question by question.

    | parameter | meaning |
    |---|---|
    | ``runners`` | files of answers |
    | ``questions`` | the questions: VQA's, GQA's or NLVR2's files, airsplay's, or one's own |
    | ``annotations`` | the true answers; default: those in the file of questions. Without any, agreement alone is told |
    | ``choices`` | GQA's file of valid and plausible answers |
    | ``dataset`` | ``vqa``, ``gqa``, ``nlvr2`` or ``own``; default: as the file of questions tells |
    | ``max_drop`` | the most points that a set may score below the first; the report says whether it ``passed`` |

    A drop raises no error: see the report's ``passed``. ``InputError``: one line with file, row and id: a file cannot be read,
    files do not belong together, or a question is not answered.
    """
    if not isinstance(runners, list | tuple) or not all(isinstance(place, str | os.PathLike) for place in runners):
        raise InputError(f"runners: takes a list of files, such as ['a.json', 'b.json'], not {as_given(runners)}")
    if max_drop is not None and (
        isinstance(max_drop, bool) or not isinstance(max_drop, int | float) or not 0 <= max_drop < math.inf
    ):
        raise InputError(f"{option('max_drop')}: takes points, 0 or more, not {as_given(max_drop)}")
    asked = read_questions(questions, dataset)
    scorer = scorer_of(asked, annotations, choices)
    check_sets([str(place) for place in runners], scorer, max_drop)
    sets = [AnswerSet(str(place), {"kind": "answers"}, read_answers(place)) for place in runners]
    return evaluate_answers(asked, sets, scorer, max_drop=max_drop)
