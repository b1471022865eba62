"""NLVR2's official scores. Source: nlvr2/eval/metrics.py of lil-lab/nlvr."""

from __future__ import annotations

from collections.abc import Mapping

from lxmert_export.scoring.scored import Scored, mean


def score_nlvr2(answers: Mapping[str, str], truths: Mapping[str, str]) -> Scored:
    """Scores the answer to every question.

    ``scores``, per cent: ``accuracy``; ``consistency``: the share of sentences that are judged rightly for all their pairs of
    pictures. An identifier is split-set-pair-sentence: those of a sentence differ in the pair.
    """
    right = {id: float(answers[id].lower() == truth.lower()) for id, truth in truths.items()}
    sentences: dict[str, float] = {}
    for id, value in right.items():
        sentence = _sentence_of(id)
        sentences[sentence] = min(value, sentences.get(sentence, 1.0))
    scores = {"accuracy": 100 * mean(list(right.values())), "consistency": 100 * mean(list(sentences.values()))}
    return Scored(scores, {id: 100 * value for id, value in right.items()}, "accuracy", tuple(right))


def _sentence_of(identifier: str) -> str:
    split, number, _, *others = identifier.split("-")
    return "-".join((split, number, "", *others))
