"""Counted operations: of the checkpoint as PyTorch counts them, of each file as the file says, and what a file saves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import lxmert_export as lx
from lxmert_export.api.inspect import inspect_artifact
from lxmert_export.artifact.flops import count_flops
from lxmert_export.artifact.manifest import Manifest
from lxmert_export.artifact.targets import TARGETS
from lxmert_export.errors import ArtifactError, InputError
from lxmert_export.graphs import tflite_flops
from lxmert_export.graphs.onnx_flops import count_graph
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.flops import USUAL_SIZES, model_flops
from lxmert_export.spec.signature import TASKS, Signature, Task, TensorSpec, task_signature
from parity_tests.fixtures.command import ROOT, refused, run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import SMALL, TINY, lively_model
from parity_tests.onnx.test_converter import RETRIEVAL, Glance

SIZES = {"batch": 3, "text": 7, "objects": 5}


def counted_by_torch(task: Task, config: LxmertConfig, signature: Signature) -> int:
    """What PyTorch counts while the canonical model runs, on no numbers."""
    model = lively_model(task, config).to("meta")
    inputs = {
        spec.name: torch.zeros(spec.shape(SIZES), dtype=getattr(torch, spec.dtype), device="meta")
        for spec in signature.inputs
    }
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs, **signature.requests)
    return counter.get_total_flops()


@pytest.mark.quick
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("asked", [{}, {"hidden_states": True, "attentions": True}], ids=["heads", "all"])
def test_the_checkpoints_own_are_what_pytorch_counts(task: Task, asked: dict[str, bool]) -> None:
    signature = task_signature(SMALL, task, **asked)
    assert model_flops(SMALL, signature, SIZES) == counted_by_torch(task, SMALL, signature)


@pytest.mark.quick
@pytest.mark.parametrize(
    "changes", [{}, {"task_qa": False}, {"visual_attr_loss": False}, {"tie_word_embeddings": False}]
)
def test_heads_that_a_config_switches_off_are_not_counted(changes: dict[str, bool]) -> None:
    config = SMALL.replace(**changes)
    signature = task_signature(config, "pretraining", object_heads=True)
    assert model_flops(config, signature, SIZES) == counted_by_torch("pretraining", config, signature)


def spared(task: Task, config: LxmertConfig, sizes: Mapping[str, int]) -> int:
    """What the outputs of a task do not need of the last cross-modality layer, written out."""
    width, inner = config.hidden_size, config.intermediate_size
    text, objects = sizes["text"], sizes["objects"]
    vision_reads = 2 * width * (2 * objects * width + 2 * text * width + 2 * objects * text)
    vision_self = 2 * objects * width * (4 * width + 2 * objects)
    vision_feed = 2 * 2 * objects * width * inner
    language_self = 2 * (text - 1) * width * (2 * width + 2 * text)  # query, output, scores, mixing
    language_feed = 2 * 2 * (text - 1) * width * inner
    vision, language = vision_reads + vision_self + vision_feed, language_self + language_feed
    of_a_row = {"model": 0, "pretraining": vision, "question-answering": vision + language}
    return sizes["batch"] * of_a_row.get(task, 2 * (vision + language))


@pytest.mark.parametrize("task", TASKS)
def test_an_onnx_file_computes_what_its_outputs_need(task: Task, exports: Exports) -> None:
    config = SMALL if task == "question-answering" else TINY  # one has layers of which nothing is spared, too
    artifact = exports.lively("onnx", task, config)
    whole = model_flops(config, artifact.manifest.signature, SIZES)
    assert whole is not None
    assert count_flops(artifact, SIZES) == whole - spared(task, config, SIZES)


def test_object_heads_need_the_last_vision_half(exports: Exports) -> None:
    artifact = exports.lively("onnx", "pretraining", TINY, object_heads=True)
    assert count_flops(artifact, SIZES) == model_flops(TINY, artifact.manifest.signature, SIZES)


SAVED, KERAS = {"file_format": "saved-model"}, {"file_format": "keras"}
# Those that the tests of the targets judge, too.
FILES: list[tuple[str, Task, dict[str, Any]]] = [
    *(("tensorflow", task, {"precision": "fp32", **SAVED}) for task in TASKS),
    *(("tensorflow", task, {"precision": "fp16", **KERAS}) for task in TASKS),
    ("tensorflow", "question-answering", {"precision": "fp16", **SAVED}),
    *(("tflite", task, {"precision": "fp32"}) for task in TASKS if task != "nlvr2"),
    ("tflite", "nlvr2", {"precision": "fp32", "fixed": {"batch": 2}}),
    ("tflite", "question-answering", {"precision": "fp16"}),
    ("tflite", "question-answering", {"precision": "int8"}),
]


@pytest.mark.tensorflow
@pytest.mark.parametrize(("target", "task", "options"), FILES)
def test_files_of_tensorflow_compute_what_onnx_computes(
    target: str, task: Task, options: dict[str, Any], exports: Exports
) -> None:
    sizes = {**SIZES, **options.get("fixed", {})}
    artifact = exports.lively(target, task, TINY, **options)
    whole = model_flops(TINY, artifact.manifest.signature, sizes)
    assert whole is not None
    assert count_flops(artifact, sizes) == whole - spared(task, TINY, sizes)


@pytest.mark.tensorflow
@pytest.mark.parametrize("options", [SAVED, KERAS], ids=["SavedModel", "keras"])
def test_with_every_state_everything_is_computed(options: dict[str, Any], tmp_path: Path) -> None:
    model = lively_model("question-answering", TINY)
    artifact = lx.export("tensorflow", model, tmp_path / "out", hidden_states=True, parity=False, **options)
    assert count_flops(artifact, SIZES) == model_flops(TINY, artifact.manifest.signature, SIZES)


@pytest.mark.parametrize("options", [{"precision": "fp16"}, {"attention": "operator"}], ids=["fp16", "operator"])
def test_precision_and_form_change_nothing(options: dict[str, str], exports: Exports) -> None:
    plain = exports.lively("onnx", "model", TINY)
    other = exports.lively("onnx", "model", TINY, parity=False, **options)
    assert count_flops(other, SIZES) == count_flops(plain, SIZES)


def test_fixed_axes_count_as_the_same_sizes(tmp_path: Path) -> None:
    model = lively_model("nlvr2", TINY)
    dynamic = lx.export("onnx", model, tmp_path / "dynamic", parity=False)
    fixed = lx.export("onnx", model, tmp_path / "fixed", parity=False, fixed=SIZES)
    assert count_flops(fixed, SIZES) == count_flops(dynamic, SIZES)
    with pytest.raises(InputError, match="text is fixed at 7 in this file and cannot be 8"):
        count_flops(fixed, {**SIZES, "text": 8})


def test_a_text_longer_than_the_position_table(exports: Exports) -> None:
    with pytest.raises(InputError, match="a text of 33 words is longer than the position table: at most 32"):
        count_flops(exports.lively("onnx", "question-answering", TINY), {**SIZES, "text": 33})


def test_the_manifest_holds_them_and_inspect_counts_again(exports: Exports) -> None:
    artifact = exports.lively("onnx", "question-answering", TINY)
    usual = {"batch": 1, "text": 20, "objects": 36}
    whole = model_flops(TINY, artifact.manifest.signature, usual)
    told = {"sizes": usual, "file": count_flops(artifact, usual), "checkpoint": whole}
    assert artifact.manifest.flops == told
    assert inspect_artifact(artifact.path)["flops"] == told
    three = inspect_artifact(artifact.path, {"batch": 3})["flops"]
    assert (three["sizes"]["batch"], three["file"]) == (3, 3 * told["file"])


def test_a_manifest_of_before_has_none(exports: Exports) -> None:
    values = json.loads(json.dumps(exports.lively("onnx", "question-answering", TINY).manifest.to_dict()))
    del values["flops"]
    read = Manifest.from_dict(values)
    assert read.flops is None and "flops" not in read.to_dict()


def test_the_command_shows_them(exports: Exports, tmp_path: Path) -> None:
    path = str(exports.lively("onnx", "question-answering", TINY).path)
    flops = json.loads(run("inspect", path, "--text", "9", "--json", cwd=tmp_path).stdout)["flops"]
    assert flops["sizes"] == {"batch": 1, "text": 9, "objects": 36} and flops["file"] < flops["checkpoint"]
    assert " MFLOP in the file, " in run("inspect", path, cwd=tmp_path).stdout
    refused(run("inspect", path, "--text", "33", cwd=tmp_path), "a text of 33 words is longer than the position table")
    told = run("inspect", "demo", "--batch", "2", cwd=tmp_path).stdout
    assert "FLOP in the checkpoint, for batch 2, text 20, objects 36" in told


@pytest.mark.parametrize("sizes", [{}, {"batch": 1, "text": 2}, {**SIZES, "text": 0}, {**SIZES, "words": 3}])
def test_sizes_that_are_none(sizes: dict[str, int], exports: Exports) -> None:
    with pytest.raises(InputError, match="sizes are whole numbers from 1 of batch, text, objects, not"):
        count_flops(exports.lively("onnx", "question-answering", TINY), sizes)


def test_a_module_of_your_own(tmp_path: Path) -> None:
    artifact = lx.export("onnx", Glance(), tmp_path / "out", signature=RETRIEVAL, parity=False)
    one, two = (count_flops(artifact, {**SIZES, "batch": batch}) for batch in (1, 2))
    assert one and two == 2 * one
    assert model_flops(TINY, artifact.manifest.signature, SIZES) is None


def test_what_cannot_be_counted_is_said(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TARGETS["tensorrt"].flops is None  # only its GPU reads an engine
    artifact = exports.lively("onnx", "question-answering", TINY)
    monkeypatch.setitem(TARGETS, "onnx", replace(TARGETS["onnx"], flops=None))
    assert count_flops(artifact, SIZES) is None


@pytest.mark.quick
def test_a_reshape_to_sizes_of_another_call_is_noticed() -> None:
    """So it was in TFLite's files of nlvr2 with a fixed batch."""
    shapes = {0: [20, 32], 1: [4], 2: [1, 1, 4, 8], 3: [4, 5, 4, 8]}
    stale, known = ({"op_name": "RESHAPE", "inputs": [0, 1], "outputs": [place]} for place in (2, 3))
    assert tflite_flops._is_computed_later(stale, shapes) and not tflite_flops._is_computed_later(known, shapes)


PRODUCTS = {
    "matrices": ("y = MatMul (a, b)", 2 * 2 * 3 * 4 * 5),
    "a row": ("s = Constant <value = int64[1] {0}> () r = Slice (d, s, s, s) y = MatMul (c, b)", 2 * 4 * 5),
    "one of many by one": ("y = MatMul (e, b)", 2 * 6 * 2 * 3 * 4 * 5),
    "turned": ("y = Gemm <transB = 1> (f, g)", 2 * 3 * 4 * 7),
    "turned twice": ("t = Transpose (f) y = Gemm <transA = 1, transB = 1> (t, g)", 2 * 3 * 4 * 7),
    "a size that depends on numbers": ("z = NonZero (f) c4 = Cast <to = 1> (z) y = MatMul (c4, g)", None),
    "nothing to multiply": ("y = Relu (a)", 0),
}


@pytest.mark.quick
@pytest.mark.parametrize(("body", "wanted"), PRODUCTS.values(), ids=PRODUCTS)
def test_each_product_counts_its_terms(body: str, wanted: int | None) -> None:
    inputs = (
        "float[2, 3, 4] a, float[4, 5] b, float[4] c, float[1] d, float[6, 2, 3, 4] e, float[3, 4] f, float[7, 4] g"
    )
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 18]> test ({inputs}) => (float y) {{ {body} }}'
    )
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input}
    specs = tuple(lx.TensorSpec(name, "float32", tuple(shape)) for name, shape in shapes.items())
    assert count_graph(model, Signature("test", specs, ()), {}) == wanted


@pytest.mark.quick
def test_the_figures_of_the_page_are_those_of_the_published_sizes() -> None:
    """A file's are the checkpoint's less what is spared, which holds for every file of the small model above."""
    published = LxmertConfig(num_qa_labels=3129)
    lines = (ROOT / "docs" / "operations.md").read_text().splitlines()
    for task in TASKS:
        (row,) = [line for line in lines if line.startswith(f"| {task}") and line.count("|") == 5]
        own = model_flops(published, task_signature(published, task), USUAL_SIZES)
        assert own is not None
        left = own - spared(task, published, USUAL_SIZES)
        told = [f"{own / 1e9:.2f}", f"{left / 1e9:.2f}", f"{1 - left / own:.1%}".replace("%", " %")]
        assert [cell.strip() for cell in row.split("|")[2:5]] == told


NO_PRODUCT_IN_SIGHT = {
    "another domain": "y = com.microsoft.FusedMatMul (x, x)",
    "an einsum": 'y = Einsum <equation = "ij,jk->ik"> (x, x)',
    "a branch": "c = Constant <value = bool {1}> () y = If (c) <then_branch = g () => (z) { z = MatMul (x, x) }, "
    "else_branch = h () => (w) { w = MatMul (x, x) }>",
}


@pytest.mark.quick
@pytest.mark.parametrize("line", NO_PRODUCT_IN_SIGHT.values(), ids=NO_PRODUCT_IN_SIGHT)
def test_products_that_are_not_counted_are_unknown_and_not_0(line: str) -> None:
    domains = '"" : 18, "com.microsoft" : 1'
    text = f"<ir_version: 8, opset_import: [{domains}]> test (float[4, 4] x) => (float[4, 4] y) {{ {line} }}"
    signature = Signature("t", (TensorSpec("x", "float32", (4, 4)),), (TensorSpec("y", "float32", (4, 4)),))
    assert count_graph(onnx.parser.parse_model(text), signature, {}) is None
    plain = onnx.parser.parse_model(text.replace(line, "y = MatMul (x, x)"))
    assert count_graph(plain, signature, {}) == 2 * 4**3


def test_a_tflite_file_without_our_signature_is_one_line(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = exports.lively("tflite", "question-answering", TINY)
    monkeypatch.setattr(tflite_flops, "SERVED", "gone")
    with pytest.raises(ArtifactError, match="it cannot be read as such"):
        count_flops(artifact, SIZES)
