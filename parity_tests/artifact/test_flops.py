"""Counted operations: of the checkpoint as PyTorch counts them, of each file as the file says, and what a file saves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import lxmert_export as lx
from lxmert_export.artifact.flops import count_flops
from lxmert_export.artifact.targets import TARGETS
from lxmert_export.errors import InputError
from lxmert_export.graphs.onnx_flops import count_graph
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.flops import model_flops
from lxmert_export.spec.signature import TASKS, Signature, Task, task_signature
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import SMALL, TINY, lively_model
from parity_tests.onnx.test_converter import RETRIEVAL, Retrieval

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


def last_layer_that_answers_spare(config: LxmertConfig, images: int) -> int:
    """What a head over [CLS] does not need of the last cross-modality layer, written out."""
    width, inner = config.hidden_size, config.intermediate_size
    text, objects = SIZES["text"], SIZES["objects"]
    vision_reads = 2 * width * (2 * objects * width + 2 * text * width + 2 * objects * text)
    vision_self = 2 * objects * width * (4 * width + 2 * objects)
    vision_feed = 2 * 2 * objects * width * inner
    language_self = 2 * (text - 1) * width * (2 * width + 2 * text)  # query, output, scores, mixing
    language_feed = 2 * 2 * (text - 1) * width * inner
    return images * SIZES["batch"] * (vision_reads + vision_self + vision_feed + language_self + language_feed)


@pytest.mark.parametrize("task", TASKS)
def test_an_onnx_file_computes_what_its_outputs_need(task: Task, exports: Exports) -> None:
    artifact = exports.lively("onnx", task, SMALL)
    whole = model_flops(SMALL, artifact.manifest.signature, SIZES)
    assert whole is not None
    spared = {
        "model": 0,
        "question-answering": last_layer_that_answers_spare(SMALL, 1),
        "nlvr2": last_layer_that_answers_spare(SMALL, 2),
    }
    if task in spared:
        assert count_flops(artifact, SIZES) == whole - spared[task]
    else:  # words are scored, objects are not
        assert whole - last_layer_that_answers_spare(SMALL, 1) < (count_flops(artifact, SIZES) or 0) < whole


@pytest.mark.parametrize("options", [{"precision": "fp16"}, {"attention": "operator"}], ids=["fp16", "operator"])
def test_precision_and_form_change_nothing(options: dict[str, str], exports: Exports) -> None:
    plain = exports.lively("onnx", "model", SMALL)
    assert count_flops(exports.lively("onnx", "model", SMALL, **options), SIZES) == count_flops(plain, SIZES)


def test_fixed_axes_count_as_the_same_sizes(tmp_path: Path) -> None:
    model = lively_model("nlvr2", TINY)
    dynamic = lx.export("onnx", model, tmp_path / "dynamic", parity=False)
    fixed = lx.export("onnx", model, tmp_path / "fixed", parity=False, fixed=SIZES)
    assert count_flops(fixed, SIZES) == count_flops(dynamic, SIZES)
    with pytest.raises(InputError, match="text is fixed at 7 in this file and cannot be 8"):
        count_flops(fixed, {**SIZES, "text": 8})


@pytest.mark.parametrize("sizes", [{}, {"batch": 1, "text": 2}, {**SIZES, "text": 0}, {**SIZES, "words": 3}])
def test_sizes_that_are_none(sizes: dict[str, int], exports: Exports) -> None:
    with pytest.raises(InputError, match="sizes are whole numbers from 1 of batch, text, objects, not"):
        count_flops(exports.lively("onnx", "model", SMALL), sizes)


def test_a_module_of_your_own(tmp_path: Path) -> None:
    artifact = lx.export("onnx", Retrieval(), tmp_path / "out", signature=RETRIEVAL)
    one, two = (count_flops(artifact, {**SIZES, "batch": batch}) for batch in (1, 2))
    assert one and two == 2 * one
    assert model_flops(TINY, artifact.manifest.signature, SIZES) is None


def test_what_cannot_be_counted_is_said(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TARGETS["tensorrt"].flops is None  # only its GPU reads an engine
    artifact = exports.lively("onnx", "model", SMALL)
    monkeypatch.setitem(TARGETS, "onnx", replace(TARGETS["onnx"], flops=None))
    assert count_flops(artifact, SIZES) is None


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
def test_the_published_sizes_are_10_5_billion_of_which_answers_spare_8_percent() -> None:
    published = LxmertConfig(num_qa_labels=3129)
    whole = model_flops(
        published, task_signature(published, "question-answering"), {"batch": 1, "text": 20, "objects": 36}
    )
    assert whole is not None and round(whole / 1e9, 1) == 10.6
