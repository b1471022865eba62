"""What the demo checkpoint sees of a picture: a box for each connected shape, and its crop as the feature of the box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lxmert_export.errors import InputError

CROP = 8  # a crop is resized to this many pixels a side
FEATURE_WIDTH = CROP * CROP * 3
# A feature is pixel / 256, not / 255: exact in fp16, so that what a golden file stores is what was computed.
PIXEL_SCALE = 256
# How much a pixel's colour differs from the background's, at the least, where a shape is.
CONTRAST = 40
LEAST_AREA = 1 / 4096  # of the picture; less than this is dust
WHITE = 255


@dataclass(frozen=True)
class Objects:
    """The shapes found in a picture.

    ``pixels`` uint8 [objects, FEATURE_WIDTH], crops in rows of RGB; ``boxes`` float64 [objects, 4], (x1, y1, x2, y2) over the
    picture's width and height.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float64]

    @property
    def features(self) -> NDArray[np.float32]:
        """[objects, FEATURE_WIDTH], within [0, 1)."""
        return (self.pixels / PIXEL_SCALE).astype(np.float32)


def find_objects(picture: Image.Image) -> Objects:
    """The connected shapes of an RGB picture, top to bottom by their first pixel."""
    values = np.asarray(picture)  # [height, width, 3]
    foreground = np.abs(values.astype(np.int16) - _background(values)).max(axis=-1) > CONTRAST
    labels, _ = ndimage.label(foreground, structure=np.ones((3, 3)))
    height, width = foreground.shape
    pixels, boxes = [], []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[place] == number
        if mask.sum() < LEAST_AREA * height * width:
            continue
        # White around the shape, whatever the background is and whatever else reaches into its box.
        crop = np.where(mask[..., None], values[place], np.uint8(WHITE))
        pixels.append(np.asarray(Image.fromarray(crop).resize((CROP, CROP), Image.Resampling.BOX)).reshape(-1))
        rows, columns = place
        boxes.append([columns.start / width, rows.start / height, columns.stop / width, rows.stop / height])
    if not boxes:
        raise InputError("no shape found")
    return Objects(np.stack(pixels), np.array(boxes))


def _background(values: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The colour that most of the border has."""
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    colors, counts = np.unique(border, axis=0, return_counts=True)
    return np.asarray(colors[counts.argmax()], np.int16)
