"""The layouts in which files hold boxes: recognised from pictures, and turned into the one that LXMERT takes.

| layout             | what a box is                                             | read                     |
|--------------------|-----------------------------------------------------------|--------------------------|
| ``pixels``         | x1, y1, x2, y2 in pixels                                  | yes                      |
| ``normalised``     | x1, y1, x2, y2 as shares of the picture's size            | yes                      |
| ``pixels-xywh``    | x1, y1, width, height in pixels                           | yes                      |
| ``normalised-xywh``| x1, y1, width, height as shares                           | yes                      |
| ``pixels-swapped`` | pixels, and the file exchanges the picture's width and height | only if it is asked for |
| ``normalised-twice``| shares, divided by the size once more                    | only if it is asked for  |
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lxmert_export.data.features.stored import BoxLayout, StoredPicture
from lxmert_export.spec.inputs import BOX_RANGE

LAYOUTS: tuple[BoxLayout, ...] = (
    "pixels", "normalised", "pixels-xywh", "normalised-xywh", "pixels-swapped", "normalised-twice",
)  # fmt: skip
# Signs that whoever wrote the file made a mistake: read only if the user says that he knows.
MISTAKES: dict[BoxLayout, str] = {
    "pixels-swapped": "the picture's width and height are exchanged",
    "normalised-twice": "the boxes were divided by the picture's size twice",
}
LEAST_SHARE = 0.02  # the far corners of real boxes reach further into the picture than this


def normalised(boxes: NDArray[np.generic], size: tuple[int, int] | None, layout: BoxLayout) -> NDArray[np.float32]:
    """Returns boxes (float32 [objects, 4]) as x1, y1, x2, y2 in shares of the picture's ``size``.

    ``ValueError``: the layout needs the size, and the file does not hold it.
    """
    found = np.array(boxes, dtype=np.float32)
    if layout.endswith("xywh"):
        found[:, 2:] += found[:, :2]
    if layout.startswith("normalised") and layout != "normalised-twice":
        return found
    if size is None or not all(side > 0 for side in size):
        raise ValueError("its boxes are in pixels, and the file does not hold the picture's width and height")
    width, height = map(float, reversed(size) if layout == "pixels-swapped" else size)
    if layout == "normalised-twice":
        width, height = 1 / width, 1 / height
    found[:, 0::2] /= width
    found[:, 1::2] /= height
    return found


def problem_of(boxes: NDArray[np.float32]) -> str | None:
    """Says what is wrong with boxes (x1, y1, x2, y2 in shares); None if nothing is."""
    least, most = BOX_RANGE
    if boxes.min(initial=0) >= least and boxes.max(initial=0) <= most and (boxes[:, 2:] >= boxes[:, :2]).all():
        return None
    outside = ~((boxes >= least) & (boxes <= most)).all(axis=1)  # NaN is outside, too
    if outside.any():
        number = int(outside.argmax())
        return f"box {number + 1} ({_shown(boxes[number])} as shares of its size) lies outside of the picture"
    turned = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if turned.any():
        number = int(turned.argmax())
        return f"box {number + 1} ({_shown(boxes[number])} as shares of its size) ends before it begins"
    return None


def layout_of(pictures: Sequence[StoredPicture]) -> BoxLayout | None:
    """Returns the layout in which most of some pictures have sound boxes; the first of equals. None: none has in any."""
    fitting = {layout: sum(fits(picture, layout) for picture in pictures) for layout in LAYOUTS}
    best = max(fitting.values(), default=0)
    return next((layout for layout, count in fitting.items() if count == best), None) if best else None


def fits(picture: StoredPicture, layout: BoxLayout) -> bool:
    """Whether a picture's boxes are sound in a layout, and not so small that they are of another one."""
    try:
        boxes = normalised(picture.boxes, picture.size, layout)
    except ValueError:
        return False
    if problem_of(boxes) is not None:
        return False
    return not boxes.size or bool(boxes.max() > LEAST_SHARE)


def hint(picture: StoredPicture, layout: BoxLayout) -> str:
    """Says in which other layout a picture's boxes would be sound; empty if in none."""
    for other in LAYOUTS:
        if other != layout and fits(picture, other):
            return f"; {MISTAKES.get(other, f'they would be sound as {other}')}"
    return ""


def _shown(box: NDArray[np.float32]) -> str:
    return " ".join(f"{value:.4g}" for value in box)
