"""An open file of features whose every picture is checked before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from lxmert_export.data.features.boxes import LEAST_SHARE, hint, normalised, problem_of
from lxmert_export.data.features.stored import BoxLayout, FeatureFile, StoredPicture
from lxmert_export.data.pictures import Picture
from lxmert_export.errors import InputError
from lxmert_export.spec.user_inputs import LARGEST_MAGNITUDE

if TYPE_CHECKING:
    from typing_extensions import Self


class CheckedFeatures:
    """The pictures of a file, with boxes as LXMERT takes them. See ``PictureSource``."""

    def __init__(self, file: FeatureFile, layout: BoxLayout) -> None:
        self.file, self.layout = file, layout
        self.format: str = file.format
        self.path: Path = file.path
        self.ids = file.ids
        self.feature_width, self.most_objects = file.feature_width, file.most_objects
        self._position = {id: position for position, id in enumerate(file.ids)}

    def __contains__(self, id: str) -> bool:
        """Whether the file holds a picture of this very id."""
        return id in self._position

    def read(self, id: str) -> Picture:
        """Returns a picture. ``InputError``: the file does not hold it, or what it holds cannot be used."""
        position = self._position.get(id)
        if position is None:
            raise InputError(
                f"{self.path}: holds no picture {id!r}; its {len(self.ids)} pictures are {self._some_ids()}"
            )
        return self.picture(position)

    def picture(self, position: int) -> Picture:
        """Returns the picture at a position of ``ids``. ``InputError``: it cannot be used."""
        return self.sized(position)[0]

    def sized(self, position: int) -> tuple[Picture, tuple[int, int] | None]:
        """Returns the picture at a position of ``ids``, and its width and height in pixels, if the file holds them.

        ``InputError``: it cannot be used.
        """
        stored = self.file.stored(position)
        picture, problem = checked(stored, self.layout, self.feature_width)
        if problem is not None:
            raise self.file.error(position, problem)
        if self.layout == "pixels-swapped" and stored.size is not None:
            return picture, (stored.size[1], stored.size[0])
        return picture, stored.size

    def close(self) -> None:
        """Closes the file. Pictures that were read stay."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _some_ids(self) -> str:
        def some() -> Iterator[str]:
            yield from self.ids[:3]
            if len(self.ids) > 3:
                yield "…"

        return ", ".join(some())


def checked(stored: StoredPicture, layout: BoxLayout, width: int) -> tuple[Picture, str | None]:
    """Returns a picture as LXMERT takes it, and what is wrong with it, or None."""
    features = np.asarray(stored.features, dtype=np.float32)
    empty = Picture(stored.id, features, np.zeros((0, 4), np.float32))
    if problem := _problem_of_arrays(stored, features, width):
        return empty, problem
    try:
        boxes = normalised(stored.boxes, stored.size, layout)
    except ValueError as error:
        return empty, str(error)
    if problem := problem_of(boxes):
        return empty, problem + hint(stored, layout)
    if not boxes.any():
        return empty, "all of its boxes are 0"
    if boxes.max() <= LEAST_SHARE:  # the file's other pictures have another layout
        return empty, f"all of its boxes lie in the first {LEAST_SHARE:.0%} of its size{hint(stored, layout)}"
    return Picture(stored.id, features, boxes), None


def _problem_of_arrays(stored: StoredPicture, features: np.ndarray, width: int) -> str | None:
    if features.ndim != 2 or not features.size:
        return f"its features have the shape {list(features.shape)}, not [objects, width]"
    if features.shape[1] != width:
        return f"its features are {features.shape[1]} wide, those of the first picture {width}"
    if stored.boxes.shape != (len(features), 4):
        return f"its boxes have the shape {list(stored.boxes.shape)}; {len(features)} objects have [{len(features)}, 4]"
    flat = features.reshape(-1)
    with np.errstate(all="ignore"):
        # One look at each number: the sum of squares is not below the square of the largest, and NaN is not below anything.
        if flat @ flat <= LARGEST_MAGNITUDE**2:
            return None
    unusable = (~(np.abs(features) <= LARGEST_MAGNITUDE)).any(axis=1)
    if unusable.any():
        number = int(unusable.argmax())
        return f"the features of object {number + 1} hold NaN, infinity or a number larger than {LARGEST_MAGNITUDE:g}"
    return None
