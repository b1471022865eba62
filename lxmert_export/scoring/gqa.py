"""GQA's official scores. Source: eval.py of gqadataset.org's evaluation; each step in its order, so sums round alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lxmert_export.data.questions.annotations import GqaAnnotation, GqaChoices
from lxmert_export.scoring.scored import Scored, mean, means_by

# The choices of questions about what things have in common, whatever the file of choices says.
COMMON, KINDS_OF_COMMON = "Common", frozenset(("color", "material", "shape"))
OPEN = "query"  # the structural type of open questions; all others are binary
DISTRIBUTION_SCALE = 100  # the official program divides the statistic by it

Annotated = Mapping[str, GqaAnnotation]
Answers = Mapping[str, str]


def score_gqa(answers: Answers, annotations: Annotated, choices: Mapping[str, GqaChoices] | None = None) -> Scored:
    """Scores the answer to every annotated question.

    ``scores``, per cent of balanced questions: ``accuracy``, ``binary``, ``open``, and by structural and semantic type, steps and
    words; ``validity`` and ``plausibility`` with ``choices``; ``consistency`` if all entailed questions are annotated;
    ``distribution`` is a chi-square statistic ÷ 100, the lower the better, of answers that the official groups hold.
    """
    right = {id: float(answers[id] == annotation.answer) for id, annotation in annotations.items()}
    balanced = {id: annotation for id, annotation in annotations.items() if annotation.balanced}
    values = [right[id] for id in balanced]
    kinds = list(balanced.values())
    scores: dict[str, Any] = {"accuracy": 100 * mean(values)}
    for name, is_open in (("binary", False), ("open", True)):
        scores[name] = _per_cent([right[id] for id, one in balanced.items() if (one.structural == OPEN) is is_open])
    notes = _add_consistency(scores, annotations, right)
    notes += _add_choices(scores, answers, balanced, choices)
    scores |= _distribution(answers, balanced)
    for name, kind_of in {
        "by_structural_type": [one.structural for one in kinds],
        "by_semantic_type": [one.semantic for one in kinds],
        "by_steps": [f"{one.steps}" for one in kinds],
        "by_words": [f"{one.words}" for one in kinds],
    }.items():
        scores[name] = {kind: 100 * share for kind, share in means_by(kind_of, values).items()}
    questions = {id: 100 * value for id, value in right.items()}
    return Scored(scores, questions, "accuracy", tuple(balanced), tuple(notes))


def _per_cent(values: Sequence[float]) -> float:
    return mean(values) * 100


def _add_consistency(scores: dict[str, Any], annotations: Annotated, right: Mapping[str, float]) -> list[str]:
    """The share of right answers among the questions that a rightly answered, balanced one entails."""
    shares = []
    for id, annotation in annotations.items():
        entailed = [other for other in annotation.entailed if other != id]
        if annotation.balanced and right[id] and entailed:
            if unknown := [other for other in entailed if other not in annotations]:
                return [
                    f"no consistency: question {id!r} entails {unknown[0]!r}, which is not in the file of questions"
                ]
            shares.append(mean([right[other] for other in entailed]))
    scores["consistency"] = _per_cent(shares)
    return []


def _add_choices(
    scores: dict[str, Any], answers: Answers, balanced: Annotated, choices: Mapping[str, GqaChoices] | None
) -> list[str]:
    if choices is None:
        return ["no validity and plausibility: they need GQA's file of choices"]
    for name in ("validity", "plausibility"):
        allowed = (_allowed(one, choices[id], name) for id, one in balanced.items())
        scores[name] = _per_cent([float(answers[id] in words) for id, words in zip(balanced, allowed, strict=True)])
    return []


def _allowed(annotation: GqaAnnotation, choices: GqaChoices, score: str) -> frozenset[str]:
    if COMMON in annotation.detailed:
        return KINDS_OF_COMMON
    return choices.valid if score == "validity" else choices.plausible


def _distribution(answers: Answers, balanced: Annotated) -> dict[str, float]:
    """How far the answers of each group are from the true ones in their frequencies; nothing if no question is in a group."""
    true: dict[str, Counter[str]] = defaultdict(Counter)
    given: dict[str, Counter[str]] = defaultdict(Counter)
    for id, annotation in balanced.items():
        if annotation.group is not None:
            true[annotation.group][annotation.answer] += 1
            given[annotation.group][answers[id]] += 1
    total, weight = 0.0, 0
    for group, counts in true.items():
        statistic = sum(float(given[group][answer] - count) ** 2 / count for answer, count in counts.items())
        total += statistic * counts.total()
        weight += counts.total()
    return {"distribution": total / weight / DISTRIBUTION_SCALE} if weight else {}
