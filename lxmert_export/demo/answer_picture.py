"""Draws an answer: the picture with its boxes, each shaded by the attention that a word pays to it."""

from __future__ import annotations

from textwrap import wrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lxmert_export.demo.features import Objects

WIDTH = 640  # pixels of the picture part; smaller pictures are enlarged to it
MARGIN, LINE = 16, 26  # pixels
SHADE = (255, 120, 0)
DARKEST = 80  # opacity, of 255, of the box with the most attention
LETTERS = 70  # the most letters in a line of text
OUTLINE = (60, 60, 60)
INK, PAPER = (20, 20, 20), (255, 255, 255)


def draw_answer(
    picture: Image.Image, objects: Objects, attention: NDArray[np.float64], lines: list[str]
) -> Image.Image:
    """Returns the picture with lines of text below; each box is shaded by its ``attention`` and has it in percent.

    ``attention`` [objects] adds up to 1.
    """
    lines = [part for line in lines for part in wrap(line, LETTERS)]
    height = round(picture.height * WIDTH / picture.width)
    shaded = picture.resize((WIDTH, height), Image.Resampling.LANCZOS).convert("RGBA")
    layer = Image.new("RGBA", shaded.size, (*SHADE, 0))
    pencil = ImageDraw.Draw(layer)
    font = ImageFont.load_default(size=13)
    for box, share in zip(objects.boxes, attention, strict=True):
        x1, y1, x2, y2 = (float(n) for n in box * (WIDTH, height, WIDTH, height))
        corners = (x1 - 4, y1 - 4, x2 + 4, y2 + 4)
        pencil.rectangle(
            corners, fill=(*SHADE, round(DARKEST * float(share / attention.max()))), outline=(*OUTLINE, 255), width=1
        )
        below = y1 < 24
        pencil.text((x1 - 4, y2 + 6 if below else y1 - 20), f"{share:.0%}", fill=(*INK, 255), font=font)
    shaded.alpha_composite(layer)
    page = Image.new("RGB", (WIDTH + 2 * MARGIN, height + 2 * MARGIN + LINE * len(lines) + MARGIN), PAPER)
    page.paste(shaded.convert("RGB"), (MARGIN, MARGIN))
    write = ImageDraw.Draw(page)
    write.rectangle((MARGIN - 1, MARGIN - 1, MARGIN + WIDTH, MARGIN + height), outline=OUTLINE)
    for number, line in enumerate(lines):
        place = (MARGIN, height + 2 * MARGIN + number * LINE)
        write.text(place, line, fill=INK, font=ImageFont.load_default(size=17))
    return page
