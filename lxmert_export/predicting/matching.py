"""Finds the pictures that questions are about in a file of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lxmert_export.data.questions.question_set import Question, QuestionSet
from lxmert_export.errors import InputError, shortened
from lxmert_export.option_names import option


@dataclass(frozen=True)
class Matched:
    """The questions that can be answered, with the pictures' ids as the features have them, and what is left over.

    ``without_features``: ids of questions of which a picture is missing. ``without_questions``: ids of pictures.
    """

    questions: tuple[Question, ...]
    without_features: tuple[str, ...]
    without_questions: tuple[str, ...]

    @property
    def left_over(self) -> list[str]:
        """What is left over, in words: counted, and listed in short."""
        found = (
            (self.without_features, "questions without features"),
            (self.without_questions, "pictures without questions"),
        )
        return [f"{len(ids):,} {what} ({shortened(list(ids))})" for ids, what in found if ids]


def match(asked: QuestionSet, pictures: Sequence[str], features: str, *, skip_missing: bool) -> Matched:
    """Matches questions with the pictures of a file of features.

    ``InputError``: no question has features; or, without ``skip_missing``, a question or a picture is left over.
    """
    known = set(pictures)
    spelled = asked.spelled_as_in(known)
    found = tuple(one for one in spelled.questions if known.issuperset(one.pictures))
    missing = tuple(one.id for one in spelled.questions if not known.issuperset(one.pictures))
    used = {picture for one in found for picture in one.pictures}
    matched = Matched(found, missing, tuple(picture for picture in pictures if picture not in used))
    if not found:
        first = next((one.pictures[0] for one in asked.questions), "no picture")
        raise InputError(
            f"{features}: has features for none of the {len(asked.questions):,} questions of {asked.path}: its pictures are "
            f"called {shortened(list(pictures), 2)}, and the questions ask about {first}"
        )
    if matched.left_over and not skip_missing:
        raise InputError(
            f"{asked.path} and {features} do not fit: {' and '.join(matched.left_over)}; "
            f"{option('skip_missing', True)} answers the others"
        )
    return matched
