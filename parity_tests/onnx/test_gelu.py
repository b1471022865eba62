"""GELU is grouped so that onnxruntime fuses it, and stays the same to the bit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from converters.onnx.gelu import group_gelu
from lxmert_export.artifact.directory import ONNX_FILE
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, inputs_for

pytestmark = pytest.mark.quick
EXPORTED = """
    agraph (float[n, 8] x) => (float[n, 8] y) <float root = {1.4142135}, float one = {1.0}, float half = {0.5}> {
        d = Div (x, root)
        e = Erf (d)
        a = Add (e, one)
        h = Mul (half, a)
        y = Mul (x, h)
    }
"""


def model_of(text: str) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
    return ir.from_proto(proto)


def run(model: ir.Model, values: np.ndarray, *, optimize: bool) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return np.asarray(session.run(None, {"x": values})[0])


def operators(model: ir.Model, file: Path) -> Counter[str]:
    """The operators after onnxruntime's own optimisation."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(file)
    options.log_severity_level = 3  # it warns that the file is of this machine
    onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return Counter(node.op_type for node in onnx.load(file).graph.node)


def test_grouping_changes_no_bit() -> None:
    values = np.random.default_rng(0).standard_normal((4096, 8)).astype(np.float32) * 4
    values[0] = [0.0, -0.0, 1e-30, -1e-30, 1e4, -1e4, np.inf, -5.5]
    plain, grouped = model_of(EXPORTED), model_of(EXPORTED)
    group_gelu(grouped.graph)
    assert [node.op_type for node in grouped.graph] == [node.op_type for node in plain.graph]
    one, other = (run(model, values, optimize=False) for model in (plain, grouped))
    assert np.array_equal(one.view(np.int32), other.view(np.int32))


@pytest.mark.parametrize("scaled", ["d = Mul (x, inverse)", "d = Mul (inverse, x)"])
def test_a_product_with_the_inverse_root_is_gelu_as_well(scaled: str) -> None:
    text = EXPORTED.replace("d = Div (x, root)", scaled).replace("root = {1.4142135}", "inverse = {0.70703125}")
    plain, grouped = model_of(text), model_of(text)  # ½√2 in half precision
    group_gelu(grouped.graph)
    values = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    one, other = (run(model, values, optimize=False) for model in (plain, grouped))
    assert ir.to_proto(plain) != ir.to_proto(grouped) and np.array_equal(one, other)


def test_onnxruntime_fuses_the_grouped_form_alone(tmp_path: Path) -> None:
    plain, grouped = model_of(EXPORTED), model_of(EXPORTED)
    group_gelu(grouped.graph)
    assert operators(plain, tmp_path / "plain.onnx")["Erf"] == 1
    assert operators(grouped, tmp_path / "grouped.onnx") == {"Gelu": 1}


@pytest.mark.parametrize(
    ("change", "to"),
    [
        ("h = Mul (half, a)", "h = Mul (one, a)"),  # another function
        ("a = Add (e, one)", "a = Add (e, half)"),
        ("y = Mul (x, h)", "y = Add (x, h)"),
        ("y = Mul (x, h)", "y = Mul (h, h)"),
        ("(float[n, 8] y)", "(float[n, 8] y, float[n, 8] a)"),  # a part of it is read elsewhere
        ("d = Div (x, root)", "d = Div (x, one)"),
        ("root = {1.4142135}", "root = {1.4145}"),  # a number that half precision tells from √2
        ("d = Div (x, root)", "d = Mul (x, root)"),
        ("d = Div (x, root)", "z = Neg (x)\n d = Div (z, root)"),  # a gate: the product is with something else
    ],
)
def test_what_is_not_gelu_is_left_alone(change: str, to: str) -> None:
    model, untouched = model_of(EXPORTED.replace(change, to)), model_of(EXPORTED.replace(change, to))
    group_gelu(model.graph)
    assert ir.to_proto(model) == ir.to_proto(untouched)


def test_every_gelu_of_an_export_is_fused(exports: Exports, tmp_path: Path) -> None:
    artifact = exports.lively("onnx", "question-answering", TINY)
    file = artifact.file(ONNX_FILE)
    written = Counter(node.op_type for node in onnx.load(file, load_external_data=False).graph.node)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options)
    found = Counter(
        node.op_type for node in onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node
    )
    assert written["Erf"] > 0 and found["Erf"] == 0
    assert found["Gelu"] + found["BiasGelu"] == written["Erf"]
    given = {value.name: inputs_for("question-answering")[value.name].numpy() for value in session.get_inputs()}
    assert np.isfinite(session.run(None, given)[0]).all()
