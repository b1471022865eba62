"""Accuracy by question family: the share of questions whose highest score is the right answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lxmert_export.demo.questions import FAMILIES, Question
from lxmert_export.model.lxmert import LxmertForPreTraining
from lxmert_export.training.data import ANSWER_IDS, Scenes, blindfolded, question_batch

BATCH = 500
Score = Callable[[dict[str, Tensor]], NDArray[np.floating]]


def answer_scores(
    score: Score, scenes: Scenes, rows: Sequence[int], questions: Sequence[Question]
) -> NDArray[np.floating]:
    """Returns the scores that ``score`` gives to all answers of all questions: [questions, answers]."""
    places = range(0, len(questions), BATCH)
    return np.concatenate(
        [score(question_batch(scenes, rows[n : n + BATCH], questions[n : n + BATCH])) for n in places]
    )


def accuracy_by_family(scores: NDArray[np.floating], questions: Sequence[Question]) -> dict[str, float]:
    """Returns the accuracy of each family, and ``all``, their mean: every family has the same number of questions."""
    right = scores.argmax(axis=1) == np.array([ANSWER_IDS[question.answer] for question in questions])
    families = np.array([question.family for question in questions])
    found = {family: float(right[families == family].mean()) for family in FAMILIES}
    return {**found, "all": float(np.mean(list(found.values())))}


def scores_of(model: LxmertForPreTraining, *, blind: bool = False) -> Score:
    """Returns what computes the answer scores of a model in its own dtype; ``blind`` hides the picture from it."""
    dtype = next(model.parameters()).dtype

    def score(inputs: dict[str, Tensor]) -> NDArray[np.floating]:
        with torch.inference_mode():
            given = blindfolded(inputs) if blind else inputs
            answered = model(**{n: t.to(dtype) if t.is_floating_point() else t for n, t in given.items()})
        return np.asarray(answered.question_answering_score.numpy())

    return score
