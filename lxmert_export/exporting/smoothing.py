"""Smooths what matmuls read of a LayerNorm: channels are divided by factors, and the rows of the weights multiplied by them.

The product stays the same, but a channel with far larger values than the others takes less of the int8 range. The division is in
the scale and shift of a copy of the LayerNorm, so the graph gets no division, only a second LayerNormalization.
Source: "SmoothQuant", Xiao et al. 2023, arXiv:2211.10438.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.onnx.quantized import Product, products_of, times
from lxmert_export.exporting.activation_steps import (
    Step,
    best_step,
    best_steps,
    kept_rows,
    measure,
    names_of,
    probing,
)
from lxmert_export.graphs.onnx_types import load_typed
from lxmert_export.progress import Progress, silent
from lxmert_export.spec.inputs import Arrays

STRENGTHS = (0.25, 0.5, 0.75)  # how much of the spread goes from the activations to the weights
# Of the squared error of a group's products: a second LayerNorm takes time, and is to be worth it.
LEAST_GAIN = 0.5
UNEVEN = 4.0  # times the median channel: those have two of int8's seven bits less
Channels = NDArray[np.float32]  # a number for each channel of a value


@dataclass(frozen=True)
class Group:
    """Products that must have the same factors: they read one value, or multiply one weight."""

    products: tuple[Product, ...]

    @property
    def reads(self) -> list[str]:
        """The names of the values that they read."""
        return names_of(self.products)


def choose_smoothed_steps(
    path: Path,
    measured: Sequence[Arrays],
    kept_back: Sequence[Arrays],
    weight_range: int,
    progress: Progress = silent,
) -> tuple[dict[str, Step], dict[str, Channels]]:
    """Returns the steps as ``choose_steps`` does, and the factors by the names of the values that they divide.

    Values that smoothing does not help are left out: it must at least halve the squared error of the products on ``kept_back``,
    each with its best method.
    """
    histograms = measure(path, measured, progress)
    steps, factors = best_steps(path, histograms, kept_back, weight_range, progress), dict[str, Channels]()
    channels = {name: histogram.channels for name, histogram in histograms.items()}
    groups = [
        group
        for group in smoothable(products_of(load_typed(path).graph))
        if any(_is_uneven(channels[name]) for name in group.reads)
    ]
    if not groups:
        return steps, {}
    candidates = _candidates(path, groups, channels, kept_back, weight_range)
    divided = measure(path, measured, progress, candidates)
    smoothed = best_steps(path, divided, kept_back, weight_range, progress, candidates)
    for group in groups:
        names = [product.name for product in group.products]
        before, after = (sum(found[name].error ** 2 for name in names) for found in (steps, smoothed))
        if after < (1 - LEAST_GAIN) * before:
            steps |= {name: smoothed[name] for name in names}
            factors |= {name: candidates[name] for name in group.reads}
    return steps, factors


def _candidates(
    path: Path,
    groups: Sequence[Group],
    channels: Mapping[str, Channels],
    kept_back: Sequence[Arrays],
    weight_range: int,
) -> dict[str, Channels]:
    """Returns the factors of the best strength for each value that the groups read."""
    reads = [name for group in groups for name in group.reads]
    rows = dict(kept_rows(probing(path, reads), reads, kept_back))
    best = [(group, _best(group, channels, rows, weight_range)) for group in groups]
    return {name: factors for group, factors in best for name in group.reads}


def _is_uneven(largest: Channels) -> bool:
    """Whether a channel is so much larger than most that they get a few of int8's steps only."""
    return bool(largest.max() > UNEVEN * np.median(largest))


def smoothable(products: Iterable[Product]) -> list[Group]:
    """Returns the groups of products all of which read what a LayerNorm gives, with stored scale and shift."""
    groups: list[list[Product]] = []
    for product in products:
        joined = [group for group in groups if any(_tied(product, other) for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([one for group in joined for one in group] + [product])
    return [Group(tuple(group)) for group in groups if all(map(_reads_a_norm, group))]


def _tied(one: Product, other: Product) -> bool:
    return one.read is other.read or one.weight_name == other.weight_name


def _reads_a_norm(product: Product) -> bool:
    norm = product.read.producer()
    return (
        norm is not None
        and norm.op_type == "LayerNormalization"
        and all(value is not None and value.is_initializer() for value in norm.inputs[1:])
    )


def _best(
    group: Group, largest: Mapping[str, Channels], rows: Mapping[str, NDArray[np.float32]], weight_range: int
) -> Channels:
    """Returns the factors of the strength with the least error, if no value is cut off."""
    of_activations = np.max([largest[name] for name in group.reads], axis=0)
    of_weights = np.max([np.abs(product.weight()).max(axis=1) for product in group.products], axis=0)

    def error(factors: Channels) -> float:
        total = 0.0
        for product in group.products:
            name = product.read.name or ""
            limits = {"min-max": float((largest[name] / factors).max()) or 1.0}
            step = best_step(rows[name] / factors, times(product.weight(), factors), limits, weight_range)
            total += step.error**2
        return total

    return min((_factors(of_activations, of_weights, strength) for strength in STRENGTHS), key=error)


def _factors(activations: Channels, weights: Channels, strength: float) -> Channels:
    """Activations to the power of the strength ÷ weights to the power of the rest, about 1 on average; 1 where either is 0."""
    used = (activations > 0) & (weights > 0)
    if not used.any():
        return np.ones_like(activations)
    logarithms = strength * np.log(activations[used]) - (1 - strength) * np.log(weights[used])
    factors = np.ones_like(activations)
    factors[used] = np.exp(logarithms - logarithms.mean())
    return factors
