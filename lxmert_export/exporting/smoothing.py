"""Smooths what matmuls read of a LayerNorm: channels are divided by factors, and the rows of the weights multiplied by them.

The product stays the same, but a channel with far larger values than the others takes less of the int8 range. The division is in
a copy of the LayerNorm's own scale and shift, so it costs no operator of its own in the weights' products.
Source: "SmoothQuant", Xiao et al. 2023, arXiv:2211.10438.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.onnx.quantized import Product, products_of, times
from lxmert_export.exporting.activation_steps import best_step, kept_rows, names_of, probing, values_of
from lxmert_export.graphs.onnx_types import load_typed
from lxmert_export.spec.inputs import Arrays

STRENGTHS = (0.25, 0.5, 0.75)  # how much of the spread goes from the activations to the weights
LEAST_GAIN = (
    0.5  # of the squared error of a group's products: a second LayerNorm takes time, and less than that is noise
)
Factors = NDArray[np.float32]


@dataclass(frozen=True)
class Group:
    """Products that must have the same factors: they read one value, or multiply one weight."""

    products: tuple[Product, ...]

    @property
    def reads(self) -> list[str]:
        """The names of the values that they read."""
        return names_of(self.products)


def choose_factors(
    path: Path, measured: Sequence[Arrays], kept_back: Sequence[Arrays], weight_range: int
) -> dict[str, Factors]:
    """Returns the factors of what LayerNorms give, by the name of the value; values that smoothing does not help are left out.

    Ranges are measured on ``measured``, the strength is chosen by the error of the products on ``kept_back``.
    """
    groups = smoothable(products_of(load_typed(path).graph))
    names = [name for group in groups for name in group.reads]
    if not names:
        return {}
    session = probing(path, names)
    largest: dict[str, Factors] = {}
    for batch in measured:
        for name, values in values_of(session, names, batch):
            found = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
            largest[name] = np.maximum(largest.get(name, found), found)
    rows = dict(kept_rows(session, names, kept_back))
    chosen: dict[str, Factors] = {}
    for group in groups:
        if (factors := _best(group, largest, rows, weight_range)) is not None:
            chosen |= dict.fromkeys(group.reads, factors)
    return chosen


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
    group: Group, largest: dict[str, Factors], rows: dict[str, NDArray[np.float32]], weight_range: int
) -> Factors | None:
    """Returns the factors with the least error; None: without any it is hardly larger."""
    of_activations = np.max([largest[name] for name in group.reads], axis=0)
    of_weights = np.max([np.abs(product.weight()).max(axis=1) for product in group.products], axis=0)

    def error(factors: Factors | None) -> float:
        total = 0.0
        for product in group.products:
            name = product.read.name or ""
            read, limit = rows[name], largest[name]
            if factors is not None:
                read, limit = read / factors, limit / factors
            limits = {"min-max": float(limit.max()) or 1.0}
            total += best_step(read, times(product.weight(), factors), limits, weight_range).error ** 2
        return total

    candidates = [_factors(of_activations, of_weights, strength) for strength in STRENGTHS]
    best = min(candidates, key=error)
    return best if error(best) < (1 - LEAST_GAIN) * error(None) else None


def _factors(activations: Factors, weights: Factors, strength: float) -> Factors:
    """Activations to the power of the strength ÷ weights to the power of the rest, about 1 on average; 1 where either is 0."""
    used = (activations > 0) & (weights > 0)
    if not used.any():
        return np.ones_like(activations)
    logarithms = strength * np.log(activations[used]) - (1 - strength) * np.log(weights[used])
    factors = np.ones_like(activations)
    factors[used] = np.exp(logarithms - logarithms.mean())
    return factors
