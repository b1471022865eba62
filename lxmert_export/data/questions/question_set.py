"""The questions of a file, whatever the file's format is."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lxmert_export.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

# Which set of pictures a name of COCO's may come from; their numbers do not overlap.
COCO_SUBSETS = ("train2014", "val2014", "test2015")


@dataclass(frozen=True, slots=True)
class Question:
    """One question. ``id``: as text, whatever the file holds. ``pictures``: one id; of NLVR2 two, left and right."""

    id: str
    text: str
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class QuestionSet:
    """The questions of a file, in the file's order.

    ``dataset``: ``vqa``, ``gqa``, ``nlvr2`` or ``own``. ``numeric_ids``: the file's question ids are numbers, so answers are
    written with numbers. ``format``: what the file was recognised as, for messages.
    """

    dataset: str
    questions: tuple[Question, ...]
    numeric_ids: bool
    path: Path
    format: str

    def spelled_as_in(self, known: Collection[str]) -> Self:
        """Returns the questions with each picture's id as a feature file spells it.

        VQA's own files call a picture ``262148``, airsplay's features ``COCO_val2014_000000262148``. A picture that ``known``
        has in no spelling keeps its id. ``InputError``: a number stands for two pictures of ``known``.
        """
        spelling = {picture: self._spelled(picture, known) for one in self.questions for picture in one.pictures}
        if all(own == other for own, other in spelling.items()):
            return self
        renamed = (
            replace(one, pictures=tuple(spelling[picture] for picture in one.pictures)) for one in self.questions
        )
        return replace(self, questions=tuple(renamed))

    def _spelled(self, picture: str, known: Collection[str]) -> str:
        if picture in known:
            return picture
        found = [spelling for spelling in _spellings(picture) if spelling in known]
        if len(found) > 1:
            raise InputError(
                f"{self.path}: picture {picture}: the features hold {' and '.join(found)}, and either could be meant: name "
                "pictures in full, or give features of one split"
            )
        return found[0] if found else picture


def _spellings(picture: str) -> Iterator[str]:
    """Other spellings of a picture's id. A name says its subset, so it never stands for a name of another one."""
    named = picture.startswith("COCO_")
    number = picture.rpartition("_")[2] if named else picture
    if number.isascii() and number.isdigit():
        yield from {str(int(number)), f"{int(number):012d}"} - {picture}
        if not named:
            yield from (f"COCO_{subset}_{int(number):012d}" for subset in COCO_SUBSETS)
