"""The fp16 linter: each rule has a graph that it must alarm at and a like one that it must not; our own files are clean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import lxmert_export as lx
from converters.to_onnx import convert_to_onnx
from lxmert_export.api.inspect import lint_lines
from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.manifest import Manifest
from lxmert_export.exporting.activation_ranges import NEAR, largest_activations, lint_artifact, lint_ranges
from lxmert_export.graphs.fp16_linter import Finding, lint_fp16, module_path
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import TASKS, Task, task_signature
from parity_tests.faults.torch_faults import fp16_overflow
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_model

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
FLOAT16_MIN, FLOAT32_MIN = -65504.0, float(np.finfo(np.float32).min)


class Planted:
    """A graph over one input ``x`` [4, 8], written node by node; its nodes are named as torch.onnx names them."""

    def __init__(self, kind: int = HALF) -> None:
        self.kind = kind
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, numbers: float | NDArray[np.generic], kind: int | None = None, name: str = "") -> str:
        dtype = helper.tensor_dtype_to_np_dtype(self.kind if kind is None else kind)
        with np.errstate(over="ignore"):
            array = np.asarray(numbers).astype(dtype)
        self.constants.append(numpy_helper.from_array(array, name or f"constant{len(self.constants)}"))
        return self.constants[-1].name

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"/encoder/layer.0/{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def write(self, path: Path, output: str) -> Path:
        x = helper.make_tensor_value_info("x", self.kind, [4, 8])
        inferred = helper.make_empty_tensor_value_info(output)
        graph = helper.make_graph(self.nodes, "planted", [x], [inferred], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        onnx.checker.check_model(path, full_check=True)
        return path


def masked(constant: float, kind: int, *, through_cast: bool = False) -> Callable[[Planted], str]:
    def build(graph: Planted) -> str:
        graph.kind = HALF if through_cast else kind
        mask = graph.constant(constant, kind=kind)
        if through_cast:
            mask = graph.add("Cast", graph.add("Mul", mask, graph.constant(1.0, kind=kind)), to=HALF)
        return graph.add("Softmax", graph.add("Add", "x", mask))

    return build


def layer_norm(kind: int, epsilon: float) -> Callable[[Planted], str]:
    def build(graph: Planted) -> str:
        graph.kind = kind
        return graph.add("LayerNormalization", "x", graph.constant(np.ones(8)), epsilon=epsilon)

    return build


def decomposed_layer_norm(kind: int, epsilon: float, square: str = "Pow") -> Callable[[Planted], str]:
    def build(graph: Planted) -> str:
        graph.kind = kind
        centred = graph.add("Sub", "x", graph.add("ReduceMean", "x"))
        operands = (centred, graph.constant(2.0)) if square == "Pow" else (centred, centred)
        variance = graph.add("ReduceMean", graph.add(square, *operands))
        return graph.add("Div", centred, graph.add("Sqrt", graph.add("Add", variance, graph.constant(epsilon))))

    return build


def gelu(approximate: str) -> Callable[[Planted], str]:
    return lambda graph: graph.add("Gelu", "x", approximate=approximate)


def decomposed_tanh_gelu(graph: Planted) -> str:
    cubic = graph.add("Mul", graph.add("Pow", "x", graph.constant(3.0)), graph.constant(0.044715))
    inner = graph.add("Mul", graph.add("Add", "x", cubic), graph.constant(0.7978845608))
    return graph.add("Mul", "x", graph.add("Add", graph.add("Tanh", inner), graph.constant(1.0)))


def plain_tanh(graph: Planted) -> str:
    return graph.add("Tanh", graph.add("Mul", "x", graph.constant(0.5)))


def weights(numbers: float, kind: int = HALF, *, through_cast: bool = False) -> Callable[[Planted], str]:
    def build(graph: Planted) -> str:
        array = np.full((8, 8), 0.25)
        array[0, :4] = numbers
        weight = graph.constant(array, kind=kind, name="encoder.layer.0.dense.weight")
        return graph.add("MatMul", "x", graph.add("Cast", weight, to=HALF) if through_cast else weight)

    return build


def bias(numbers: float, kind: int = HALF, *, through_cast: bool = False) -> Callable[[Planted], str]:
    def build(graph: Planted) -> str:
        addend = graph.constant(np.array([0.25] * 4 + [numbers] * 4), kind=kind)
        return graph.add("Add", "x", graph.add("Cast", addend, to=HALF) if through_cast else addend)

    return build


def causal_mask(graph: Planted) -> str:
    return graph.add("Add", "x", graph.constant(np.where(np.tri(4, 8) > 0, 0.0, -np.inf)))


# rule → what must alarm, with its severity, and what must not. A pair differs in nothing but what the rule is about.
CASES: list[tuple[str, str | None, Callable[[Planted], str]]] = [
    ("huge-mask-constant", "error", masked(FLOAT16_MIN, HALF)),
    ("huge-mask-constant", "error", masked(FLOAT32_MIN, FLOAT, through_cast=True)),
    ("huge-mask-constant", "warning", masked(FLOAT32_MIN, FLOAT)),
    ("huge-mask-constant", None, masked(-10000.0, HALF)),
    ("huge-mask-constant", None, masked(-10000.0, FLOAT, through_cast=True)),
    ("infinite-constant", "error", masked(-np.inf, HALF)),
    ("infinite-constant", "error", masked(-np.inf, FLOAT)),
    ("infinite-constant", "error", causal_mask),
    ("infinite-constant", None, masked(-10000.0, HALF)),
    ("epsilon-underflow", "error", layer_norm(HALF, 1e-12)),
    ("epsilon-underflow", None, layer_norm(HALF, 1e-5)),
    ("epsilon-underflow", None, layer_norm(FLOAT, 1e-12)),
    ("epsilon-underflow", "error", decomposed_layer_norm(HALF, 1e-12)),
    ("epsilon-underflow", None, decomposed_layer_norm(HALF, 1e-5)),
    ("epsilon-underflow", None, decomposed_layer_norm(FLOAT, 1e-12)),
    ("half-layer-norm", "warning", layer_norm(HALF, 1e-5)),
    ("half-layer-norm", None, layer_norm(FLOAT, 1e-5)),
    ("decomposed-layer-norm", "error", decomposed_layer_norm(HALF, 1e-5)),
    ("decomposed-layer-norm", "error", decomposed_layer_norm(HALF, 1e-5, "Mul")),
    ("decomposed-layer-norm", None, decomposed_layer_norm(FLOAT, 1e-5)),
    ("decomposed-layer-norm", None, layer_norm(HALF, 1e-5)),
    ("tanh-gelu", "warning", gelu("tanh")),
    ("tanh-gelu", "warning", decomposed_tanh_gelu),
    ("tanh-gelu", None, gelu("none")),
    ("tanh-gelu", None, plain_tanh),
    ("subnormal-weights", "warning", weights(1e-6)),
    ("subnormal-weights", "warning", weights(1e-6, FLOAT, through_cast=True)),
    ("subnormal-weights", "note", bias(1e-6)),  # it is added to what is larger: nothing is lost
    ("subnormal-weights", "note", bias(1e-6, FLOAT, through_cast=True)),
    ("subnormal-weights", None, weights(1e-4)),
    ("weight-overflow", "error", weights(1e5)),
    ("weight-overflow", "error", weights(1e5, FLOAT, through_cast=True)),
    ("weight-overflow", None, weights(6e4)),
    ("weight-underflow", "warning", weights(1e-9, FLOAT, through_cast=True)),
    ("weight-underflow", "note", bias(1e-9, FLOAT, through_cast=True)),
    ("weight-underflow", None, weights(0.0, FLOAT, through_cast=True)),
]


@pytest.mark.parametrize(("rule", "severity", "build"), CASES, ids=lambda part: part if isinstance(part, str) else "")
def test_rule(rule: str, severity: str | None, build: Callable[[Planted], str], tmp_path: Path) -> None:
    graph = Planted()
    found = [f for f in lint_fp16(graph.write(tmp_path / "planted.onnx", build(graph))) if f.rule == rule]
    assert [finding.severity for finding in found] == ([] if severity is None else [severity])
    for finding in found:
        assert finding.node in {node.name for node in graph.nodes}
        assert finding.module == "encoder.layer.0"
        # --fp16 or --fp32-islands: the flag that mends it
        assert ("--f" in finding.mend) is (severity != "note") and "\n" not in str(finding)


def test_figures(tmp_path: Path) -> None:
    graph = Planted()
    path = graph.write(tmp_path / "planted.onnx", weights(1e-6)(graph))
    (found,) = lint_fp16(path)
    assert (found.figure, found.seen) == (4, "encoder.layer.0.dense.weight: 4 of 64 weights are subnormal (6.25%)")
    # Without the originals nobody can tell a weight that became 0 from one that was.
    graph = Planted()
    path = graph.write(tmp_path / "zeros.onnx", weights(0.0)(graph))
    assert lint_fp16(path) == []
    original = np.full((8, 8), 0.25, np.float32)
    original[0, :3] = 1e-9
    original[0, 3] = 0
    (flushed,) = lint_fp16(path, originals={"encoder.layer.0.dense.weight": original.T})
    assert (flushed.rule, flushed.figure) == ("weight-underflow", 3)


def test_a_constant_that_nothing_reads_is_no_fault(tmp_path: Path) -> None:
    graph = Planted()
    graph.constant(-np.inf)
    assert lint_fp16(graph.write(tmp_path / "planted.onnx", plain_tanh(graph))) == []


@pytest.mark.parametrize(
    ("factor", "rule"),
    [(2.0**10, None), (2.0**15, "activation-near-range"), (2.0**17, "activation-overflow")],
)  # fmt: skip
def test_ranges(factor: float, rule: str | None, tmp_path: Path) -> None:
    # Both constants fit fp16, and onnxruntime's own fp16 arithmetic would say infinity where the range ends.
    graph = Planted()
    half = graph.constant(factor**0.5)
    grown = graph.add("Mul", graph.add("Mul", "x", half), half)
    path = graph.write(tmp_path / "planted.onnx", graph.add("Transpose", grown))
    batch = {"x": np.linspace(0, 1, 32, dtype=np.float16).reshape(4, 8)}
    found = lint_ranges(path, [batch, {"x": batch["x"] / 2}])
    assert [finding.rule for finding in found] == ([] if rule is None else [rule])
    assert largest_activations(path, [batch])[grown] == pytest.approx(factor, rel=2e-3)
    assert all(f.node == grown and f.module == "encoder.layer.0" and f.figure > NEAR for f in found)


def test_what_islands_hold_is_no_fault(tmp_path: Path) -> None:
    graph = Planted()
    wide = graph.add("Cast", "x", to=FLOAT)
    large = graph.add("Mul", wide, graph.constant(1e6, kind=FLOAT))
    small = graph.add("Div", large, graph.constant(1e6, kind=FLOAT))
    path = graph.write(tmp_path / "planted.onnx", graph.add("Cast", small, to=HALF))
    assert lint_fp16(path) == lint_ranges(path, [{"x": np.ones((4, 8), np.float16)}]) == []


@pytest.mark.parametrize("task", TASKS)
def test_our_own_artifacts_are_clean(task: Task, tmp_path: Path) -> None:
    artifact = lx.export("onnx", lively_model(task, TINY), tmp_path / "out", precision="fp16", parity=False)
    found = lint_artifact(artifact)
    assert {(f.severity, f.rule) for f in found} <= {("note", "subnormal-weights"), ("note", "weight-underflow")}


def test_the_built_in_checkpoint_is_clean(exports: Exports) -> None:
    """Trained weights: the biases of its keys, which no softmax sees, are small."""
    artifact = exports.demo("onnx", task="question-answering", precision="fp16", attentions=True)
    assert {finding.severity for finding in lint_artifact(artifact)} == {"note"}


def test_an_overflowing_layer_is_found_by_name(tmp_path: Path) -> None:
    model = lively_model("question-answering", TINY)
    fp16_overflow(model)
    signature = task_signature(TINY, "question-answering")
    convert_to_onnx(model, signature, InputLimits.of(TINY), tmp_path, precision="fp16")
    artifact = Artifact(
        tmp_path, Manifest("onnx", "fp16", "question-answering", TINY, signature, checkpoint={}), "planted"
    )
    errors = [finding for finding in lint_artifact(artifact) if finding.severity == "error"]
    layer = "lxmert.language_layers.0.self_attention"
    assert {f.rule for f in errors} == {"activation-overflow"}
    assert errors[0].node == f"{layer}.value/MatMul" and errors[0].module == f"{layer}.value"
    assert "--fp32-islands auto" in errors[0].mend
    # the output projection shrank by what the value grew by: 2^-15 of 0.2 is subnormal
    assert any(f.rule == "subnormal-weights" and f.module == f"{layer}.output" for f in lint_artifact(artifact))


def test_our_original_weights_tell_what_became_zero(tmp_path: Path) -> None:
    model = lively_model("question-answering", TINY)
    model.answer_head.expand.weight.data[:, :2] = 1e-9
    signature = task_signature(TINY, "question-answering")
    convert_to_onnx(model, signature, InputLimits.of(TINY), tmp_path, precision="fp16")
    originals = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
    found = [f for f in lint_fp16(tmp_path / "model.onnx", originals=originals) if f.rule == "weight-underflow"]
    assert [(f.severity, f.node, f.figure) for f in _of_module(found, "answer_head.expand")] == [
        ("warning", "answer_head.expand/Gemm", 128)
    ]


def _of_module(findings: list[Finding], module: str) -> Iterator[Finding]:
    return (finding for finding in findings if finding.module == module)


def test_module_paths() -> None:
    assert module_path("lxmert.pooler/Gemm") == "lxmert.pooler"
    assert module_path("/bert/encoder/layer.0/MatMul_1") == "bert.encoder.layer.0"
    assert module_path("MatMul_7") == ""


def test_what_is_printed_begins_with_the_verdict_and_groups_notes() -> None:
    note = asdict(Finding("note", "subnormal-weights", "a/MatMul", "a", "1 of 9", 1, "nothing to do"))
    more = {**note, "node": "b/MatMul", "seen": "2 of 9", "figure": 2}
    assert lint_lines([note, more]) == [
        "sound in fp16: no error, no warning, 2 notes; nothing to do",
        "note: subnormal-weights: 2 nodes, most in b/MatMul: 2 of 9",
    ]
    assert lint_lines([]) == ["sound in fp16: no error, no warning, 0 notes; nothing to do"]
    severe = {**note, "severity": "error", "mend": "--fp16"}
    assert lint_lines([severe, note])[:2] == [
        "1 error, 0 warnings: expect wrong numbers or NaN in fp16", "error: subnormal-weights: a/MatMul: 1 of 9; --fp16"
    ]  # fmt: skip
    assert lint_lines([{**severe, "severity": "warning"}])[0].startswith("no error, 1 warning: accuracy is lost")
