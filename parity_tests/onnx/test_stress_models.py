"""Outlier dimensions beyond 10⁴: the standard islands are what fp16 needs for them, and enough, while no matmul overflows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from converters.onnx.islands import standard_islands, write_with_islands
from converters.to_onnx import convert_to_onnx
from lxmert_export.exporting.activation_ranges import largest_activations
from lxmert_export.graphs.fp16_linter import LARGEST_HALF
from lxmert_export.parity.scores import THRESHOLD
from lxmert_export.spec.inputs import InputLimits
from parity_tests.fixtures.random_models import TINY, lively_inputs
from parity_tests.fixtures.stress_models import (
    encoder_layer,
    outlier_model,
    rescale_queries,
    rescale_residual_stream,
    rescale_values,
    same_function,
)
from parity_tests.onnx.island_trials import Bench, bench

OUTLIERS = 1e4
Rescale = Callable[[nn.Module], None]
# What stays inside fp16's range, and what does not.
WITHIN: dict[str, Rescale] = {
    "residual stream": lambda model: rescale_residual_stream(model, 2.0**8),
    "values": lambda model: rescale_values(encoder_layer(model).self_attention, 2.0**9),
    "queries": lambda model: rescale_queries(encoder_layer(model).self_attention, 2.0**11),
}
BEYOND: dict[str, Rescale] = {
    "residual stream": lambda model: rescale_residual_stream(model, 2.0**11),
    "values": lambda model: rescale_values(encoder_layer(model).self_attention, 2.0**15),
    "queries": lambda model: rescale_queries(encoder_layer(model).self_attention, 2.0**15),
}
FEW = ("plain", "ragged", "masked-row")  # where what is asked for shows in any
EXACT = ("values", "queries")  # LayerNorm's eps does not scale along with the residual stream


def stressed(rescale: Rescale) -> nn.Module:
    model: nn.Module = outlier_model("pretraining", TINY)
    rescale(model)
    return model


def without(bench: Bench, left_out: Callable[[str], bool]) -> list[str]:
    return [name for name in standard_islands(bench.source) if not left_out(name)]


def is_norm(name: str) -> bool:
    return "/LayerNormalization" in name


def is_mask_or_softmax(name: str) -> bool:
    return name.startswith("lxmert/") or "attention/" in name


def is_gelu(name: str) -> bool:
    return not is_norm(name) and not is_mask_or_softmax(name)


@pytest.mark.parametrize("places", [WITHIN, BEYOND], ids=["within", "beyond"])
@pytest.mark.parametrize("kind", WITHIN)
def test_the_function_stays(places: dict[str, Rescale], kind: str) -> None:
    base, model = outlier_model("pretraining", TINY), stressed(places[kind])
    difference = same_function(base, model, lively_inputs(TINY, dtype=torch.float64))
    assert difference == 0 if kind in EXACT else difference < 1e-11


def test_another_function_would_show() -> None:
    base, model = outlier_model("pretraining", TINY), stressed(WITHIN["values"])
    encoder_layer(model).self_attention.output.weight.data *= 2
    assert same_function(base, model, lively_inputs(TINY, dtype=torch.float64)) > 1e-3


@pytest.fixture(scope="module", params=WITHIN)
def within(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    model = stressed(WITHIN[request.param])
    return bench(model, TINY, "pretraining", tmp_path_factory.mktemp("within"), object_heads=True)


def largest(bench: Bench, directory: Path) -> float:
    """Of what fp16 holds: the mask's -10000 is on an island."""
    path = write_with_islands(bench.source, directory, standard_islands(bench.source))
    batches = [batch for family in bench.samples.families for batch in family.batches]
    return max(largest_activations(path, batches).values())


def test_without_rescaling_nothing_is_large(tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    ordinary = bench(outlier_model("pretraining", TINY), TINY, "pretraining", tmp_path / "wide", object_heads=True)
    assert largest(ordinary, tmp_path) < 256
    # Small numbers have no need of the norms' islands, only of the mask's and softmax's.
    assert ordinary.report(without(ordinary, lambda name: not is_mask_or_softmax(name))).passed


def test_standard_islands_suffice(within: Bench, tmp_path: Path) -> None:
    assert OUTLIERS < largest(within, tmp_path) < LARGEST_HALF
    assert within.report(standard_islands(within.source)).passed


def test_the_mask_and_softmax_are_needed(within: Bench) -> None:
    assert not within.report(without(within, is_mask_or_softmax)).passed


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The one kind that the norms read: their squares overflow from 256 on."""
    model = stressed(WITHIN["residual stream"])
    return bench(model, TINY, "pretraining", tmp_path_factory.mktemp("stream"), families=FEW, object_heads=True)


def test_the_norms_are_needed(stream: Bench) -> None:
    report = stream.report(without(stream, is_norm))
    assert not report.passed and all(cell.score is None or cell.score > THRESHOLD for cell in report.failures)
    # Each of the encoder's, alone: what the heads norm is small again.
    norms = [name for name in standard_islands(stream.source) if is_norm(name) and "_layers." in name]
    assert len(norms) == 10
    for norm in norms:
        assert not stream.report(without(stream, lambda name, norm=norm: name == norm)).passed, norm


def test_gelu_is_an_island_for_accuracy_not_for_the_gate(stream: Bench) -> None:
    gelus = [name for name in standard_islands(stream.source) if is_gelu(name)]
    assert {name.rpartition("/")[2].split("_")[0] for name in gelus} == {"Div", "Erf", "Add", "Mul"}
    assert stream.report(without(stream, is_gelu)).passed


def test_standard_islands_are_those_of_an_fp16_export(stream: Bench, tmp_path: Path) -> None:
    # The exporter rounds between two islands that follow one another, GELU and the norm of a head; else they are the same.
    model = stressed(WITHIN["residual stream"])
    convert_to_onnx(model, stream.signature, InputLimits.of(TINY), tmp_path, precision="fp16")
    exported = stream.report_on(stream.artifact(tmp_path))
    rewritten = stream.report(standard_islands(stream.source))
    assert exported.passed
    for one, other in zip(exported.cells, rewritten.cells, strict=True):
        assert one.error_rms == pytest.approx(other.error_rms, rel=0.25), (one.output, one.family)


@pytest.mark.parametrize("kind", BEYOND)
def test_where_a_matmul_overflows_no_standard_island_helps(kind: str, tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    overflowing = bench(stressed(BEYOND[kind]), TINY, "pretraining", tmp_path / "wide", families=FEW)
    assert largest(overflowing, tmp_path) > LARGEST_HALF
    assert all(np.isfinite(floor.rms) for floor in overflowing.floors.values())
    report = overflowing.report(standard_islands(overflowing.source))
    assert "NaN or infinity" in {cell.reason for cell in report.failures}


def test_floors_without_range_are_those_of_the_same_function(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("inside", "outside")]
    for place in places:
        place.mkdir()
    base = outlier_model("pretraining", TINY)
    beyond = copy.deepcopy(base)
    BEYOND["values"](beyond)
    inside, outside = (
        bench(model, TINY, "pretraining", place, families=FEW)
        for model, place in zip((base, beyond), places, strict=True)
    )
    for key, floor in inside.floors.items():
        assert outside.floors[key].rms / floor.rms == pytest.approx(1, abs=0.75), key
