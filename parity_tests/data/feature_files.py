"""A small file of features in each format, written as its own writer writes it.

``python -m parity_tests.data.feature_files`` writes those that are kept in ``fixtures/features/``.
"""

from __future__ import annotations

import base64
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KEPT = Path(__file__).parent.parent / "fixtures" / "features"
WIDTH = 8  # of the features; 2048 in real files


@dataclass(frozen=True)
class Detected:
    """What a detector found in one picture: features float32 [objects, width], boxes float32 [objects, 4] in pixels."""

    id: str
    width: int
    height: int
    features: NDArray[np.float32]
    boxes: NDArray[np.float32]

    @property
    def shares(self) -> NDArray[np.float32]:
        """The boxes as shares of the picture's size."""
        return self.boxes / np.array([self.width, self.height] * 2, np.float32)


def detected(
    count: int = 3, *, objects: Sequence[int] = (2, 3, 4), width: int = WIDTH, seed: int = 0
) -> list[Detected]:
    """Returns pictures of COCO's names. Their features are not negative, as those of a detector."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        many, size = objects[number % len(objects)], (640, 480) if number % 2 else (375, 500)
        corners = np.sort(random.random((many, 2, 2), np.float32), axis=1)  # [objects, begin and end, x and y]
        corners[0] = (0, 0), (1, 1)  # one object fills the picture
        boxes = (corners.reshape(many, 4) * np.array(size * 2, np.float32)).astype(np.float32)
        id = f"COCO_val2014_{262144 + number * 4:012d}"
        found.append(Detected(id, *size, np.abs(random.normal(size=(many, width))).astype(np.float32), boxes))
    return found


def airsplay_tsv(folder: Path, pictures: Sequence[Detected]) -> Path:
    """airsplay/lxmert: ``src/utils.py`` names the fields. Classes and attributes are int64, their scores float32."""
    rows = (
        (
            one.id, one.height, one.width, _text(np.arange(len(one.boxes))), _text(np.ones(len(one.boxes), np.float32)),
            _text(np.arange(len(one.boxes))), _text(np.ones(len(one.boxes), np.float32)), len(one.boxes), _text(one.boxes),
            _text(one.features),
        )
        for one in pictures
    )  # fmt: skip
    return _tsv(folder / "val2014_obj36.tsv", rows)


def bottom_up_tsv(folder: Path, pictures: Sequence[Detected]) -> Path:
    """peteanderson80/bottom-up-attention, ``tools/generate_tsv.py``: the width comes first, ids are numbers."""
    rows = (
        (int(one.id[-12:]), one.width, one.height, len(one.boxes), _text(one.boxes), _text(one.features))
        for one in pictures
    )
    return _tsv(folder / "karpathy_val.tsv", rows)


def _tsv(path: Path, rows: object) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return path


def _text(array: NDArray[np.generic]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


FORMATS: Mapping[str, Callable[[Path, Sequence[Detected]], Path]] = {
    "airsplay-tsv": airsplay_tsv,
    "bottom-up-tsv": bottom_up_tsv,
}


if __name__ == "__main__":
    for name, write in FORMATS.items():
        folder = KEPT / name
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, detected())
