"""What every reader of a format gives: pictures as their file holds them, before anything is checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lxmert_export.errors import InputError

# What each means: data/features/boxes.py.
BoxLayout = Literal[
    "pixels", "normalised", "pixels-xywh", "normalised-xywh", "pixels-swapped", "normalised-twice"
]  # fmt: skip


@dataclass(frozen=True)
class StoredPicture:
    """A picture as its file holds it.

    - ``features``: a floating-point array [objects, width]. ``boxes``: [objects, 4], in the file's own layout.
    - ``size``: the picture's width and height in pixels; None if the file does not say.
    """

    id: str
    features: NDArray[np.generic]
    boxes: NDArray[np.generic]
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Fault:
    """Something that makes a picture unusable, with its place in the file ("row 12") and its id, if it has one."""

    place: str
    id: str | None
    problem: str

    def said_of(self, path: Path) -> str:
        """Returns the line that tells a user."""
        name = "" if self.id is None else f", picture {self.id}"
        return f"{path}: {self.place}{name}: {self.problem}"


class PictureError(InputError):
    """A picture cannot be used. ``fault`` says which, and why."""

    def __init__(self, path: Path, fault: Fault) -> None:
        super().__init__(fault.said_of(path))
        self.path, self.fault = path, fault

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles the arguments instead of the message, so that the error can come from another process."""
        return (PictureError, (self.path, self.fault))


class FeatureFile(ABC):
    """An open file of one format. Pictures are read by position, from several threads.

    - ``ids``: in the file's order, each once. ``feature_width``: of the first picture.
    - ``most_objects``: the most objects of one picture; None if only reading the whole file would tell.
    - ``layout``: that of its boxes; None if the format does not say.
    - ``faults``: what opening it showed; of very many the first, and ``fault_count`` counts all.
    - ``notes``: what is unusual, and does no harm.
    """

    format: str
    path: Path
    ids: Sequence[str]
    feature_width: int
    most_objects: int | None
    layout: BoxLayout | None = None
    faults: Sequence[Fault] = ()
    notes: Sequence[str] = ()

    @property
    def fault_count(self) -> int:
        """How many faults opening it showed."""
        return len(self.faults)

    @abstractmethod
    def stored(self, position: int) -> StoredPicture:
        """Returns a picture. ``PictureError``: what the file holds there is none."""

    @abstractmethod
    def place(self, position: int) -> str:
        """Returns where a picture stands in the file, such as "row 12"."""

    @abstractmethod
    def close(self) -> None:
        """Closes the file."""

    def error(self, position: int, problem: str) -> PictureError:
        """Returns the error of one picture."""
        return PictureError(self.path, Fault(self.place(position), self.ids[position], problem))
