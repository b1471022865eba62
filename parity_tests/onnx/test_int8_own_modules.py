"""int8 of what LXMERT itself does not hold: matmuls of other forms, and a weight in both orientations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from converters.onnx.quantized import products_of, stored_matmuls, write_quantized
from converters.to_onnx import convert_to_onnx
from lxmert_export.artifact.directory import ONNX_FILE
from lxmert_export.graphs.onnx_facts import read_onnx_facts
from lxmert_export.graphs.onnx_types import load_typed
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Signature, TensorSpec
from parity_tests.fixtures.random_models import SMALL


class BothWays(nn.Module):
    """Multiplies by one weight in both orientations."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(16, 16))

    def forward(self, visual_feats: Tensor) -> dict[str, Tensor]:
        return {"score": torch.tanh(visual_feats @ self.weight) @ self.weight.t()}


def test_a_weight_may_be_multiplied_in_both_orientations(tmp_path: Path) -> None:
    for place in ("wide", "whole"):
        (tmp_path / place).mkdir()
    axes = ("batch", 5, 16)
    signature = Signature(
        "both", (TensorSpec("visual_feats", "float32", axes),), (TensorSpec("score", "float32", axes),)
    )
    wide, _ = convert_to_onnx(BothWays().eval(), signature, InputLimits.of(SMALL), tmp_path / "wide", precision="fp32")
    steps = dict.fromkeys(stored_matmuls(wide), 1 / 127)
    whole = write_quantized(wide, tmp_path / "whole", steps, weight_range=127)
    assert len(steps) == 2 and read_onnx_facts(whole).matmul_weights == {"int8": 2}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    given = {"visual_feats": np.random.default_rng(0).uniform(-1, 1, (2, 5, 16)).astype(np.float32)}
    one, other = (onnxruntime.InferenceSession(file, options).run(None, given)[0] for file in (wide, whole))
    # Two roundings of about 1/200 each; with the other orientation's steps or weight the difference is as large as the result.
    assert np.sqrt(np.mean(np.square(one - other))) < 0.02 * np.sqrt(np.mean(np.square(one)))


ODD = """<ir_version: 8, opset_import: ["" : 18]> odd (float[2, 4] x) => (float[3, 2, 4] y, float[2, 4] a, float[2, 4] b)
    <float[3, 4, 4] pages, float[4, 4] weight = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}, float[4] bias = {1,2,3,4}> {
    y = MatMul (x, pages) a = Gemm <alpha = 0.5> (x, weight, bias) b = Gemm <transB = 1> (x, weight, bias) }"""


def test_matmuls_of_another_form_stay_in_float32(tmp_path: Path) -> None:
    """Of a module of one's own: a weight of three axes, a product that is scaled."""
    model = onnx.parser.parse_model(ODD)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 4, 4), np.float32), "pages"))
    for node, name in zip(model.graph.node, "yab", strict=True):
        node.name = name
    onnx.save(model, tmp_path / ONNX_FILE)
    assert stored_matmuls(tmp_path / ONNX_FILE) == ["y", "a", "b"]
    assert [product.name for product in products_of(load_typed(tmp_path / ONNX_FILE).graph)] == ["b"]
    (tmp_path / "whole").mkdir()
    whole = write_quantized(tmp_path / ONNX_FILE, tmp_path / "whole", {"b": 1 / 127}, weight_range=127)
    assert read_onnx_facts(whole).matmul_weights == {"fp32": 2, "int8": 1}
    given = {"x": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)}
    for one, other in zip(*(onnxruntime.InferenceSession(file).run(None, given) for file in (tmp_path / ONNX_FILE, whole)),
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(one, other, atol=1 / 127)
