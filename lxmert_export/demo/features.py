"""What the demo checkpoint sees of a picture: a box for each connected shape, and the crop as its feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lxmert_export.errors import InputError

CROP = 8  # a crop is resized to this many pixels a side
FEATURE_WIDTH = CROP * CROP * 3
# A feature is pixel / 256, not / 255, because that is exact in fp16: golden files store the features that were used.
PIXEL_SCALE = 256
# A pixel belongs to a shape if one of its channels differs from the background by more than this.
CONTRAST = 40
LEAST_AREA = 1 / 4096  # of the picture; smaller shapes are ignored as dust
WHITE = 255


@dataclass(frozen=True)
class Objects:
    """The shapes found in a picture.

    - ``pixels`` uint8 [objects, FEATURE_WIDTH]: crops, flattened from rows of RGB pixels.
    - ``boxes`` float64 [objects, 4]: (x1, y1, x2, y2) ÷ the picture's width and height.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float64]

    @property
    def features(self) -> NDArray[np.float32]:
        """The features [objects, FEATURE_WIDTH], within [0, 1)."""
        return (self.pixels / PIXEL_SCALE).astype(np.float32)


def find_objects(picture: Image.Image) -> Objects:
    """Returns the connected shapes of an RGB picture, ordered by their first pixel. ``InputError``: there is none."""
    values = np.asarray(picture)  # [height, width, 3]
    foreground = np.abs(values.astype(np.int16) - _background(values)).max(axis=-1) > CONTRAST
    labels, _ = ndimage.label(foreground, structure=np.ones((3, 3)))
    height, width = foreground.shape
    pixels, boxes = [], []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[place] == number
        if mask.sum() < LEAST_AREA * height * width:
            continue
        # Everything else in the box becomes white: the background, and parts of other shapes.
        crop = np.where(mask[..., None], values[place], np.uint8(WHITE))
        pixels.append(np.asarray(Image.fromarray(crop).resize((CROP, CROP), Image.Resampling.BOX)).reshape(-1))
        rows, columns = place
        boxes.append([columns.start / width, rows.start / height, columns.stop / width, rows.stop / height])
    if not boxes:
        raise InputError("no shape found")
    return Objects(np.stack(pixels), np.array(boxes))


def _background(values: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Returns the most frequent colour of the border."""
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    colors, counts = np.unique(border, axis=0, return_counts=True)
    return np.asarray(colors[counts.argmax()], np.int16)
