"""A head over [CLS] computes one row of the last layer; whatever depends on other rows stays whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx_ir.passes import common

import lxmert_export as lx
from converters.onnx.read_rows import read_rows_early
from lxmert_export.artifact.directory import ONNX_FILE
from lxmert_export.spec.signature import Task
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY
from parity_tests.onnx.test_converter import RETRIEVAL, Retrieval

GATHER = "first = Constant <value = int64 {0}> () y = Gather <axis = 1> (h, first)"
# What is read of the first operator's input: one row of ROWS, or all of them.
ROW_BY_ROW = {
    "product": "h = MatMul (x, w)",
    "sum of two values": "a = Relu (x) h = Add (a, x)",
    "broadcast sum": "h = Add (x, b)",
    "softmax of a row": "h = Softmax <axis = -1> (x)",
    "normalised rows": "h = LayerNormalization <axis = -1> (x, b)",
    "split heads": "s = Constant <value = int64[4] {0, 0, 2, 3}> () h = Reshape (x, s)",
    "split heads of fixed size": "s = Constant <value = int64[4] {2, 5, 2, 3}> () h = Reshape (x, s)",
    "turned": "h = Transpose <perm = [0, 2, 1]> (x)",
    "attention": """
        q = MatMul (x, w) k = Transpose <perm = [0, 2, 1]> (x) p = MatMul (q, k) a = Softmax <axis = -1> (p) h = MatMul (a, x)
    """,
}
ACROSS_ROWS = {
    "softmax of a column": "h = Softmax <axis = 1> (x)",
    "normalised together": "h = LayerNormalization <axis = 1> (x, c)",
    "rows mixed": "s = Constant <value = int64[3] {2, 6, 5}> () h = Reshape (x, s)",
    "rows running on": "s = Constant <value = int64[3] {2, 10, 3}> () h = Reshape (x, s)",
}
ROWS = 5
TWO = TINY.replace(x_layers=2)  # of which the last is cut alone


def model_of(body: str, read: str = GATHER) -> onnx.ModelProto:
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
        test (float[2, {ROWS}, 6] x, float[6, 6] w, float[6] b, float[{ROWS}, 6] c) => (float y) {{ {body} {read} }}"""
    parsed = onnx.parser.parse_model(text)
    del parsed.graph.output[0].type.tensor_type.shape.dim[:]
    parsed.graph.output[0].type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(parsed)


def rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = ir.serde.deserialize_model(model)
    read_rows_early(changed.graph)
    common.RemoveUnusedNodesPass()(changed)
    return ir.serde.serialize_model(changed)


def operators(model: onnx.ModelProto) -> list[tuple[str, list[str]]]:
    return [(node.op_type, list(node.input)) for node in model.graph.node]


def run(model: onnx.ModelProto) -> np.ndarray:
    generator = np.random.default_rng(0)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    drawn = {i.name: generator.standard_normal(i.shape, dtype=np.float32) for i in session.get_inputs()}
    (result,) = session.run(None, drawn)
    return np.asarray(result)


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_operators_that_compute_row_by_row_compute_one(name: str) -> None:
    before = model_of(ROW_BY_ROW[name])
    after = rewritten(before)
    (sliced,) = [node for node in after.graph.node if node.op_type == "Slice"]
    assert sliced.input[0] == "x"  # the read has reached the input
    # A product of one row may be another kernel's: 1.2e-7 in attention when this was written, 0 elsewhere.
    np.testing.assert_allclose(run(after), run(before), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ACROSS_ROWS)
def test_operators_across_rows_stay_whole(name: str) -> None:
    before = model_of(ACROSS_ROWS[name])
    after = rewritten(before)
    assert operators(after) == operators(before)
    np.testing.assert_array_equal(run(after), run(before))


@pytest.mark.parametrize(
    "read",
    [
        "one = Constant <value = int64 {1}> () y = Gather <axis = 1> (h, one)",
        "first = Constant <value = int64 {0}> () y = Gather <axis = 0> (h, first)",
        f"{GATHER.replace('y', 'g')} m = ReduceMean <keepdims = 0> (h) y = Add (g, m)",
    ],
    ids=["another row", "another axis", "more readers"],
)
def test_other_reads_change_nothing(read: str) -> None:
    before = model_of("h = MatMul (x, w)", read)
    assert operators(rewritten(before)) == operators(before)


def last_layer(path: Path) -> dict[str, list[int | str]]:
    """The shapes of the products with weights in the last cross-modality layer, by module."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path / ONNX_FILE, load_external_data=False)).graph
    shapes = {v.name: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim] for v in graph.value_info}
    start = f"lxmert.cross_modality_layers.{TWO.x_layers - 1}."
    products = {node.name.split(start)[-1]: shapes.get(node.output[0], []) for node in graph.node
                if node.op_type == "MatMul" and start.removeprefix("lxmert.") in node.name}  # fmt: skip
    return {
        name.split(f"_layers.{TWO.x_layers - 1}.")[-1]: shape for name, shape in products.items() if len(shape) == 3
    }


@pytest.mark.parametrize("task", ["question-answering", "nlvr2"])
def test_answers_need_one_row_of_the_last_layer(task: Task, exports: Exports) -> None:
    shapes = last_layer(exports.lively("onnx", task, TWO).path)
    width, inner = TWO.hidden_size, TWO.intermediate_size
    assert [shapes[f"language_self_attention.{name}/MatMul"][1:] for name in ("query", "output")] == [[1, width]] * 2
    assert shapes["language_feed_forward.expand/MatMul"][1:] == [1, inner]
    for whole in ("language_self_attention.key/MatMul", "cross_attention.query/MatMul"):
        assert shapes[whole][1] != 1  # every word is attended to
    assert not [name for name in shapes if name.startswith("vision")]


@pytest.mark.parametrize("task", ["model", "pretraining"])
def test_outputs_of_every_word_need_every_row(task: Task, exports: Exports) -> None:
    shapes = last_layer(exports.lively("onnx", task, TWO).path)
    assert {size[1] for name, size in shapes.items() if name.startswith("language_")} == {"text"}


def test_a_module_of_your_own_that_reads_the_pooled_output_saves_it_too(tmp_path: Path) -> None:
    artifact = lx.export("onnx", Retrieval(), tmp_path / "out", signature=RETRIEVAL, parity=False)
    model = onnx.load(artifact.path / ONNX_FILE, load_external_data=False)
    assert [node.name for node in model.graph.node if node.op_type == "Slice"] == [
        "body.embeddings.position/Slice",
        "body.cross_modality_layers.0.language_self_attention/Slice",
    ]
