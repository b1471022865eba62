"""Cuts questions into shards: the same questions give the same shards, whoever answers them, and whenever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lxmert_export.data.questions.question_set import Question

# A shard is what a killed run loses at most, and what is held in memory, twice: 64 pictures of 36 × 2048 are 19 MB.
QUESTIONS, LOOKS = 256, 64


@dataclass(frozen=True)
class Shard:
    """Questions that are answered together; ``places`` are theirs among all questions."""

    number: int
    places: tuple[int, ...]
    questions: tuple[Question, ...]


class Plan:
    """The shards of questions. Questions about the same pictures follow one another, in the order of their first ones.

    They share a shard, unless they are more than a shard takes. A shard has at most ``QUESTIONS`` questions, about at most
    ``LOOKS`` pictures (nlvr2: pairs of pictures).
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = questions
        known: dict[tuple[str, ...], int] = {}
        looks = np.array([known.setdefault(question.pictures, len(known)) for question in questions], np.int64)
        self._order = np.argsort(looks, kind="stable")
        self._ends = [0, *_ends(np.bincount(looks).tolist())]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def shard(self, number: int) -> Shard:
        """Returns a shard, with its questions."""
        places = self.places(number)
        return Shard(number, places, tuple(self.questions[place] for place in places))

    def places(self, number: int) -> tuple[int, ...]:
        """Returns the places of a shard's questions."""
        places: NDArray[np.int64] = self._order[self._ends[number] : self._ends[number + 1]]
        return tuple(places.tolist())


def _ends(sizes: Sequence[int]) -> Iterator[int]:
    """Where shards end, of groups of questions that have these sizes."""
    end = begun = looks = 0
    for size in sizes:
        if looks and (end + size - begun > QUESTIONS or looks == LOOKS):
            yield end
            begun, looks = end, 0
        looks += 1
        end += size
        while end - begun > QUESTIONS:
            begun += QUESTIONS
            yield begun
    yield end


def questions_digest(questions: Sequence[Question]) -> str:
    """Returns a hash of all that is asked: ids, texts and pictures, in their order."""
    digest = hashlib.sha256()
    for question in questions:
        digest.update(json.dumps([question.id, question.text, question.pictures]).encode())
    return digest.hexdigest()
