"""Smoothing before int8: exact where it can be, fused like all else, and worth it only for channels far larger than others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from torch import nn

from converters.onnx import quantized
from converters.onnx.quantized import products_of, write_quantized
from converters.to_onnx import convert_to_onnx
from lxmert_export.artifact.directory import ONNX_FILE
from lxmert_export.errors import ConversionError
from lxmert_export.exporting.activation_steps import Step, choose_steps
from lxmert_export.exporting.smoothing import choose_smoothed_steps, smoothable
from lxmert_export.graphs.onnx_types import load_typed
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.sample_inputs import FamilyKind, draw_batch
from lxmert_export.spec.signature import Task, task_signature
from parity_tests.fixtures.random_models import SMALL, lively_model
from parity_tests.fixtures.stress_models import outlier_model
from parity_tests.onnx.test_int8 import STEP, optimised

TASK: Task = "question-answering"
Factors = Mapping[str, NDArray[np.float32]]
SIGNATURE = task_signature(SMALL, TASK)


def exported(model: nn.Module, place: Path) -> Path:
    place.mkdir()
    convert_to_onnx(model, SIGNATURE, InputLimits.of(SMALL), place, precision="fp32")
    return place / ONNX_FILE


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(lively_model(TASK, SMALL), tmp_path_factory.mktemp("smoothing") / "wide")


def drawn(batches: int, seed: int = 0) -> list[Arrays]:
    generator = np.random.default_rng(seed)
    sizes = {"batch": 16, "text": 7, "objects": 5}
    return [draw_batch(FamilyKind(ragged=True), SIGNATURE, SMALL, sizes, generator) for _ in range(batches)]


def answers(path: Path, batches: list[Arrays]) -> NDArray[np.float32]:
    """Without optimisation: no kernel of this CPU saturates."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options)
    return np.concatenate([session.run(None, batch)[0] for batch in batches])


def whole(source: Path, place: Path, steps: Mapping[str, float], factors: Factors) -> Path:
    place.mkdir()
    return write_quantized(source, place, steps, weight_range=127, factors=factors)


def widths_of(path: Path) -> dict[str, int]:
    """The values that can be smoothed, each with its width."""
    groups = smoothable(products_of(load_typed(path).graph))
    return {name: len(group.products[0].weight()) for group in groups for name in group.reads}


def test_factors_of_two_change_no_bit(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations and their step are halved, weights and theirs doubled: the whole numbers stay the same."""
    products = products_of(load_typed(wide).graph)
    factors = {name: np.full(width, 2, np.float32) for name, width in widths_of(wide).items()}
    steps = {p.name: STEP / (2 if p.read.name in factors else 1) for p in products}
    plain = whole(wide, tmp_path / "plain", {p.name: STEP for p in products}, {})
    halved = whole(wide, tmp_path / "halved", steps, factors)
    inputs = drawn(1)
    wanted = answers(plain, inputs)
    np.testing.assert_array_equal(answers(halved, inputs), wanted)
    monkeypatch.setattr(quantized, "times", lambda weight, factors: weight)
    wrong = whole(wide, tmp_path / "wrong", steps, factors)
    assert np.abs(answers(wrong, inputs) - wanted).max() > 0.1


def test_every_matmul_is_fused_as_before(wide: Path, tmp_path: Path) -> None:
    import openvino
    import tensorrt_rtx

    products = products_of(load_typed(wide).graph)
    generator = np.random.default_rng(0)
    factors: dict[str, NDArray[np.float32]] = {}
    for group in smoothable(products):
        factors |= dict.fromkeys(
            group.reads, generator.uniform(0.5, 2, len(group.products[0].weight())).astype(np.float32)
        )
    assert len(factors) > 10
    path = whole(wide, tmp_path / "out", {p.name: STEP for p in products}, factors)
    assert optimised(path, tmp_path)["MatMulIntegerToFloat"] == len(products)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = {f["runtimePrecision"].value for f in facts if f["layerType"].value == "FullyConnected"}
    assert kinds <= {"i8", "u8"}
    builder = tensorrt_rtx.Builder(tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
    network = builder.create_network(1 << int(tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt_rtx.OnnxParser(network, tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
    assert parser.parse_from_file(str(path)), parser.get_error(0)


def test_products_of_one_weight_share_their_factors(wide: Path) -> None:
    """Cross attention multiplies what both sides read by one weight, in both directions."""
    products = products_of(load_typed(wide).graph)
    groups = smoothable(products)
    crossing = [group for group in groups if any("cross_attention" in one.name for one in group.products)]
    assert any(len(group.reads) == 2 for group in crossing)
    by_weight: dict[str, set[int]] = {}
    for number, group in enumerate(groups):
        for one in group.products:
            by_weight.setdefault(one.weight_name, set()).add(number)
    assert all(len(numbers) == 1 for numbers in by_weight.values())
    grouped = {one.name for group in groups for one in group.products}
    for product in products:
        norm = product.read.producer()
        assert (norm is not None and norm.op_type == "LayerNormalization") or product.name not in grouped


@pytest.mark.parametrize("seed", [0, 1])
def test_it_helps_where_channels_are_far_larger_than_the_others(seed: int, tmp_path: Path) -> None:
    """Two channels are 24 times as large as the others, as in trained encoders: they would take all of int8's range."""
    path = exported(outlier_model(TASK, SMALL, seed), tmp_path / "wide")
    measured, kept_back, judged = drawn(6), drawn(2, 1), drawn(4, 2)
    steps, factors = choose_smoothed_steps(path, measured, kept_back, 127)
    assert len(factors) > 5 and {step.smoothed for step in steps.values()} - {None} == set(factors)
    plain = choose_steps(path, measured, kept_back, 127)
    wanted = answers(path, judged)

    def error(chosen: Mapping[str, Step], divided: Factors, name: str) -> float:
        written = whole(path, tmp_path / name, {n: step.step for n, step in chosen.items()}, divided)
        return float(np.sqrt(np.mean(np.square(answers(written, judged) - wanted))))

    assert error(steps, factors, "smooth") < 0.7 * error(plain, {}, "plain")


def test_a_channel_that_is_seldom_large_is_cut_off_and_not_smoothed(tmp_path: Path) -> None:
    """What factors must beat is the best of four methods, not the largest value."""
    generator = np.random.default_rng(0)
    weight, gain = generator.standard_normal((64, 32)).astype(np.float32), np.ones(64, np.float32)
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 18]> product (float[n, 64] x) => (float[n, 32] y) {
        read = LayerNormalization (x, gain)
        y = MatMul (read, weight)
    }""")
    model.graph.initializer.extend(
        [onnx.numpy_helper.from_array(gain, "gain"), onnx.numpy_helper.from_array(weight, "weight")]
    )
    for number, node in enumerate(model.graph.node):
        node.name = f"node {number}"
    (tmp_path / "wide").mkdir()
    path = tmp_path / "wide" / ONNX_FILE
    onnx.save(model, path)
    rows = generator.standard_normal((20_000, 64)).astype(np.float32)
    rows[::400, 5] *= 60
    kept = generator.standard_normal((512, 64)).astype(np.float32)
    steps, factors = choose_smoothed_steps(path, [{"x": part} for part in np.split(rows, 5)], [{"x": kept}], 127)
    assert factors == {} and steps["node 1"].method != "min-max"


def test_infinity_is_one_line(tmp_path: Path) -> None:
    model = lively_model(TASK, SMALL)
    for name, parameter in model.named_parameters():
        if name.endswith("visual_embeddings.features.bias"):
            parameter.data.fill_(float("inf"))
    path = exported(model, tmp_path / "wide")
    with pytest.raises(ConversionError, match="a value is NaN or infinite on the calibration inputs"):
        choose_smoothed_steps(path, drawn(2), drawn(1, 1), 127)
