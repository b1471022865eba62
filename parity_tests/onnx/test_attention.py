"""ONNX's own Attention operator: the same function, judged and counted as its pieces are, and built by TensorRT-RTX."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

import lxmert_export as lx
from lxmert_export.artifact.directory import ONNX_FILE, Artifact, open_artifact
from lxmert_export.artifact.facts import read_graph_facts
from lxmert_export.engines.devices import resolve
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.exporting.activation_ranges import largest_activations, lint_artifact
from lxmert_export.graphs.onnx_decomposition import load_decomposed
from lxmert_export.parity.report import ParityError
from lxmert_export.runners.onnx.emulator import write_emulated
from lxmert_export.spec.sample_inputs import sample_inputs
from lxmert_export.spec.signature import Precision
from parity_tests.fixtures.command import run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_model

# Heads of 64, for which TensorRT has a fused kernel in half precision.
WIDE = TINY.replace(hidden_size=128, num_attention_heads=2)


def exported(directory: Path, precision: Precision = "fp32", **options: Any) -> Artifact:
    model = lively_model("question-answering", TINY)
    return lx.export("onnx", model, directory, precision=precision, attention="operator", **options)


def shared(exports: Exports, precision: Precision = "fp32", config: lx.LxmertConfig = TINY) -> Artifact:
    judged = config is TINY  # the wide ones are for TensorRT alone
    return exports.lively(
        "onnx", "question-answering", config, precision=precision, attention="operator", parity=judged
    )


@pytest.fixture(scope="module", params=["fp32", "fp16", "bf16"])
def graph(request: pytest.FixtureRequest, exports: Exports) -> Artifact:
    return shared(exports, request.param)


def test_it_passes_the_gate_on_every_family_and_is_counted_as_two_matmuls(graph: Artifact, exports: Exports) -> None:
    """Ragged masks and fully masked rows are among the families; fp16 and bf16 pass in emulation."""
    manifest, report = graph.manifest, graph.report
    assert report is not None and report.passed
    families = {family.name for family in sample_inputs(manifest.signature, manifest.config).families}
    assert {cell.family for cell in report.cells if cell.kind == "reference"} == families >= {"plain"}
    assert ("emulated" in {cell.arithmetic for cell in report.cells}) == (manifest.precision != "fp32")
    assert manifest.options["attention"] == "operator" and manifest.options["opset"] == 23
    facts = read_graph_facts(graph)
    plain = exports.lively("onnx", "question-answering", TINY, precision=manifest.precision)
    other = read_graph_facts(plain)
    assert facts is not None and other is not None and plain.manifest.options["attention"] == "decomposed"
    assert facts.operators["Attention"] == other.operators["Softmax"] == 4 and "Softmax" not in facts.operators
    assert (facts.matmuls, facts.matmul_weights) == (other.matmuls, other.matmul_weights)


@pytest.mark.parametrize("opset", [24, 25])
def test_opsets_and_fixed_axes(opset: int, tmp_path: Path) -> None:
    """Opset 23 is that of all others here."""
    artifact = exported(tmp_path / "out", opset=opset, fixed={"batch": 2, "text": 6, "objects": 5})
    assert artifact.report is not None and artifact.report.passed and artifact.manifest.options["opset"] == opset


def test_its_pieces_are_those_of_the_standard(exports: Exports, tmp_path: Path) -> None:
    """ONNX's own reference implementation of the operator, against the pieces that the emulator rounds."""
    graph = shared(exports)
    batch = sample_inputs(graph.manifest.signature, graph.manifest.config).families[0].batches[0]
    ir.save(load_decomposed(graph.file(ONNX_FILE)), tmp_path / "pieces.onnx", external_data="pieces.onnx.data")
    whole, pieces = (
        ReferenceEvaluator(onnx.load(path)).run(None, dict(batch))
        for path in (graph.file(ONNX_FILE), tmp_path / "pieces.onnx")
    )
    np.testing.assert_allclose(np.asarray(whole[0]), np.asarray(pieces[0]), rtol=1e-5, atol=1e-5)
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "pieces.onnx").graph.node)
    assert "Attention" not in operators and operators["Exp"] == 4


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_wrong_scale_fails_the_gate(precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = ir.node

    def scaled(operator: str, inputs: Any, attributes: Any = None, **options: Any) -> ir.Node:
        wrong = {"scale": attributes["scale"] * 2} if operator == "Attention" else attributes
        return node(operator, inputs, wrong, **options)

    monkeypatch.setattr("converters.onnx.attention.ir.node", scaled)
    with pytest.raises(ParityError, match=r"score \S+ is above"):
        exported(tmp_path / "out", precision)


def test_a_mask_that_is_added_in_fp16_as_it_is_fails_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-10000 plus a score keeps three digits of the score: a fully masked row shows it, and why the bias is shifted."""

    def unshifted(graph: ir.Graph, attention: Any) -> ir.Value:
        cast = ir.node("Cast", [attention.bias], {"to": int(ir.DataType.FLOAT16)})
        graph.insert_before(attention.last, cast)
        return cast.outputs[0]

    monkeypatch.setattr("converters.onnx.attention.shifted_bias", unshifted)
    with pytest.raises(ParityError, match="fully-masked|masked"):
        exported(tmp_path / "out", "fp16")


def test_the_linter_sees_what_is_inside(tmp_path: Path) -> None:
    """Scores beyond fp16's range never leave the operator."""
    model = lively_model("question-answering", TINY)
    for name in ("query", "key"):
        getattr(model.lxmert.language_layers[0].self_attention, name).weight.data *= 300
    artifact = lx.export("onnx", model, tmp_path / "out", precision="fp16", attention="operator", parity=False)
    assert any("self_attention/Attention/step" in name for name in largest_activations(artifact.file(ONNX_FILE), []))
    found = [finding for finding in lint_artifact(artifact) if finding.severity == "error"]
    assert {finding.rule for finding in found} == {"activation-overflow"}
    assert all(finding.module.startswith("lxmert.language_layers.0.self_attention") for finding in found[:1])


def test_an_attention_of_another_form_is_not_emulated(exports: Exports, tmp_path: Path) -> None:
    artifact = shared(exports, "fp16")
    model = ir.load(artifact.file(ONNX_FILE))
    next(n for n in model.graph if n.op_type == "Attention").attributes["softcap"] = ir.AttrFloat32("softcap", 1.0)
    ir.save(model, tmp_path / "capped.onnx")
    with pytest.raises(ArtifactError, match="is an Attention of another form"):
        write_emulated(tmp_path / "capped.onnx", tmp_path / "emulated.onnx", "fp16")


BUILT: list[tuple[Precision, lx.LxmertConfig]] = [("fp32", TINY), ("fp16", TINY), ("fp16", WIDE), ("bf16", WIDE)]


@pytest.mark.tensorrt
@pytest.mark.parametrize(("precision", "config"), BUILT, ids=["fp32", "fp16", "fp16-fused", "bf16-fused"])
def test_tensorrt_builds_it(precision: Precision, config: lx.LxmertConfig, exports: Exports, tmp_path: Path) -> None:
    """Heads of 64 in half precision have a fused kernel; all others are built as TensorRT takes the attention apart."""
    graph = shared(exports, precision, config)
    facts = read_graph_facts(graph)
    engine = lx.build_engine(graph.path, tmp_path / "out", compute_capability="8.9")
    options = engine.manifest.options
    assert facts is not None and options["attention"] == "operator"
    assert options["build"]["matmuls"] == facts.matmuls and set(facts.matmuls) == {precision}
    assert options["build"]["layers"]["attention_output"] == {precision: 4}


def test_without_leave_to_take_it_apart_tensorrt_builds_it_where_it_has_a_kernel(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.to_tensorrt.allow_decomposition", lambda library, network: None)
    fused, plain = (shared(exports, "fp16", WIDE).path, shared(exports, "fp32").path)
    lx.build_engine(fused, tmp_path / "fused", compute_capability="8.9")
    with pytest.raises(ConversionError, match="TensorRT cannot build the engine"):
        lx.build_engine(plain, tmp_path / "plain", compute_capability="8.9")


def test_a_device_builds_it_from_a_bundle(graph: Artifact, tmp_path: Path) -> None:
    """The script, and the line for those without Python, let TensorRT take it apart too."""
    bundle = lx.build_engine(graph.path, tmp_path / "sent", compute_capability="8.9", bundle=True)
    assert "'--decomposableAttentions=*'" in bundle.file("README.md").read_text()
    script = [sys.executable, str(bundle.file("build_and_verify.py")), "-o", str(tmp_path / "device")]
    found = subprocess.run(script, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    facts, report = read_graph_facts(graph), json.loads((tmp_path / "device" / "report.json").read_text())
    assert facts is not None and report["engine"]["matmuls"] == facts.matmuls


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "opset": ({"opset": 22}, "attention=.operator.: needs opset 23 or later, not 22"),
    "attentions": ({"attentions": True}, "attention=.operator.: gives no attention probabilities"),
    "islands": (
        {"fp32_islands": "auto", "precision": "fp16"},
        "fp32_islands=.auto.: an attention operator is one node",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_one_line(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=message) as told:
        exported(tmp_path / "out", **options)
    assert "\n" not in str(told.value) and not any(tmp_path.iterdir())


def test_only_onnx_has_it_and_only_by_its_names(tmp_path: Path) -> None:
    model = lively_model("question-answering", TINY)
    with pytest.raises(ConversionError, match="attention: not an option of fp32 tflite"):
        lx.export("tflite", model, tmp_path / "out", attention="operator")
    with pytest.raises(ConversionError, match="unknown attention 'flash'; choose from decomposed, operator"):
        lx.export("onnx", model, tmp_path / "out", attention="flash")  # type: ignore[arg-type]


def test_a_graph_without_such_an_attention_is_refused() -> None:
    from converters.onnx.attention import use_attention_operator

    with pytest.raises(ConversionError, match="the graph has no attention with a mask"):
        use_attention_operator(ir.Graph([], [], nodes=[]))


def test_a_tensorrt_that_does_not_know_it_is_left_out() -> None:
    assert str(resolve("thor").versions).startswith(">=10.13,")
    assert str(resolve("thor", opset=23).versions).startswith(">=10.14,")
    with pytest.raises(
        ConversionError, match=r"at most opset 20, and the graph has opset 23: .*the Attention operator needs opset 23"
    ):
        resolve("orin-jp6", opset=23)


def test_the_command(tmp_path: Path) -> None:
    lx.save_checkpoint(lively_model("question-answering", TINY), tmp_path / "small")
    found = run("onnx", "small", "--attention", "operator", "--no-parity", "-o", "out", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert open_artifact(tmp_path / "out").manifest.options["attention"] == "operator"
    refused = run("onnx", "small", "--attention", "operator", "--opset", "20", "-o", "out2", cwd=tmp_path)
    assert refused.returncode == 1 and "needs opset 23 or later" in refused.stderr
