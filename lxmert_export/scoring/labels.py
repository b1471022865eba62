"""Scores by labels: airsplay's, which say how right each answer is, and answers of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxmert_export.data.questions.annotations import LabelAnnotation
from lxmert_export.scoring.scored import Scored, mean, means_by

NOT_OFFICIAL = (
    "scored by airsplay's labels, as his code does, not by the official program: that needs the published annotations"
)


def score_labels(answers: Mapping[str, str], labels: Mapping[str, LabelAnnotation], main: str) -> Scored:
    """Scores the answer to every question by its label: the mean of what the label gives, 0 for an answer it does not name.

    ``scores``, per cent: ``main``, which is ``overall`` for VQA and ``accuracy`` for GQA; by type where every label says types.
    """
    points = {id: float(one.label.get(answers[id], 0)) for id, one in labels.items()}
    values = list(points.values())
    scores: dict[str, Any] = {main: 100 * mean(values)}
    for name in ("question_type", "answer_type"):
        types = [getattr(one, name) for one in labels.values()]
        if all(types):
            scores[f"by_{name}"] = {kind: 100 * share for kind, share in means_by(types, values).items()}
    return Scored(scores, {id: 100 * value for id, value in points.items()}, main, tuple(points), (NOT_OFFICIAL,))


def score_own(answers: Mapping[str, str], truths: Mapping[str, str]) -> Scored:
    """Scores answers of one's own: right if they are spelled as the true one. ``scores``: ``accuracy``, per cent."""
    right = {id: 100 * float(answers[id] == truth) for id, truth in truths.items()}
    return Scored({"accuracy": mean(list(right.values()))}, right, "accuracy", tuple(right))
