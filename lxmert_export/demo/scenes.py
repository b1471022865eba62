"""Scenes of the demo world: 3 to 10 coloured shapes on a canvas that do not touch, drawn at random from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lxmert_export.demo.words import COLORS, MOST_SHAPES, SHAPES, SIZES

CANVAS = 256  # pixels a side; a power of two, so that relative boxes are exact in fp16
LEAST_SHAPES = 3
RADII = {"small": (9, 11), "medium": (15, 18), "large": (24, 28)}  # pixels, both ends included
GAP = 5  # least pixels between the circles around two shapes: connected components stay apart
TRIES = 200  # draws to find a free place for a shape


@dataclass(frozen=True)
class Shape:
    """One shape of a scene, in pixels: ``x`` and ``y`` are its centre, ``radius`` is that of the circle around it."""

    kind: str
    color: str
    size: str
    x: int
    y: int
    radius: int


@dataclass(frozen=True)
class Scene:
    """The shapes of a scene, and the seed that it was drawn from."""

    seed: int
    shapes: tuple[Shape, ...]


def scene_of_seed(seed: int) -> Scene:
    """Returns the scene of a seed, always the same."""
    generator = np.random.default_rng(seed)
    while True:
        count = int(generator.integers(LEAST_SHAPES, MOST_SHAPES + 1))
        # Few kinds and colours in each scene, so that some shapes are alike: they can be counted, and confused.
        kinds = generator.permutation(SHAPES)[: generator.integers(2, 6)]
        colors = generator.permutation(COLORS)[: generator.integers(2, 6)]
        shapes: list[Shape] = []
        while len(shapes) < count:
            kind, color, size = (str(generator.choice(choices)) for choices in (kinds, colors, SIZES))
            placed = _placed(kind, color, size, shapes, generator)
            if placed is None:
                break  # the canvas is full: draw another scene
            shapes.append(placed)
        if len(shapes) == count:
            return Scene(seed, tuple(shapes))


def _placed(kind: str, color: str, size: str, others: list[Shape], generator: np.random.Generator) -> Shape | None:
    low, high = RADII[size]
    radius = int(generator.integers(low, high + 1))
    for _ in range(TRIES):
        x, y = (int(n) for n in generator.integers(radius + 2, CANVAS - radius - 2, 2))
        if all((x - o.x) ** 2 + (y - o.y) ** 2 > (radius + o.radius + GAP) ** 2 for o in others):
            return Shape(kind, color, size, x, y, radius)
    return None
