"""--fp32-islands auto: the set passes the gate, fails without any one of its nodes, and the file is what the manifest says."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import lxmert_export as lx
from converters.onnx.islands import computing_nodes, readers_of, standard_islands, write_with_islands
from lxmert_export.api.inspect import inspect_artifact, summary_rows
from lxmert_export.artifact.directory import Artifact, open_artifact
from lxmert_export.artifact.precision import check_precision
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.exporting import fp32_islands
from lxmert_export.exporting.activation_ranges import lint_artifact
from lxmert_export.exporting.engine import check_source
from lxmert_export.exporting.fp32_islands import find_islands, minimise
from lxmert_export.exporting.options import ExportOptions
from lxmert_export.exporting.refusal import refused
from lxmert_export.graphs.onnx_rounding import LEAST_EPSILON
from lxmert_export.parity.prediction import UNVALIDATED, predicted_by_manifest, predicted_errors
from lxmert_export.parity.report import ParityError, ParityReport
from lxmert_export.progress import silent
from lxmert_export.runners.onnx import emulator as onnx_emulator
from lxmert_export.runners.onnx.switches import SwitchedOnnxRunner
from lxmert_export.runners.opening import open_emulator
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Task
from parity_tests.faults.torch_faults import fp16_overflow
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.fixtures.stress_models import outlier_model, rescale_residual_stream
from parity_tests.onnx.island_trials import Bench, bench

LAYER = "lxmert.language_layers.0.self_attention"
# fp16_overflow multiplies values by 2^15: what holds them, and the projection that brings them back.
OVERFLOWING = {f"{LAYER}.value/MatMul", f"{LAYER}.value/Add", f"{LAYER}/MatMul_2", f"{LAYER}.output/MatMul"}
FEWER = {"without_families": ["token-types", "one-object", "two-tokens", "zero-padded"]}  # where others take all


def overflowing_model() -> Any:
    model = lively_model("question-answering", TINY)
    fp16_overflow(model)
    return model


def deadline() -> float:
    return time.monotonic() + 60


# --- the search alone


@pytest.mark.parametrize(
    "needed", [(), (0,), (99,), (3, 4, 5), (0, 50, 99), tuple(range(0, 100, 7)), tuple(range(100))]
)
def test_the_needed_ones_are_left(needed: tuple[int, ...]) -> None:
    names, trials = [str(number) for number in range(100)], []

    def passes(kept: Sequence[str]) -> bool:
        trials.append(kept)
        return {str(number) for number in needed} <= set(kept)

    assert minimise(names, passes, silent, deadline()) == ([str(number) for number in needed], True)
    assert len(trials) <= 2 * len(needed) * (math.ceil(math.log2(100)) + 1) + 101


def test_a_choice_between_sets_ends_in_one_of_them() -> None:
    def passes(kept: Sequence[str]) -> bool:
        return {"a", "d"} <= set(kept) or {"b"} <= set(kept)

    kept, minimal = minimise(list("abcd"), passes, silent, deadline())
    assert minimal and passes(kept) and not any(passes([n for n in kept if n != name]) for name in kept)


def test_what_becomes_dispensable_later_is_taken_too() -> None:
    # Without "b" one needs "a"; once "c" is gone too, "a" does harm: no order of single trials sees it at first.
    passing = [set("abcd"), set("abc"), set("ab"), set("b")]
    kept, minimal = minimise(list("abcd"), lambda kept: set(kept) in passing, silent, deadline())
    assert (kept, minimal) == (["b"], True)


def test_out_of_time_what_passed_is_returned() -> None:
    names = list("abcdef")
    assert minimise(names, lambda kept: True, silent, time.monotonic() - 1) == (names, False)


def test_progress_counts_what_is_taken_out() -> None:
    told: list[tuple[int, int]] = []
    minimise(list("abcd"), lambda kept: "c" in kept, lambda step, done, total: told.append((done, total)), deadline())
    assert told[-1] == (3, 4) and told == sorted(told)


# --- the file


@pytest.fixture(
    scope="module", params=[("question-answering", 18, {}), ("pretraining", 20, {"float_dtype": "float16"})],
    ids=["question-answering", "pretraining-opset20-float16"],
)  # fmt: skip
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    task: Task
    task, opset, options = request.param
    return bench(outlier_model(task, TINY), TINY, task, tmp_path_factory.mktemp("files"), opset=opset, **options)


def test_switches_give_the_very_numbers_of_the_written_file(files: Bench, tmp_path: Path) -> None:
    names = computing_nodes(files.source)
    generator = np.random.default_rng(0)
    drawn = [[name for name in names if generator.random() < share] for share in (0.2, 0.5, 0.8)]
    limits = InputLimits.of(TINY)
    half = [spec.name for spec in files.signature if spec.dtype == "float16"]
    batches = [family.batches[0] for family in files.samples.families]
    different = set()
    with SwitchedOnnxRunner(files.source, files.signature, limits, names) as switched:
        for number, islands in enumerate(([], standard_islands(files.source), names, *drawn)):
            directory = tmp_path / str(number)
            directory.mkdir()
            write_with_islands(files.source, directory, islands, half_values=half)
            switched.islands = set(islands)
            with open_emulator(files.artifact(directory)) as emulated:
                for batch in batches:
                    wanted, found = emulated.run(batch), switched.run(batch)
                    assert wanted.keys() == found.keys()
                    for name, array in wanted.items():
                        assert array.dtype == found[name].dtype
                        np.testing.assert_array_equal(array, found[name], err_msg=f"{name}, islands {number}")
                    different.add(next(iter(wanted.values())).tobytes())
    assert len(different) > 4 * len(batches), "islands that change nothing compare nothing"


def test_nodes_without_a_switch_compute_in_half(files: Bench) -> None:
    names, limits = computing_nodes(files.source), InputLimits.of(TINY)
    islands = standard_islands(files.source)
    batch = files.samples.families[0].batches[0]
    outputs = []
    for candidates in (names, islands):
        with SwitchedOnnxRunner(files.source, files.signature, limits, candidates) as switched:
            switched.islands = islands
            outputs.append(switched.run(batch))
    for name, array in outputs[0].items():
        np.testing.assert_array_equal(array, outputs[1][name])


def test_types_at_the_borders(files: Bench, tmp_path: Path) -> None:
    half = [spec.name for spec in files.signature if spec.dtype == "float16"]
    island = f"{LAYER}.value/MatMul"
    path = write_with_islands(files.source, tmp_path, [island], half_values=half)
    onnx.checker.check_model(path, full_check=True)
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False), strict_mode=True)
    types = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)}
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    of_nodes = {n.name: types[n.output[0]] for n in model.graph.node if n.op_type in ("MatMul", "Gemm", "Softmax")}
    assert {name for name, kind in of_nodes.items() if kind == onnx.TensorProto.FLOAT} == {island}
    assert weights[f"{LAYER}.value.weight"] == onnx.TensorProto.FLOAT
    assert weights[f"{LAYER}.value.bias"] == onnx.TensorProto.FLOAT16
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    wanted = {"float32": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16}
    for spec, value in zip(files.signature.outputs, model.graph.output, strict=True):
        assert (value.name, value.type.tensor_type.elem_type) == (spec.name, wanted[spec.dtype])


def test_a_weight_that_an_island_shares_is_stored_once(tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    both = bench(lively_model("pretraining", TINY), TINY, "pretraining", tmp_path / "wide", object_heads=True)
    shared = "lxmert.cross_modality_layers.0.cross_attention.value"
    path = write_with_islands(both.source, tmp_path, [f"{shared}/MatMul"])
    graph = onnx.load(path, load_external_data=False).graph
    names = [tensor.name for tensor in graph.initializer if tensor.name.startswith(f"{shared}.weight")]
    assert names == [f"{shared}.weight"]
    readers = [node for node in graph.node if f"{shared}.weight" in node.input]
    assert sorted(node.op_type for node in readers) == ["Cast", "MatMul"]
    assert both.report([*standard_islands(both.source), f"{shared}/MatMul"]).passed


def test_unknown_nodes_and_weights_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    model = lively_model("question-answering", TINY)
    model.lxmert.pooler.weight.data[3, 4] = 1e5
    large = bench(model, TINY, "question-answering", tmp_path / "wide")
    with pytest.raises(ConversionError, match="no computing node is named lxmert/Nothing"):
        write_with_islands(large.source, tmp_path, ["lxmert/Nothing"])
    with pytest.raises(ConversionError, match="lxmert.pooler.weight does not fit float16: its largest magnitude is 1e"):
        write_with_islands(large.source, tmp_path, [])
    write_with_islands(large.source, tmp_path, ["lxmert.pooler/Gemm"])
    model.lxmert.pooler.bias.data[3] = 1e5
    model.lxmert.pooler.weight.data[3, 4] = 1
    small = bench(model, TINY, "question-answering", tmp_path / "wide")
    with pytest.raises(ConversionError, match="lxmert.pooler.bias does not fit float16"):
        write_with_islands(small.source, tmp_path, [])


def test_readers_are_found_through_moves(files: Bench) -> None:
    assert f"{LAYER}/MatMul_2" in readers_of(files.source, {f"{LAYER}.value/Add"})
    assert readers_of(files.source, {f"{LAYER}.value/MatMul"}) == {f"{LAYER}.value/Add"}


def test_a_norm_in_half_precision_is_rounded_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wide").mkdir()
    model = outlier_model("question-answering", TINY)
    rescale_residual_stream(model, 2.0**8)
    large = bench(model, TINY, "question-answering", tmp_path / "wide")
    norms = [name for name in standard_islands(large.source) if "/LayerNormalization" in name]
    path = write_with_islands(large.source, tmp_path, set(standard_islands(large.source)) - set(norms))
    written = [node for node in onnx.load(path).graph.node if node.op_type == "LayerNormalization"]
    epsilons = {a.f for node in written for a in node.attribute if a.name == "epsilon"}
    assert len(written) == len(norms) and epsilons == {LEAST_EPSILON}, "fp16 would make an eps of 1e-12 zero"
    # Its squares overflow, and what is divided by infinity is 0.
    assert not large.report_on(large.artifact(tmp_path)).passed
    assert "epsilon-underflow" not in {finding.rule for finding in lint_artifact(large.artifact(tmp_path))}
    # A runtime that keeps the statistics in float32 would do well: the emulator answers for those that do not.
    monkeypatch.setattr(
        onnx_emulator,
        "_round_each_step",
        lambda graph, norm, half: onnx_emulator._round_after(graph, norm, norm.outputs[0], half),
    )
    assert large.report_on(large.artifact(tmp_path)).passed


# --- the whole


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Bench]:
    place = tmp_path_factory.mktemp("found")
    (place / "wide").mkdir()
    model = overflowing_model()
    artifact = lx.export("onnx", model, place / "auto", precision="fp16", fp32_islands="auto")
    return artifact, bench(model, TINY, "question-answering", place / "wide")


def test_the_set_passes_and_fails_without_any_one(found: tuple[Artifact, Bench]) -> None:
    artifact, long_way = found
    islands = artifact.manifest.options["fp32_islands"]
    assert artifact.report is not None and artifact.report.passed
    assert artifact.manifest.options["fp32_islands_minimal"] is True
    assert set(islands) > OVERFLOWING
    # Beside the matmuls that overflow: each attention's mask and softmax.
    assert {name.rpartition("/")[2] for name in set(islands) - OVERFLOWING} == {"Add", "Softmax"}
    assert long_way.report(islands).passed
    for name in islands:
        assert not long_way.report([other for other in islands if other != name]).passed, name


def test_nodes_are_only_added_to_the_standard_islands(found: tuple[Artifact, Bench], tmp_path: Path) -> None:
    _, long_way = found
    artifact = lx.export("onnx", overflowing_model(), tmp_path / "out", precision="fp16", fp32_islands="standard+")
    options, standard = artifact.manifest.options, standard_islands(long_way.source)
    assert set(options["fp32_islands_added"]) == OVERFLOWING and options["fp32_islands_minimal"] is True
    assert set(options["fp32_islands"]) == {*standard, *OVERFLOWING}
    assert artifact.report is not None and max(cell.score or 0 for cell in artifact.report.cells) < 2


def test_where_a_file_without_nodes_overflows_is_told_by_module(found: tuple[Artifact, Bench]) -> None:
    artifact, _ = found
    keras = replace(artifact, manifest=replace(artifact.manifest, target="tensorflow", options={"format": "keras"}))
    assert artifact.report is not None
    cells = tuple(replace(cell, status="FAIL", reason="NaN or infinity", score=None) for cell in artifact.report.cells)
    options = ExportOptions("tensorflow", "fp16", file_format="keras")
    told = str(refused(keras, overflowing_model(), options, ParityReport(cells)))
    assert f"fp16 overflows in {LAYER}.value (reaches 1." in told
    assert 'export to onnx with fp32_islands="auto" or fp32_islands="standard+", which keeps' in told
    sound = refused(keras, lively_model("question-answering", TINY), options, ParityReport(cells))
    assert "overflows" not in str(sound)


def test_where_standard_islands_fail_is_told_and_kept(
    found: tuple[Artifact, Bench], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept, out = tmp_path / "kept", tmp_path / "standard"

    def export(keep: Path) -> None:
        lx.export("onnx", overflowing_model(), out, precision="fp16", keep_failed=keep)

    for _ in range(2):  # an artifact that was refused earlier is replaced
        with pytest.raises(ParityError, match="NaN or infinity") as told:
            export(kept)
        assert f"fp16 overflows in {LAYER}.value (reaches 1." in str(told.value)
        assert 'or fp32_islands="standard+" keeps such nodes' in str(told.value) and "\n" not in str(told.value)
        assert f"kept the refused artifact: {kept}" in told.value.report.notes
    assert not out.exists() and {path.name for path in tmp_path.iterdir()} == {"kept"}
    with pytest.raises(ArtifactError, match="holds no refused artifact, so it is not replaced"):
        export(found[0].path)
    assert not lx.verify(kept).passed
    assert "FAILED (kept for a look), worst score not finite" in dict(summary_rows(inspect_artifact(kept)))["parity"]
    located = lx.locate(kept, overflowing_model())
    assert located.module == f"{LAYER}.value"
    with pytest.raises(
        ArtifactError, match="failed its parity gate and was kept for a look: no engine is built from it"
    ):
        check_source(open_artifact(kept), None, {})
    lx.load_artifact(kept).close()
    assert "failed its parity gate" in caplog.text


def test_the_file_is_what_its_manifest_says(found: tuple[Artifact, Bench]) -> None:
    artifact, _ = found
    facts = check_precision(artifact)
    matmuls = [name for name in artifact.manifest.options["fp32_islands"] if "MatMul" in name]
    assert set(facts.matmuls) == set(facts.matmul_weights) == {"fp16"}
    wrong: list[tuple[Callable[[list[str]], list[str]], str]] = [
        (lambda names: [n for n in names if n != matmuls[0]], "its matmuls compute in"),
        (lambda names: [n for n in names if "Softmax" in n], "its matmuls compute in"),
        (lambda names: [*names, "lxmert.pooler/Gemm"], "names 13 float32 islands, but these nodes compute in"),
        (lambda names: [*names, "lxmert.pooler/Nothing"], "names 13 float32 islands"),
        (lambda names: [], "its matmuls compute in"),
    ]
    for change, message in wrong:
        options = {**artifact.manifest.options, "fp32_islands": change(artifact.manifest.options["fp32_islands"])}
        with pytest.raises(ConversionError, match=message):
            check_precision(replace(artifact, manifest=replace(artifact.manifest, options=options)))


def test_the_artifact_opens_verifies_and_is_linted(found: tuple[Artifact, Bench]) -> None:
    artifact, _ = found
    assert lx.verify(artifact.path).passed
    assert check_here([artifact.path], checkpoint=overflowing_model()).passed
    assert not [finding for finding in lint_artifact(artifact) if finding.severity == "error"]
    rows = dict(summary_rows(inspect_artifact(artifact.path)))
    assert rows["float32 islands"].startswith("12 nodes") and f"{LAYER}.value/MatMul" in rows["float32 islands"]


def test_half_precision_inputs_and_outputs(tmp_path: Path) -> None:
    model = lively_model("model", TINY)
    artifact = lx.export(
        "onnx", model, tmp_path / "out", precision="fp16", fp32_islands="auto", io_dtype="float16", opset=20, **FEWER
    )
    assert artifact.report is not None and artifact.report.passed and artifact.manifest.options["opset"] == 20
    islands = artifact.manifest.options["fp32_islands"]
    assert {name.rpartition("/")[2].split("_")[0] for name in islands} == {"Add", "Softmax"}


@pytest.fixture
def overflowing(tmp_path: Path) -> tuple[Path, Artifact]:
    long_way = bench(overflowing_model(), TINY, "question-answering", tmp_path)
    return long_way.source, long_way.artifact(tmp_path, **FEWER)


def test_out_of_time_the_manifest_says_so(overflowing: tuple[Path, Artifact]) -> None:
    islands = find_islands(*overflowing, overflowing_model(), seconds=0)
    assert not islands.minimal and set(islands.nodes) > OVERFLOWING
    assert list(islands.nodes) == [n for n in computing_nodes(overflowing[0]) if n in islands.nodes]


def test_a_wrong_guess_costs_time_alone(overflowing: tuple[Path, Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp32_islands, "_likely_islands", lambda *arguments: {"lxmert/Tanh"})
    islands = find_islands(*overflowing, overflowing_model())
    assert islands.minimal and set(islands.nodes) > OVERFLOWING


def test_where_no_island_helps(overflowing: tuple[Path, Artifact]) -> None:
    other = lively_model("question-answering", TINY, seed=1)
    with pytest.raises(ConversionError, match="no float32 islands help: it fails its gate even with all 119 nodes"):
        find_islands(*overflowing, other)


@pytest.mark.parametrize(
    "options",
    [{"precision": "fp32"}, {"precision": "bf16"}, {"precision": "fp16", "parity": False}],
    ids=["fp32", "bf16", "no-parity"],
)
def test_where_it_is_no_option(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="fp32_islands"):
        lx.export("onnx", lively_model("model", TINY), tmp_path / "out", fp32_islands="auto", **options)
    with pytest.raises(ConversionError, match="fp32_islands"):
        lx.export("tensorflow", lively_model("model", TINY), tmp_path / "out", precision="fp16", fp32_islands="auto")
    assert not (tmp_path / "out").exists()


# --- what the emulator foretells


def test_prediction(found: tuple[Artifact, Bench]) -> None:
    artifact, _ = found
    report = artifact.report
    assert report is not None
    predicted = predicted_errors(report)
    assert predicted == predicted_by_manifest(artifact.manifest.parity)
    (output,) = predicted
    assert output == "question_answering_score" and predicted[output]["status"] == UNVALIDATED
    emulated = [cell for cell in report.cells if cell.arithmetic == "emulated" and cell.kind == "reference"]
    worst = max(emulated, key=lambda cell: cell.score or 0)
    assert predicted[output]["error_rms"] == worst.error_rms and predicted[output]["inputs"] == worst.family
    assert predicted[output]["score"] == worst.score


def test_nothing_is_predicted_where_nothing_was_emulated(found: tuple[Artifact, Bench]) -> None:
    report = found[0].report
    assert report is not None
    plain = ParityReport(tuple(cell for cell in report.cells if cell.arithmetic != "emulated"))
    assert predicted_errors(plain) == predicted_by_manifest(None) == {}
