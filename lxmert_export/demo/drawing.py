"""A scene of the demo world → a picture."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from lxmert_export.demo.scenes import CANVAS, Scene, Shape

BACKGROUND = (255, 255, 255)
RGB = {
    "red": (214, 39, 40),
    "green": (30, 150, 60),
    "blue": (35, 85, 200),
    "yellow": (245, 210, 40),
    "orange": (250, 130, 20),
    "purple": (125, 50, 165),
    "pink": (248, 150, 205),
    "brown": (120, 75, 35),
    "gray": (140, 140, 140),
    "cyan": (40, 200, 215),
}
FINER = 4  # pictures are drawn this many times larger, then averaged: smooth edges
Points = list[tuple[float, float]]


def draw_scene(scene: Scene) -> Image.Image:
    """Returns the picture of a scene: RGB, ``CANVAS`` pixels a side, on white."""
    large = Image.new("RGB", (CANVAS * FINER, CANVAS * FINER), BACKGROUND)
    pencil = ImageDraw.Draw(large)
    for shape in scene.shapes:
        _draw_shape(pencil, shape)
    return large.reduce(FINER)


def _draw_shape(pencil: ImageDraw.ImageDraw, shape: Shape) -> None:
    color = RGB[shape.color]
    if shape.kind in ("circle", "ring"):
        pencil.ellipse(_around(shape, 1.0), fill=color)
        if shape.kind == "ring":
            pencil.ellipse(_around(shape, 0.5), fill=BACKGROUND)
        return
    pencil.polygon(_on_canvas(shape, OUTLINES[shape.kind]), fill=color)


def _around(shape: Shape, share: float) -> list[float]:
    reach = shape.radius * share
    return [FINER * n for n in (shape.x - reach, shape.y - reach, shape.x + reach, shape.y + reach)]


def _on_canvas(shape: Shape, outline: Points) -> Points:
    """Points within the unit circle → points of the enlarged canvas."""
    return [(FINER * (shape.x + x * shape.radius), FINER * (shape.y + y * shape.radius)) for x, y in outline]


def _star() -> Points:
    turns = [math.pi * (n / 5 - 0.5) for n in range(10)]
    return [((0.45 if n % 2 else 1) * math.cos(t), (0.45 if n % 2 else 1) * math.sin(t)) for n, t in enumerate(turns)]


def _heart() -> Points:
    turns = [2 * math.pi * n / 40 for n in range(40)]
    return [
        (
            0.95 * math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17,
        )
        for t in turns
    ]


def _moon() -> Points:
    """A crescent: the left side of a circle, and back along a flatter arc."""
    outer = [math.pi * (0.5 + n / 20) for n in range(21)]
    return [(math.cos(t), math.sin(t)) for t in outer] + [(0.45 * math.cos(t), math.sin(t)) for t in reversed(outer)]


# Points within the unit circle, y downwards.
OUTLINES: dict[str, Points] = {
    "square": [(-0.75, -0.75), (0.75, -0.75), (0.75, 0.75), (-0.75, 0.75)],
    "triangle": [(0, -0.95), (0.9, 0.7), (-0.9, 0.7)],
    "diamond": [(0, -1), (0.8, 0), (0, 1), (-0.8, 0)],
    "star": _star(),
    "cross": [(-0.3, -0.9), (0.3, -0.9), (0.3, -0.3), (0.9, -0.3), (0.9, 0.3), (0.3, 0.3),
              (0.3, 0.9), (-0.3, 0.9), (-0.3, 0.3), (-0.9, 0.3), (-0.9, -0.3), (-0.3, -0.3)],
    "heart": _heart(),
    "moon": _moon(),
    "arrow": [(0, -1), (0.75, -0.1), (0.28, -0.1), (0.28, 0.95), (-0.28, 0.95), (-0.28, -0.1), (-0.75, -0.1)],
}  # fmt: skip
