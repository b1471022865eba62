"""What the rest of the program knows of a picture: the features and boxes of its objects, by the picture's id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Picture:
    """A picture's objects, as an object detector found them.

    - ``id``: as text, whatever the file holds.
    - ``features``: float32 [objects, width].
    - ``boxes``: float32 [objects, 4]: x1, y1, x2, y2 as shares of the picture's width and height.
    """

    id: str
    features: NDArray[np.float32]
    boxes: NDArray[np.float32]


class PictureSource(Protocol):
    """An open file of features. ``read`` may be called from several threads.

    - ``format``: its name in the table of formats (``data/features/opening.py``).
    - ``ids``: in the file's own order, each once.
    - ``most_objects``: the most objects of one picture; None if only reading the whole file would tell.
    """

    format: str
    path: Path
    ids: Sequence[str]
    feature_width: int
    most_objects: int | None

    def __contains__(self, id: str) -> bool:
        """Whether the file holds a picture of this very id."""
        ...

    def read(self, id: str) -> Picture:
        """Returns a picture. ``InputError``: the file does not hold it, or what it holds cannot be used."""
        ...

    def close(self) -> None:
        """Closes the file. Pictures that were read stay."""
        ...

    def __enter__(self) -> Self:
        """Closes the file at the end of the block."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
