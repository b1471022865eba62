"""VQA's official score: an answer is right as far as three of the nine other annotators gave it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lxmert_export.data.questions.annotations import VqaAnnotation
from lxmert_export.scoring.scored import Scored, mean, means_by
from lxmert_export.scoring.vqa_words import normalised, trimmed

DIGITS = 2  # to which the official program rounds
AGREEING = 3  # annotators that make an answer fully right


def score_vqa(answers: Mapping[str, str], annotations: Mapping[str, VqaAnnotation]) -> Scored:
    """Scores the answer to every annotated question.

    ``scores``: ``overall``, ``by_question_type``, ``by_answer_type``, per cent, rounded to two digits as the official program
    does. An annotated question must be among ``answers``.
    """
    points = {id: _points(answers[id], annotation) for id, annotation in annotations.items()}
    values = list(points.values())
    question_types = [annotation.question_type for annotation in annotations.values()]
    answer_types = [annotation.answer_type for annotation in annotations.values()]
    scores = {
        "overall": _per_cent(values),
        "by_question_type": means_by(question_types, values, _per_cent),
        "by_answer_type": means_by(answer_types, values, _per_cent),
    }
    questions = {id: round(100 * share, DIGITS) for id, share in points.items()}
    return Scored(scores, questions, "overall", tuple(points))


def _per_cent(values: Sequence[float]) -> float:
    """The mean, multiplied before it is divided: the other order rounds some means the other way."""
    return round(100 * float(sum(values)) / max(len(values), 1), DIGITS)


def _points(answer: str, annotation: VqaAnnotation) -> float:
    """How right an answer is, from 0 to 1: the mean over the annotators of how many of the others agree with it.

    The official program counts as others those whose whole record differs from the annotator's own: see ``VqaAnnotation``.
    Both sides are normalised only if the annotators do not all write the same.
    """
    given, others = trimmed(answer), [trimmed(one) for one in annotation.answers]
    if len(set(others)) > 1:
        given, others = normalised(given), [normalised(one) for one in others]
    agreeing = [record for one, record in zip(others, annotation.records, strict=True) if one == given]
    if not agreeing:
        return 0.0
    return mean(
        [
            _credit(len(agreeing) - (agreeing.count(record) if one == given else 0))
            for one, record in zip(others, annotation.records, strict=True)
        ]
    )


def _credit(others: int) -> float:
    """The credit by one annotator: of the others that agree with the answer, three make it full."""
    return min(1, float(others) / AGREEING)
