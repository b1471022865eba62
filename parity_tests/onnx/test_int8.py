"""int8 ONNX: integer kernels in every runtime from one file, answers that do not depend on their neighbours, measured steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import lxmert_export as lx
from converters.onnx.quantized import column_scales, in_steps, products_of, write_quantized
from converters.to_onnx import convert_to_onnx
from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.artifact.precision import check_manifest_precision
from lxmert_export.errors import ArtifactError, ConversionError, InputError
from lxmert_export.exporting import smoothing
from lxmert_export.exporting.activation_steps import BINS, Histogram, apart, best_step, choose_steps, limits_of
from lxmert_export.exporting.int8_sensitivity import find_sensitive
from lxmert_export.graphs.int8_saturation import can_saturate, saturation_of
from lxmert_export.graphs.onnx_facts import read_onnx_facts
from lxmert_export.graphs.onnx_types import load_typed
from lxmert_export.runners.onnx import int8_kernels
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import TASKS, Task, task_signature
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.command import refused, run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_model

STEP = 0.05
FIXED = {"dynamic": {}, "fixed": {"batch": 2, "text": 5, "objects": 3}}
# With fixed axes, nlvr2 alone has another form: its pairs are taken apart.
FORMS: list[tuple[Task, str]] = [*((task, "dynamic") for task in TASKS), ("nlvr2", "fixed")]


@dataclass(frozen=True)
class Written:
    """A file in float32, and the same in int8."""

    wide: Path
    whole: Path
    products: list[str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Task, str], Written]:
    """Of every task, with steps that nobody measured: for what the form of the graph alone decides."""
    found = {}
    for task, name in FORMS:
        place = tmp_path_factory.mktemp("int8")
        (place / "wide").mkdir()
        (place / "whole").mkdir()
        signature = task_signature(TINY, task, fixed=FIXED[name])
        wide, _ = convert_to_onnx(
            lively_model(task, TINY), signature, InputLimits.of(TINY), place / "wide", precision="fp32"
        )
        products = [product.name for product in products_of(load_typed(wide).graph)]
        whole = write_quantized(wide, place / "whole", dict.fromkeys(products, STEP), weight_range=127)
        found[task, name] = Written(wide, whole, products)
    return found


def optimised(file: Path, place: Path, **settings: str) -> Counter[str]:
    """The operators after onnxruntime's own optimisation."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(place / "optimised.onnx"), 3
    for key, value in settings.items():
        options.add_session_config_entry(key.replace("__", "."), value)
    onnxruntime.InferenceSession(file, options)
    return Counter(node.op_type for node in onnx.load(place / "optimised.onnx", load_external_data=False).graph.node)


@pytest.mark.parametrize(("task", "axes"), FORMS)
def test_onnxruntime_multiplies_integers_in_every_matmul_with_weights(
    task: Task, axes: str, files: dict[tuple[Task, str], Written], tmp_path: Path
) -> None:
    written = files[task, axes]
    for settings in ({}, {"optimization__disable_specified_optimizers": "SkipLayerNormFusion"}):
        found = optimised(written.whole, tmp_path, **settings)
        assert found["MatMulIntegerToFloat"] == len(written.products) > 25
        assert found["DequantizeLinear"] == found["Gemm"] == found["QGemm"] == 0


def test_a_shared_pair_is_not_fused(files: dict[tuple[Task, str], Written], tmp_path: Path) -> None:
    """Why scales differ in the last place: with equal ones, onnxruntime dequantises the weights of two matmuls in three."""
    model = onnx.load(files["question-answering", "dynamic"].whole)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("/step"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(STEP, np.float32), tensor.name))
    onnx.save(model, tmp_path / "equal.onnx")
    assert optimised(tmp_path / "equal.onnx", tmp_path)["DequantizeLinear"] > 15


@pytest.mark.parametrize("task", TASKS)
def test_openvino_multiplies_integers_as_well(task: Task, files: dict[tuple[Task, str], Written]) -> None:
    import openvino

    written = files[task, "dynamic"]
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(written.whole), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = Counter(f["runtimePrecision"].value for f in facts if f["layerType"].value == "FullyConnected")
    assert set(kinds) <= {"i8", "u8"} and kinds.total() == len(written.products)


@pytest.mark.parametrize("task", TASKS)
def test_tensorrt_takes_the_same_file(task: Task, files: dict[tuple[Task, str], Written]) -> None:
    """TensorRT-RTX parses it as strongly typed: no zero point, no integer bias."""
    import tensorrt_rtx

    builder = tensorrt_rtx.Builder(tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
    network = builder.create_network(1 << int(tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt_rtx.OnnxParser(network, tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
    assert parser.parse_from_file(str(files[task, "dynamic"].whole)), parser.get_error(0)


def test_an_answer_does_not_depend_on_its_neighbours(files: dict[tuple[Task, str], Written]) -> None:
    """To the bit: dynamic int8 takes one scale for the whole batch, and moves by a tenth."""
    session = onnxruntime.InferenceSession(files["question-answering", "dynamic"].whole)
    one, other = real_rows(2)
    inputs: Arrays = {name: np.concatenate([one[name], other[name]]) for name in one}
    inputs["visual_feats"] *= 3
    whole = session.run(None, inputs)[0]
    for size in (1, 3, 8):
        for first in (0, 13):
            rows = slice(first, first + size)
            part = session.run(None, {name: array[rows] for name, array in inputs.items()})[0]
            assert np.array_equal(part, whole[rows])


def test_a_matmul_computes_what_its_steps_say(files: dict[tuple[Task, str], Written]) -> None:
    """The first one, which reads an input itself, beside whole numbers that numpy multiplies."""
    written = files["question-answering", "dynamic"]
    product = products_of(load_typed(written.wide).graph)[0]
    model = onnx.load(written.whole)
    (node,) = [node for node in model.graph.node if node.name == product.name]
    model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    (inputs,) = real_rows(1)
    weight, feats = product.weight(), inputs[str(product.read.name)]
    steps = column_scales(weight, 127)
    wanted = (
        (in_steps(feats, STEP, 127).astype(np.int64) @ in_steps(weight, steps, 127).astype(np.int64)) * STEP * steps
    )
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL")[: 2 if int8_kernels.is_exact(127) else 1]:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        (found,) = session.run([node.output[0]], inputs)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())  # float32's own sums


def test_facts_count_integer_matmuls(files: dict[tuple[Task, str], Written], tmp_path: Path) -> None:
    written = files["pretraining", "dynamic"]
    facts, plain = read_onnx_facts(written.whole), read_onnx_facts(written.wide)
    assert facts.matmul_weights == {"int8": len(written.products)}
    assert facts.matmuls == {"int8": len(written.products), "fp32": plain.matmuls["fp32"] - len(written.products)}
    kept = written.products[3]
    steps = {name: STEP for name in written.products if name != kept}
    facts = read_onnx_facts(write_quantized(written.wide, tmp_path, steps, weight_range=127))
    assert facts.matmul_weights == {"int8": len(steps), "fp32": 1}


def test_a_shared_weight_is_stored_once(files: dict[tuple[Task, str], Written]) -> None:
    """Both directions of a cross attention have the same weights."""
    graph = onnx.load(files["model", "dynamic"].whole, load_external_data=False).graph
    stored = [tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims]
    weights = [name for name in stored if name.endswith("/int8")]
    assert len(weights) < len(files["model", "dynamic"].products)


# Steps.


def test_a_histogram_grows_with_its_values() -> None:
    histogram = Histogram()
    for values in ([0.0], [0.5, -1.0], [7.9, 0.1], [3.0]):
        histogram.add(np.array(values, np.float32)[:, None])
    assert histogram.counts.sum() == 6 and len(histogram.counts) == BINS
    assert histogram.largest == np.float32(7.9) and histogram.width == 8.0 / BINS
    assert histogram.counts[int(3.0 / histogram.width)] == 1


def test_an_outlier_is_cut_off_and_a_constant_is_not_divided_by_zero() -> None:
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((4000, 64)).astype(np.float32)
    weight = generator.standard_normal((64, 32)).astype(np.float32)
    plain, outlying = Histogram(), Histogram()
    plain.add(rows)
    outlying.add(np.append(rows, np.float32(500.0)))
    assert best_step(rows[:256], weight, limits_of(plain), 127).step * 127 > 3
    chosen = best_step(rows[:256], weight, limits_of(outlying), 127)
    assert chosen.method != "min-max" and chosen.step * 127 < 10
    for histogram in (plain, outlying):
        limits = limits_of(histogram)
        alone = [best_step(rows[:256], weight, {method: limit}, 127).error for method, limit in limits.items()]
        assert best_step(rows[:256], weight, limits, 127).error == min(alone) < max(alone)
    for method, limit in limits_of(plain).items():
        assert 2 < limit <= plain.largest, method
    silent = Histogram()
    silent.add(np.zeros((3, 64), np.float32))
    assert best_step(np.zeros((3, 64), np.float32), weight, limits_of(silent), 127).error == 0


def test_every_matmul_gets_a_measured_step(files: dict[tuple[Task, str], Written], tmp_path: Path) -> None:
    written = files["question-answering", "dynamic"]
    for file in written.wide.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    steps = choose_steps(tmp_path / ONNX_FILE, *apart(real_rows(5)), 127)
    assert list(steps) == written.products
    assert all(0 < step.error < 0.1 and step.step > 0 for step in steps.values())
    assert len({step.method for step in steps.values()}) > 1


def real_rows(count: int, task: Task = "question-answering") -> list[Arrays]:
    generator = np.random.default_rng(1)
    names = [spec.name for spec in task_signature(TINY, task).inputs]
    batches: list[Arrays] = []
    for _ in range(count):
        drawn: dict[str, NDArray[Any]] = {
            "input_ids": generator.integers(1, 150, (16, 7)), "attention_mask": np.ones((16, 7), np.int64),
            "token_type_ids": np.zeros((16, 7), np.int64),
            "visual_feats": generator.standard_normal((16, 5, TINY.visual_feat_dim)).astype(np.float32),
            "visual_pos": generator.random((16, 5, 4), np.float32),
            "visual_attention_mask": np.ones((16, 5), np.float32),
        }  # fmt: skip
        batches.append({name: drawn[name] for name in names})
    return batches


# Saturation.


def test_pairs_of_weights_that_saturate_are_named(files: dict[tuple[Task, str], Written], tmp_path: Path) -> None:
    weight = np.array(
        [[127, 65, 1, 127, 127], [2, 64, 127, 1, -127], [0, 0, 2, 1, -127], [0, 65, 126, 127, -2], [127, 64, 0, 0, 0]],
        np.int8,
    )
    assert can_saturate(weight).tolist() == [True, True, False, False, True]
    assert can_saturate(weight[:2]).tolist() == [True, True, False, False, False]  # signs that differ
    written = files["question-answering", "dynamic"]
    found = saturation_of(written.whole)
    assert 0 < found.count < found.all_columns and list(found.columns) == written.products
    narrow = write_quantized(written.wide, tmp_path, dict.fromkeys(written.products, STEP), weight_range=63)
    assert saturation_of(narrow).count == 0


def test_seven_bits_are_exact_on_every_cpu() -> None:
    assert int8_kernels.is_exact(63)


def test_kernels_that_are_wrong_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Saturating(onnxruntime.InferenceSession):  # type: ignore[misc]
        def run(self, names: object, given: Arrays) -> list[NDArray[Any]]:
            return [np.minimum(result, 2**15) for result in super().run(names, given)]

    monkeypatch.setattr(int8_kernels.onnxruntime, "InferenceSession", Saturating)
    int8_kernels.is_exact.cache_clear()
    assert not int8_kernels.is_exact(63)
    int8_kernels.is_exact.cache_clear()


@pytest.fixture
def demo(exports: Exports) -> Artifact:
    """The built-in checkpoint in int8 that every CPU computes exactly, in two halves: the gate asks them."""
    return exports.demo("onnx", task="question-answering", precision="int8", int8_range="7bit", split=True)


def test_the_demo_keeps_its_answers(demo: Artifact) -> None:
    assert demo.report is not None and demo.report.passed and demo.halves is not None
    (decisions,) = demo.report.decisions
    total = decisions.total
    # What is promised: 0.3 points, and 99.5 % outside near-ties.
    assert abs(total.correct - total.reference_correct) <= 0.003 * total.questions
    assert total.agreed >= 0.995 * total.clear
    options = demo.manifest.options
    assert (options["quantization"], options["int8_range"], options["int8_keep"]) == ("static", "7bit", [])
    assert options["int8_smoothed"] == 0  # it has no channels far larger than the others
    assert sum(options["int8_methods"].values()) == read_onnx_facts(demo.file(ONNX_FILE)).matmuls["int8"]
    assert lx.verify(demo.path).passed


def test_eight_bits_pass_where_kernels_are_exact_and_are_refused_with_a_hint_elsewhere(tmp_path: Path) -> None:
    def export() -> Artifact:
        return lx.export("onnx", "demo", tmp_path / "out", task="question-answering", precision="int8")

    if int8_kernels.is_exact(127):
        assert export().report.passed  # type: ignore[union-attr]
        return
    with pytest.raises(lx.ParityError, match='int8 kernels saturate on this CPU: int8_range="7bit"'):
        export()


def test_openvino_passes_the_same_file(demo: Artifact) -> None:
    report = lx.verify(f"{demo.path}@openvino")
    assert report.passed, report.summary()


def test_faults_are_located_in_int8_files(demo: Artifact) -> None:
    """As a refused one advises. Nothing jumps in a sound file, of which as many points are compared as in float32."""
    report = check_here([demo.path], checkpoint="demo", find_divergence=True)
    (divergence,) = report.divergences
    assert report.passed and not divergence.found and divergence.points == 140, divergence


def test_a_file_that_does_not_hold_what_its_manifest_says_is_refused(
    demo: Artifact, files: dict[tuple[Task, str], Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_manifest_precision(demo)
    monkeypatch.setitem(demo.manifest.options, "int8_keep", ["one"])
    with pytest.raises(ArtifactError, match="its manifest says int8 but for 1 matmuls"):
        check_manifest_precision(demo)


def test_the_matmul_that_int8_costs_most_is_found(files: dict[tuple[Task, str], Written], tmp_path: Path) -> None:
    """Planted: one whose step is thirty times too wide. The small network has others, too."""
    written = files["question-answering", "dynamic"]
    for file in written.wide.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    batches = real_rows(3)
    measured, kept_back = apart(batches)
    steps = choose_steps(tmp_path / ONNX_FILE, measured, kept_back, 127)
    broken = written.products[-2]
    planted = {**steps, broken: replace(steps[broken], step=steps[broken].step * 30, error=0.9)}
    found = find_sensitive(tmp_path / ONNX_FILE, planted, kept_back, 127)
    assert broken in found and len(found) < 8


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """Inputs enough for the small network."""
    batches = real_rows(16)
    np.savez(tmp_path / "real.npz", **{n: np.concatenate([batch[n] for batch in batches]) for n in batches[0]})  # type: ignore[arg-type]
    return tmp_path / "real.npz"


def test_named_matmuls_stay_in_float32(calibration: Path, tmp_path: Path) -> None:
    kept, model = ["lxmert.pooler/Gemm"], lively_model("question-answering", TINY)
    artifact = lx.export(
        "onnx", model, tmp_path / "out", precision="int8", int8_keep=kept, int8_range="7bit", calibration=calibration
    )
    assert lx.verify(f"{artifact.path}@openvino").passed  # the demo's artifact above is split
    assert artifact.manifest.options["int8_keep"] == kept
    assert read_onnx_facts(artifact.file(ONNX_FILE)).matmul_weights["fp32"] == 1


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    model = lively_model("question-answering", TINY)

    def export(**options: Any) -> Artifact:
        return lx.export("onnx", model, tmp_path / "out", precision="int8", **options)

    rows = {name: np.concatenate([batch[name] for batch in real_rows(2)]) for name in real_rows(1)[0]}
    np.savez(tmp_path / "few.npz", **{name: array[:3] for name, array in rows.items()})  # type: ignore[arg-type]
    same = {**rows, "visual_feats": np.repeat(rows["visual_feats"][:1], len(rows["visual_feats"]), axis=0)}
    np.savez(tmp_path / "same.npz", **same)  # type: ignore[arg-type]
    for options, saying in (
        ({}, 'precision="int8": measures ranges on real inputs: give yours as calibration'),
        ({"calibration": tmp_path / "gone.npz"}, "gone.npz"),
        ({"calibration": tmp_path / "few.npz"}, "has 3 rows; calibration needs at least"),
        ({"calibration": tmp_path / "same.npz"}, "same.npz: visual_feats is the same in all 32 rows"),
    ):
        with pytest.raises(InputError, match=saying):
            export(**options)
    for options, saying in (
        ({"attention": "operator"}, "holds no matmul that could compute in int8"),
        ({"io_dtype": "float16"}, "inputs and outputs are float32"),
        ({"int8_range": "6bit"}, "unknown int8_range '6bit'"),
        ({"fp32_islands": "auto"}, "fp32_islands: not an option of int8 onnx"),
    ):
        with pytest.raises(ConversionError, match=saying):
            export(**options)
    assert not (tmp_path / "out").exists()
    done = run("onnx", "demo", "--int8-range", "7bit", "-o", "out", cwd=tmp_path)
    refused(done, "--int8-range: not an option of fp32 onnx")
    assert not (tmp_path / "out").exists()


def test_a_wrong_name_is_told_before_anything_is_measured(
    calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the names that are most like it."""
    monkeypatch.setattr(smoothing, "choose_smoothed_steps", lambda *_: pytest.fail("activations were measured"))
    with pytest.raises(
        ConversionError, match=r"is named language_layers.0.atention.query; .*attention.* are among its \d+"
    ):
        lx.export(
            "onnx", lively_model("question-answering", TINY), tmp_path / "out", precision="int8", calibration=calibration,
            int8_keep="language_layers.0.atention.query",
        )  # fmt: skip
    lx.save_checkpoint(lively_model("question-answering", TINY), tmp_path / "small")
    options = ("--int8", "--calibration", str(calibration), "--int8-keep", "gone", "-o", "out")
    refused(run("onnx", "small", *options, cwd=tmp_path), "--int8-keep: no matmul with weights is named gone")
    assert not (tmp_path / "out").exists()
