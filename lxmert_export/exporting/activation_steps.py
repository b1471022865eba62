"""Chooses the int8 step of the activations that each matmul reads: by four methods, and then by the error that each makes.

Histograms are measured on calibration inputs. The error is that of the matmul's result, on inputs that no histogram saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.onnx.quantized import ACTIVATION_RANGE, Product, column_scales, in_steps, products_of, times
from lxmert_export.errors import ConversionError
from lxmert_export.graphs.onnx_types import expose, load_typed
from lxmert_export.progress import Progress, silent
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.onnx.session import open_session
from lxmert_export.spec.inputs import Arrays

BINS = 2048
PERCENTILE = 99.99
TRIED = 64  # limits that the method of the least squared error tries
LEVELS = ACTIVATION_RANGE + 1  # of a magnitude
ROWS_JUDGED = 256  # rows of a value on which methods are compared
AT_ONCE = 32  # values that one run returns when they are kept
KEPT_BACK = 4  # one batch in four chooses the method
PROBED_FILE = "probed.onnx"
Magnitudes = NDArray[np.float64]
Factors = Mapping[str, NDArray[np.float32]]  # by the name of a value: what its channels are divided by


@dataclass(frozen=True)
class Step:
    """The step of the activations that a matmul reads.

    ``error``: of its result, relative (RMS), on inputs kept back. ``smoothed``: the value that it reads, if that has factors.
    """

    step: float
    method: str
    error: float
    smoothed: str | None = None


class Histogram:
    """How often magnitudes occur, in equal bins from 0 on; bins become twice as wide when a larger one comes.

    ``channels``: the largest magnitude of each channel, which are the last axis; ``largest``: of all.
    """

    def __init__(self) -> None:
        self.channels: NDArray[np.float32] = np.zeros(1, np.float32)
        self.counts = np.zeros(BINS)
        self.width = 0.0
        self.largest = 0.0

    def add(self, values: NDArray[np.floating[Any]]) -> None:
        """Counts values [..., channels], which must be finite."""
        magnitudes = np.abs(values)
        self.channels = np.maximum(self.channels, magnitudes.reshape(-1, values.shape[-1]).max(axis=0))
        magnitudes = magnitudes.ravel()
        largest = float(magnitudes.max(initial=0.0))
        self.largest = max(self.largest, largest)
        if largest == 0.0:
            self.counts[0] += magnitudes.size
            return
        if self.width == 0.0:
            self.width = largest / BINS
        while largest > self.width * BINS:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2)])
            self.width *= 2
        places = np.minimum((magnitudes / self.width).astype(np.int32), BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)

    @property
    def centres(self) -> Magnitudes:
        """The middle of each bin."""
        return np.asarray((np.arange(BINS) + 0.5) * self.width, np.float64)


def apart(batches: Sequence[Arrays]) -> tuple[list[Arrays], list[Arrays]]:
    """Splits calibration batches into those that measure and those that are kept back: one in four, at least the last."""
    kept = range(KEPT_BACK - 1, len(batches), KEPT_BACK) or [len(batches) - 1]
    return [batch for number, batch in enumerate(batches) if number not in kept], [batches[number] for number in kept]


def choose_steps(
    path: Path,
    measured: Sequence[Arrays],
    kept_back: Sequence[Arrays],
    weight_range: int,
    progress: Progress = silent,
) -> dict[str, Step]:
    """Returns the step for each matmul of a float32 file that has a stored weight, by the name of its node.

    ``measured`` fill the histograms, ``kept_back`` choose the method. ``path``: a file that may have another one written beside
    it. ``ConversionError``: a value is NaN or infinite.
    """
    return best_steps(path, measure(path, measured, progress), kept_back, weight_range, progress)


def measure(
    path: Path, batches: Sequence[Arrays], progress: Progress = silent, factors: Factors | None = None
) -> dict[str, Histogram]:
    """Returns the histogram of each value that a matmul reads; with ``factors``, of those that have some, divided by them."""
    names = names_of(products_of(load_typed(path).graph))
    histograms = {name: Histogram() for name in names if factors is None or name in factors}
    session = probing(path, list(histograms))
    for name, values in measured_values(session, list(histograms), batches, progress):
        histograms[name].add(values if factors is None else values / factors[name])
    return histograms


def best_steps(
    path: Path,
    histograms: Mapping[str, Histogram],
    kept_back: Sequence[Arrays],
    weight_range: int,
    progress: Progress = silent,
    factors: Factors | None = None,
) -> dict[str, Step]:
    """Returns the best step for each matmul that reads a measured value; ``factors`` as of ``measure``."""
    products = [product for product in products_of(load_typed(path).graph) if product.read.name in histograms]
    limits = {name: limits_of(histogram) for name, histogram in histograms.items()}
    session, chosen = probing(path, list(histograms)), dict[str, Step]()
    for number, (name, rows) in enumerate(kept_rows(session, list(histograms), kept_back)):
        progress("choosing steps", number, len(histograms))
        divisor = None if factors is None else factors[name]
        divided = rows if divisor is None else rows / divisor
        for product in products:
            if product.read.name == name:
                step = best_step(divided, times(product.weight(), divisor), limits[name], weight_range)
                chosen[product.name] = step if divisor is None else replace(step, smoothed=name)
    progress("choosing steps", len(histograms), len(histograms))
    return {product.name: chosen[product.name] for product in products}


def measured_values(
    session: Any, names: Sequence[str], batches: Sequence[Arrays], progress: Progress = silent
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yields the values that a file computes, by name, batch by batch. ``ConversionError``: one is NaN or infinite."""
    for number, batch in enumerate(batches):
        progress("measuring activations", number, len(batches))
        for name, values in values_of(session, names, batch):
            if not np.isfinite(values).all():
                raise ConversionError(
                    f"{name}: a value is NaN or infinite on the calibration inputs, so no step fits it"
                )
            yield name, values
    progress("measuring activations", len(batches), len(batches))


def taken_of(session: Any, batch: Arrays) -> Arrays:
    """Returns the inputs that a session takes; a graph may read fewer than its signature names."""
    return {value.name: batch[value.name] for value in session.get_inputs()}


def limits_of(histogram: Histogram) -> dict[str, float]:
    """Returns the magnitude at which each method cuts values off."""
    if histogram.largest == 0.0:
        return {"min-max": 1.0}
    return {
        "min-max": histogram.largest,
        "percentile": _percentile(histogram),
        "entropy": _least_divergence(histogram),
        "squared error": _least_squared_error(histogram),
    }


def best_step(
    rows: NDArray[np.float32], weight: NDArray[np.float32], limits: Mapping[str, float], weight_range: int
) -> Step:
    """Returns the step of the method whose error in rows [n, in] · weight [in, out] is the least."""
    steps = column_scales(weight, weight_range)
    stored = in_steps(weight, steps, weight_range).astype(np.float32) * steps
    wanted = rows @ weight
    size = float(np.sqrt(np.mean(np.square(wanted)))) or 1.0

    def judged(method: str) -> Step:
        step = limits[method] / ACTIVATION_RANGE
        found = (in_steps(rows, step, ACTIVATION_RANGE).astype(np.float32) * np.float32(step)) @ stored
        return Step(step, method, float(np.sqrt(np.mean(np.square(found - wanted)))) / size)

    return min(map(judged, limits), key=lambda step: step.error)


def _percentile(histogram: Histogram) -> float:
    below = np.cumsum(histogram.counts) >= PERCENTILE / 100 * histogram.counts.sum()
    return min(float((np.argmax(below) + 1) * histogram.width), histogram.largest)


def _least_squared_error(histogram: Histogram) -> float:
    """Rounding errors spread evenly over a step; what is cut off loses its distance to the limit."""
    counts, centres = histogram.counts, histogram.centres
    tried = histogram.largest * np.arange(1, TRIED + 1) / TRIED

    def error(limit: float) -> float:
        inside = counts[centres <= limit].sum() * (limit / ACTIVATION_RANGE) ** 2 / 12
        beyond = centres > limit
        return float(inside + (counts[beyond] * (centres[beyond] - limit) ** 2).sum())

    return float(min(tried, key=error))


def _least_divergence(histogram: Histogram) -> float:
    """The limit whose 128 steps lose least of the distribution, by Kullback and Leibler: as TensorRT calibrates.

    Source: "8-bit Inference with TensorRT", S. Migacz, GTC 2017.
    """
    bins = range(LEVELS, BINS + 1, LEVELS // 4)
    best = min(bins, key=lambda kept: _divergence(histogram.counts, kept))
    return min(best * histogram.width, histogram.largest)


def _divergence(counts: Magnitudes, kept: int) -> float:
    cut = counts[:kept].copy()
    wanted = cut.copy()
    wanted[-1] += counts[kept:].sum()
    level = np.arange(kept) * LEVELS // kept
    sums, filled = np.bincount(level, cut, LEVELS), np.bincount(level, cut > 0, LEVELS)
    spread = np.where(cut > 0, sums[level] / np.maximum(filled[level], 1), 0)
    if not spread.sum():
        return float("inf")
    one, other = wanted / wanted.sum(), spread / spread.sum()
    seen = one > 0
    # What the levels do not show at all has a small share, so that its loss is large and finite.
    return float((one[seen] * np.log(one[seen] / np.maximum(other[seen], 1e-9))).sum())


def names_of(products: Iterable[Product]) -> list[str]:
    """Returns the names of the values that products read, each once."""
    return list(dict.fromkeys(product.read.name or "" for product in products))


def probing(path: Path, names: Sequence[str]) -> Any:
    """Opens the file with values as outputs. Its weights are read where they lie."""
    model = load_typed(path)
    expose(model.graph, names)
    probed = path.with_name(PROBED_FILE)
    ir.save(model, probed)
    return open_session(probed, (CPU,), optimize=False)


def values_of(session: Any, names: Sequence[str], batch: Arrays) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yields values by name: those that are inputs themselves, and those that the graph computes of them."""
    computed = [name for name in names if name not in batch]
    yield from ((name, batch[name].astype(np.float32)) for name in names if name in batch)
    yield from zip(computed, session.run(computed, taken_of(session, batch)) if computed else (), strict=True)


def kept_rows(
    session: Any, names: Sequence[str], batches: Sequence[Arrays]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yields rows [n, width] of each value, spread evenly over those of a batch, so that few are in memory at once."""
    for first in range(0, len(names), AT_ONCE):
        some = names[first : first + AT_ONCE]
        found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in some}
        for batch in batches:
            for name, values in values_of(session, some, batch):
                rows = values.reshape(-1, values.shape[-1])
                most = max(ROWS_JUDGED // len(batches), 1)
                found[name].append(rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)])
        yield from ((name, np.concatenate(found.pop(name))) for name in some)
