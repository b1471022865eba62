"""Where it diverges: the right layer for faults in written files, nothing for sound ones, one line where nothing shows."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console
from typer.testing import CliRunner

import lxmert_export as lx
from benchmarks.locate_study import SMALL_NETWORK, Setting, run_trials
from lxmert_export.artifact.directory import ONNX_DATA_FILE, ONNX_FILE, Artifact
from lxmert_export.cli.main import app
from lxmert_export.errors import ArtifactError
from lxmert_export.files.hashing import sha256
from lxmert_export.parity.divergence import Drift, first_jump
from lxmert_export.parity.pages.terminal import print_divergence
from lxmert_export.parity.points import Point, network_points
from lxmert_export.reference.locating import _rows_of, locate
from lxmert_export.spec.keras_names import read_names
from lxmert_export.spec.signature import Task, task_signature
from parity_tests.faults.onnx_faults import FILE_FAULTS, plant_in_file
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import SMALL, TINY, lively_inputs, lively_model

CONFIG = SMALL.replace(l_layers=2, x_layers=1, r_layers=1)
EXPORTS: dict[str, dict[str, Any]] = {
    "onnx fp32": {"target": "onnx"},
    "onnx fp16": {"target": "onnx", "precision": "fp16"},
    "onnx bf16": {"target": "onnx", "precision": "bf16"},
    "tensorflow fp32": {"target": "tensorflow"},
    "tensorflow fp16": {"target": "tensorflow", "precision": "fp16"},
    "tflite fp32": {"target": "tflite"},
    "tflite fp16": {"target": "tflite", "precision": "fp16"},
    "tflite int8": {"target": "tflite", "precision": "int8"},
    "tflite of one row": {"target": "tflite", "fixed": {"batch": 1}},
}


@pytest.fixture(scope="module")
def module() -> Any:
    return lively_model("pretraining", CONFIG)


@pytest.fixture(scope="module")
def onnx_artifact(exports: Exports) -> Artifact:
    return exports.lively("onnx", "pretraining", CONFIG, parity=False)


@pytest.fixture(scope="module")
def with_object_heads(exports: Exports) -> Artifact:
    """Without these heads the file has no use for vision's side of the last layer."""
    return exports.lively("onnx", "pretraining", CONFIG, object_heads=True, parity=False)


@pytest.mark.parametrize("kind", EXPORTS)
def test_nothing_jumps_in_a_sound_file(kind: str, module: Any, onnx_artifact: Artifact, exports: Exports) -> None:
    """In the network of which faults are looked for below, and in the smallest one that other tests convert to every target."""
    if kind == "onnx fp32":
        artifact, layers = onnx_artifact, 2
    else:
        task: Task = "pretraining" if kind == "tensorflow fp32" else "question-answering"
        artifact, module, layers = exports.lively(task=task, config=TINY, **EXPORTS[kind]), lively_model(task, TINY), 1
    found = locate(artifact, module)
    assert not found.found and found.points > 0.6 * found.points_known
    # A wide gap below what is told of as a jump, 3.
    assert all(row.score is not None and row.score < 2.5 for row in found.curve)
    order = ["masks", "embeddings", "visual_embeddings", *(f"language_layers.{number}" for number in range(layers))]
    assert [row.layer for row in found.curve][: len(order)] == order


WHOLE = np.arange(2 * 3 * 4).reshape(2, 3, 4)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        ((2, 3, 4), WHOLE),
        ((6, 4), WHOLE),  # hidden states as a matrix
        ((2, 1, 4), WHOLE[:, :1]),
        ((2, 4), WHOLE[:, :1]),
        ((2, 3, 1), WHOLE[:, :, :1]),
        ((1, 3, 4), WHOLE),  # no row of the batch is ever left out
        ((2, 2, 4), WHOLE),
    ],
)
def test_an_artifact_is_compared_in_the_rows_that_it_computes(got: tuple[int, ...], wanted: Any) -> None:
    np.testing.assert_array_equal(_rows_of(WHOLE, np.zeros(got)), wanted)


@pytest.mark.parametrize("task", ["model", "question-answering", "nlvr2"])
@pytest.mark.parametrize("target", ["onnx", "tensorflow"])
def test_every_task_is_looked_into(task: Any, target: str, exports: Exports) -> None:
    found = locate(exports.lively(target, task, TINY), lively_model(task, TINY))
    assert not found.found and found.points > 0.6 * found.points_known


@pytest.mark.parametrize(("target", "precision", "trials"), [("onnx", "fp32", 3), ("onnx", "fp16", 2),
                                                            ("tflite", "fp32", 3), ("tensorflow", "fp32", 2)])  # fmt: skip
def test_the_right_layer_is_named(target: str, precision: Any, trials: int) -> None:
    """A slice of `python -m benchmarks.locate_study`."""
    setting = Setting(target, precision, "3/2/2", SMALL_NETWORK, trials)
    found = run_trials(setting, trials, np.random.default_rng(11))
    assert found.right_layer == found.right_family == trials, found.wrong


def planted(artifact: Artifact, fault: str, directory: Path) -> Artifact:
    plant_in_file(artifact.file(ONNX_FILE), directory / ONNX_FILE, FILE_FAULTS[fault])
    return replace(artifact, path=directory, identity=None, name="planted")


@pytest.mark.parametrize(
    ("fault", "layer", "family"),
    [
        ("ignored_vision_mask", "masks", "mask"),
        ("positions_off_by_one", "embeddings", "embedding"),
        ("missing_half", "visual_embeddings", "mean"),
        ("gelu_tanh", "language_layers.0", "GELU"),
        ("transposed_weight", "language_layers.1", "attention output"),
        ("sequential_cross_attention", "cross_modality_layers.0", "key projection"),
        ("last_token_pooled", "pooler", "pooler"),
        ("untied_decoder", "masked_language_head", "head"),
    ],
)
def test_faults_of_operators_and_of_one_place(
    fault: str, layer: str, family: str, with_object_heads: Artifact, module: Any, tmp_path: Path
) -> None:
    found = locate(planted(with_object_heads, fault, tmp_path), module)
    assert (found.layer, found.family) == (layer, family)


def test_another_shape_is_a_jump(onnx_artifact: Artifact, module: Any, tmp_path: Path) -> None:
    found = locate(planted(onnx_artifact, "wrong_head_count", tmp_path), module)
    assert (found.layer, found.family, found.score) == ("language_layers.0", "softmax", None)
    json.dumps(found.to_dict(), allow_nan=False)


def test_an_overflow_of_fp16_is_found_where_it_happens(module: Any, exports: Exports, tmp_path: Path) -> None:
    artifact = exports.lively("onnx", "pretraining", CONFIG, precision="fp16", parity=False)
    found = locate(planted(artifact, "fp16_overflow", tmp_path / "faulty"), module)
    assert (found.layer, found.module) == ("language_layers.0", "lxmert.language_layers.0.self_attention.value")
    assert found.tensor == "lxmert.language_layers.0.self_attention.value/Add"


def test_your_own_inputs_are_looked_at_too(exports: Exports, tmp_path: Path) -> None:
    """A weight that only real features reach: drawn inputs find nothing wrong, the user's own find the layer."""
    model = lively_model("question-answering", TINY)
    artifact = exports.lively("onnx", "question-answering", TINY, precision="fp16")
    inputs = {name: tensor.numpy() for name, tensor in lively_inputs(TINY).items()}
    inputs["visual_feats"] = inputs["visual_feats"] * 1e5  # beyond fp16
    np.savez(tmp_path / "real.npz", **inputs)
    assert not lx.locate(artifact.path, model).found
    found = lx.locate(artifact.path, model, inputs=tmp_path / "real.npz")
    assert (found.layer, found.inputs, found.score) == ("visual_embeddings", "own", None)
    report = check_here([artifact.path], checkpoint=model, inputs=tmp_path / "real.npz", find_divergence=True)
    assert report.divergences == (found,) and not report.passed


def test_the_file_stays_as_it_is(onnx_artifact: Artifact, module: Any) -> None:
    before = {path.name: sha256(path) for path in onnx_artifact.path.iterdir()}
    found = lx.locate(onnx_artifact.path, module)
    assert {path.name: sha256(path) for path in onnx_artifact.path.iterdir()} == before
    assert not found.found and "no layer's score jumps" in found.summary()


@pytest.mark.parametrize("width", [60, 140])
def test_it_is_told_on_a_terminal(width: int, onnx_artifact: Artifact, module: Any, tmp_path: Path) -> None:
    found = locate(planted(onnx_artifact, "transposed_weight", tmp_path), module)
    text = StringIO()
    print_divergence(found, Console(file=text, width=width))
    said = " ".join(text.getvalue().split())
    assert (
        "goes wrong first in language_layers.1, attention output of lxmert.language_layers.1.self_attention.output"
        in said
    )
    assert "cross_modality_layers.0" in said and max(map(len, text.getvalue().splitlines())) <= width


def test_what_cannot_be_looked_into(onnx_artifact: Artifact, module: Any, tmp_path: Path) -> None:
    manifest = onnx_artifact.manifest
    keras = replace(manifest, target="tensorflow", options={"format": "keras"})
    with pytest.raises(
        ArtifactError, match="a .keras file has no graph to look into: export it with --format saved-model"
    ):
        locate(replace(onnx_artifact, manifest=keras), module)
    with pytest.raises(ArtifactError, match="an engine does not show its intermediate values"):
        locate(replace(onnx_artifact, manifest=replace(manifest, target="tensorrt")), module)
    with pytest.raises(ArtifactError, match="task 'pretraining' belongs to a module of your own"):
        own = replace(manifest.signature, own_module=True)
        locate(replace(onnx_artifact, manifest=replace(manifest, signature=own)), module)
    model = ir.load(onnx_artifact.file(ONNX_FILE))
    for number, node in enumerate(model.graph):
        node.name = f"node_{number}"
    ir.save(model, tmp_path / ONNX_FILE, external_data=ONNX_DATA_FILE)
    with pytest.raises(ArtifactError, match="its operators do not have the names that this tool gives them"):
        locate(replace(onnx_artifact, path=tmp_path, identity=None), module)


def test_it_needs_the_checkpoint(onnx_artifact: Artifact) -> None:
    result = CliRunner().invoke(app, ["parity", str(onnx_artifact.path), "--locate"])
    assert result.exit_code == 1 and "give checkpoint" in str(result.exception)


def test_a_small_step_before_the_alarm_is_where_it_began() -> None:
    def drift(name: str, error: float) -> Drift:
        made = Drift(Point(name, name, "head"), "plain", "fp32")
        made.add(np.ones(4), np.ones(4) + error, 4e-12)  # a floor of 1e-6
        return made

    sound, step, alarm = drift("a", 1e-6), drift("b", 5e-6), drift("c", 2e-5)
    assert first_jump([sound, step, alarm]) is step
    assert first_jump([sound, step]) is None


def test_names_of_points_are_unique_and_layers_in_order() -> None:
    for task in ("model", "pretraining", "question-answering", "nlvr2"):
        points = network_points(CONFIG, task_signature(CONFIG, task, object_heads=task == "pretraining"))
        assert len({point.name for point in points}) == len(points)


def test_keras_layers_of_one_number_are_told_apart() -> None:
    config = SMALL.replace(l_layers=1, r_layers=2, x_layers=1)
    scopes = {
        "0_1/self_attention_1/query_1": ("language_layers.0.self_attention.query", 1),
        "0_3/self_attention_1/query_1": ("vision_layers.0.self_attention.query", 1),
        "1_1/self_attention_1/query_1": ("vision_layers.1.self_attention.query", 1),
        "0_5/cross_attention_1/query_1": ("cross_modality_layers.0.cross_attention.query", 1),
        "0_5/cross_attention_3/query_1": ("cross_modality_layers.0.cross_attention.query", 2),
    }
    read = read_names([f"tf_model_1/lxmert_1/{scope}/MatMul" for scope in scopes], config)
    assert {name.removeprefix("tf_model_1/lxmert_1/").removesuffix("/MatMul"): (o.module, o.call)
            for name, o in read.items()} == {s: (f"lxmert.{module}", call) for s, (module, call) in scopes.items()}  # fmt: skip


def test_a_layer_that_could_be_of_either_list_has_no_place() -> None:
    config = SMALL.replace(l_layers=1, r_layers=1)
    assert not read_names(["tf_model_1/lxmert_1/0_1/self_attention_1/query_1/MatMul"], config)
