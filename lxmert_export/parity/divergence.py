"""Where a runner leaves its reference: its drift at every point of the network, and the first point whose score jumps."""

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
# If any point is above the threshold, the error began at the first point above JUMP. `benchmarks/locate_study.py` measures how
# far below JUMP the points of sound files stay.
JUMP = 3.0


@dataclass
class Drift:
    """The error of a runner against float64 at one point, on one family of inputs, and the noise floor there.

    ``error``, ``noise`` and ``reference`` are sums of squares over all batches, so that no array is kept. ``misshapen``: a tensor
    had another size than the reference's.
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
        """Adds one batch. ``noise``: the sum of squares of the canonical model's own errors in the precision."""
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
        """RMS of the error; infinite if the tensor has another size or is not finite."""
        broken = self.misshapen or not math.isfinite(self.error)
        return math.inf if broken else math.sqrt(self.error / self.values)

    @property
    def reference_rms(self) -> float:
        """RMS of the float64 values."""
        return math.sqrt(self.reference / self.values)

    @property
    def floor(self) -> float:
        """The noise floor, defined as for an output."""
        return max(math.sqrt(self.noise / self.values), LEAST_FLOOR * EPS[self.precision] * self.reference_rms)

    @property
    def score(self) -> float:
        """Error / floor. If the floor is 0 (values that are exactly zero): 0 without an error, else infinity."""
        if self.floor == 0:
            return 0.0 if self.error_rms == 0 else math.inf
        return self.error_rms / self.floor


@dataclass(frozen=True)
class LayerDrift:
    """The worst drift of a layer, over its points and all families of inputs. A figure that is not finite is None."""

    layer: str
    score: float | None
    error_rms: float | None
    floor: float
    reference_rms: float


@dataclass(frozen=True)
class Divergence:
    """The first layer of an artifact whose score jumps, and the place in that layer. These fields are None if nothing jumps.

    family    the kind of operator that is wrong first
    tensor    the file's name of the tensor that is wrong first
    inputs    the family of inputs with the worst score at that tensor
    curve     one row per layer, in execution order
    points    the number of points that were compared, of ``points_known``
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
        """One line: the layer that goes wrong first, or that none does."""
        compared = f"{self.points} of {self.points_known} points compared"
        if not self.found:
            return f"{self.artifact}: no layer's score jumps ({compared})"
        score = "values not finite, or of another shape," if self.score is None else f"score {self.score:.4g}"
        return (
            f"{self.artifact}: goes wrong first in {self.layer}, {self.family} of {self.module or 'the backbone'}: {score} on "
            f"{self.inputs} inputs, at {self.tensor} ({compared})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**vars(self), "curve": [vars(row) for row in self.curve]}


def first_jump(drifts: Sequence[Drift]) -> Drift | None:
    """Returns the first of the drifts, given in execution order, whose score jumps; None if none does."""
    worst = worst_of_points(drifts)
    if not any(drift.score > THRESHOLD for drift in worst):
        return None
    return next(drift for drift in worst if drift.score > JUMP)


def worst_of_points(drifts: Iterable[Drift]) -> list[Drift]:
    """Returns, for every point in order, the drift on the family of inputs with the worst score."""
    worst: dict[Point, Drift] = {}
    for drift in drifts:
        if drift.point not in worst or drift.score > worst[drift.point].score:
            worst[drift.point] = drift
    return list(worst.values())


def drift_curve(drifts: Sequence[Drift]) -> tuple[LayerDrift, ...]:
    """Returns the worst drift of every layer, in execution order."""
    worst: dict[str, Drift] = {}
    for drift in drifts:
        layer = drift.point.layer
        if layer not in worst or drift.score > worst[layer].score:
            worst[layer] = drift
    return tuple(
        LayerDrift(layer, finite(drift.score), finite(drift.error_rms), drift.floor, drift.reference_rms)
        for layer, drift in worst.items()
    )


def finite(figure: float) -> float | None:
    """Returns the figure, or None for infinity and NaN, which JSON lacks."""
    return figure if math.isfinite(figure) else None
