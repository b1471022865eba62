"""The kernels that one call launches on onnxruntime's CUDA provider, counted in the file."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from lxmert_export.api.inspect import inspect_artifact, summary_rows
from lxmert_export.graphs.onnx_launches import FREE, MICROSOFT, ON_CPU, OPERATORS, count_launches
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY

FIXED = {"batch": 1, "text": 20, "objects": 36}


def graph(nodes: list[onnx.NodeProto], shapes: dict[str, list[int | str]], weights: tuple[str, ...] = ()) -> Any:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape) for name, shape in shapes.items()]
    stored = [helper.make_tensor(name, TensorProto.FLOAT16, [1], [0.0]) for name in weights]
    return helper.make_model(helper.make_graph(nodes, "g", infos, [], stored))


def node(operator: str, inputs: str, output: str, **options: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **options)


def test_what_only_names_its_input_anew_is_free_and_everything_else_counts() -> None:
    nodes = [node(name, "x", f"{name}-of-x") for name in sorted(FREE - {"Constant"})]
    assert count_launches(graph(nodes, {"x": [1, 4]})).total == 0
    nodes += [node("Cast", "x", "c", to=1), node("Tanh", "c", "t"), node("NeverHeardOf", "t", "n", domain="any.domain")]
    found = count_launches(graph(nodes, {"x": [1, 4]}))
    assert found.total == 3 and found.by_operator == {"Cast": 1, "Tanh": 1, "NeverHeardOf": 1} and not found.on_cpu


def test_what_is_made_of_constants_is_made_once() -> None:
    nodes = [node("Transpose", "w", "turned"), node("Cast", "turned", "cast", to=1), node("MatMul", "x cast", "y")]
    assert count_launches(graph(nodes, {"x": [1, 4]}, weights=("w",))).by_operator == {"MatMul": 1}


@pytest.mark.parametrize("operator", sorted(ON_CPU))
def test_what_computes_on_the_cpu_is_told_and_is_no_launch(operator: str) -> None:
    found = count_launches(graph([node(operator, "x", "y"), node("Tanh", "x", "z")], {"x": [1, 4]}))
    assert found.total == 1 and found.on_cpu == {operator: 1}


THREE_AXES = {"q_num_heads": 2, "kv_num_heads": 2}


def attention(
    keys: int | str = 36, *, width: int = 128, mask: bool = True, axes: int = 3
) -> dict[str, list[int | str]]:
    """Shapes of 20 queries and some keys of 2 heads."""
    heads = [2] if axes == 4 else []
    size = width // 2 if axes == 4 else width
    shapes: dict[str, list[int | str]] = {name: [1, *heads, keys, size] for name in "qkv"}
    shapes["q"] = [1, *heads, 20, size]
    return {**shapes, "m": [1, 1, 20, keys]} if mask else shapes


# operator, inputs with their shapes, attributes, kernels
CASES: dict[str, tuple[str, dict[str, list[int | str]], dict[str, Any], int]] = {
    "gemm without a bias": ("Gemm", {"x": [1, 4], "w": [4, 4]}, {}, 1),
    "gemm with a bias": ("Gemm", {"x": [1, 4], "w": [4, 4], "b": [4]}, {}, 2),
    "attention": ("Attention", attention(mask=False), THREE_AXES, 1),
    "with a mask": ("Attention", attention(), THREE_AXES, 2),
    "of 35 keys": ("Attention", attention(35), THREE_AXES, 7),
    "of unknown keys": ("Attention", attention("objects"), THREE_AXES, 7),
    "heads of 4": ("Attention", attention(width=8), THREE_AXES, 7),
    "of 4 axes": ("Attention", attention(axes=4), {}, 4),
    "of 4 axes, 35 keys": ("Attention", attention(35, axes=4), {}, 3),
    "packed": ("MultiHeadAttention", {"qkv": [1, 24, 2, 3, 64]}, {"domain": MICROSOFT}, 2),
    "packed, 20 tokens": ("MultiHeadAttention", {"qkv": [1, 20, 2, 3, 64]}, {"domain": MICROSOFT}, 5),
    "packed, of unknown length": ("MultiHeadAttention", {"qkv": [1, "text", 2, 3, 64]}, {"domain": MICROSOFT}, 5),
    "skip and norm": (
        "SkipLayerNormalization",
        {"x": [1, 4], "s": [1, 4], "g": [4], "b": [4]},
        {"domain": MICROSOFT},
        1,
    ),
}


@pytest.mark.parametrize(("operator", "shapes", "options", "wanted"), CASES.values(), ids=CASES)
def test_an_operator_of_several_kernels_counts_as_several(
    operator: str, shapes: dict[str, list[int | str]], options: dict[str, Any], wanted: int
) -> None:
    found = count_launches(graph([node(operator, " ".join(shapes), "y", **options)], shapes))
    assert found.by_operator == {operator: wanted}


def test_every_operator_of_the_table_has_a_source() -> None:
    assert all(row.source.startswith(("core:", "contrib:")) for row in OPERATORS.values())


def test_inspect_and_the_manifest_tell_it(exports: Exports) -> None:
    fixed = exports.lively("onnx", "question-answering", TINY, precision="fp16", fixed=FIXED, parity=False)
    launches = fixed.manifest.options["launches"]
    assert launches["by_operator"]["Cast"] == 42 and not launches["on_cpu"]
    rows = dict(summary_rows(inspect_artifact(fixed.path)))
    assert rows["kernel launches"].startswith(
        f"{launches['total']} a call in onnxruntime on a GPU, at least (Cast 42, Add 42"
    )
    dynamic = exports.lively("onnx", "question-answering", TINY, precision="fp16")
    told = dict(summary_rows(inspect_artifact(dynamic.path)))["kernel launches"]
    assert "on the CPU: Shape" in told and told.endswith("so it is no CUDA graph")
