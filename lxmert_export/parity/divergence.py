"""Where a runner leaves its reference: the drift at every point of the network, and the first that jumps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lxmert_export.parity.points import Point
from lxmert_export.parity.scores import EPS, LEAST_FLOOR, THRESHOLD

Array = NDArray[np.generic]
# Once anything is beyond the threshold, the first point above this is where it began. `benchmarks/locate_study.py` says how far
# below it the points of sound files stay.
JUMP = 3.0


@dataclass
class Drift:
    """How far a runner is from float64 at one point, on one family of inputs, beside what its precision costs there.

    Sums of squares, pooled over batches as they come: no array is kept. ``misshapen`` is a tensor of another size.
    """

    point: Point
    inputs: str
    precision: str
    error: float = 0.0
    noise: float = 0.0
    reference: float = 0.0
    values: int = 0
    misshapen: bool = False

    def add(self, wanted: Array, got: Array, noise: float) -> None:
        """Pools one batch; ``noise`` is the sum of squares of the canonical model's own errors in the precision."""
        exact = wanted.astype(np.float64).reshape(-1)
        self.reference += float(np.square(exact).sum())
        self.noise += noise
        self.values += exact.size
        if got.size != exact.size:
            self.misshapen = True
            return
        with np.errstate(over="ignore", invalid="ignore"):
            self.error += float(np.square(got.astype(np.float64).reshape(-1) - exact).sum())

    @property
    def error_rms(self) -> float:
        """Root mean square of the error; infinite where the tensor has another size, or is not finite."""
        broken = self.misshapen or not math.isfinite(self.error)
        return math.inf if broken else math.sqrt(self.error / self.values)

    @property
    def reference_rms(self) -> float:
        """Root mean square of what it should be."""
        return math.sqrt(self.reference / self.values)

    @property
    def floor(self) -> float:
        """The noise floor, as of an output."""
        return max(math.sqrt(self.noise / self.values), LEAST_FLOOR * EPS[self.precision] * self.reference_rms)

    @property
    def score(self) -> float:
        """Error over floor; of what is exactly zero, infinite unless it is met."""
        if self.floor == 0:
            return 0.0 if self.error_rms == 0 else math.inf
        return self.error_rms / self.floor


@dataclass(frozen=True)
class LayerDrift:
    """The worst that a layer shows: of its points and of all families of inputs. None stands for what is not finite."""

    layer: str
    score: float | None
    error_rms: float | None
    floor: float
    reference_rms: float


@dataclass(frozen=True)
class Divergence:
    """The first layer of an artifact whose score jumps, the operator family in it, and where that is in the file.

    All of it is None where nothing jumps. ``tensor`` is the file's own name for what is wrong first; ``inputs`` the family of
    inputs that shows it most. ``curve`` has a row per layer in execution order; ``points`` of ``points_known`` were compared.
    """

    artifact: str
    curve: tuple[LayerDrift, ...]
    layer: str | None = None
    family: str | None = None
    module: str | None = None
    tensor: str | None = None
    inputs: str | None = None
    score: float | None = None
    points: int = 0
    points_known: int = 0

    @property
    def found(self) -> bool:
        """Whether anything jumps."""
        return self.layer is not None

    def summary(self) -> str:
        """One line."""
        compared = f"{self.points} of {self.points_known} points compared"
        if not self.found:
            return f"{self.artifact}: no layer's score jumps ({compared})"
        score = "what is not finite, or of another shape" if self.score is None else f"score {self.score:.4g}"
        return (
            f"{self.artifact}: goes wrong first in {self.layer}, {self.family} of {self.module or 'the backbone'}: {score} on "
            f"{self.inputs} inputs, at {self.tensor} ({compared})"
        )

    def to_dict(self) -> dict[str, Any]:
        """As reports hold it."""
        return {**vars(self), "curve": [vars(row) for row in self.curve]}


def first_jump(drifts: Sequence[Drift]) -> Drift | None:
    """The drift at which the score jumps first, in the order given, which is that of execution."""
    worst = worst_of_points(drifts)
    if not any(drift.score > THRESHOLD for drift in worst):
        return None
    return next(drift for drift in worst if drift.score > JUMP)


def worst_of_points(drifts: Iterable[Drift]) -> list[Drift]:
    """Of every point the family of inputs that shows most, in the points' order."""
    found: dict[Point, Drift] = {}
    for drift in drifts:
        if drift.point not in found or drift.score > found[drift.point].score:
            found[drift.point] = drift
    return list(found.values())


def drift_curve(drifts: Sequence[Drift]) -> tuple[LayerDrift, ...]:
    """The worst drift of every layer, in execution order."""
    found: dict[str, Drift] = {}
    for drift in drifts:
        layer = drift.point.layer
        if layer not in found or drift.score > found[layer].score:
            found[layer] = drift
    return tuple(
        LayerDrift(layer, finite(drift.score), finite(drift.error_rms), drift.floor, drift.reference_rms)
        for layer, drift in found.items()
    )


def finite(figure: float) -> float | None:
    """JSON has no infinity."""
    return figure if math.isfinite(figure) else None
