"""`--optimize-for cuda`: few operators that compute what the checkpoint does, proven on a CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

import lxmert_export as lx
from converters.onnx.cuda.lengths import filled_sizes
from converters.to_onnx import lean_graph
from lxmert_export.api.inspect import inspect_artifact, inspect_lint, summary_rows
from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.artifact.session_settings import CUDA_OPTIONS, CUDA_PROVIDER
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.graphs.onnx_decomposition import load_decomposed
from lxmert_export.graphs.onnx_launches import MICROSOFT, count_launches
from lxmert_export.judging.artifact import JudgingRequest, judge_artifact
from lxmert_export.parity.cells import Floors
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.report import ParityReport
from lxmert_export.reference.yardstick import run_floors, run_reference
from lxmert_export.runners import opening
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Precision, Task, task_signature
from parity_tests.faults.fused_faults import FUSED_FAULTS, overflow
from parity_tests.faults.onnx_faults import plant_in_file
from parity_tests.fixtures.command import run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_model

# Two cross layers: of the last one, an answer needs one direction only.
CONFIG = TINY.replace(x_layers=2)
FIXED = {"batch": 20, "text": 6, "objects": 5}  # so many rows that a family takes few calls
QA: Task = "question-answering"


def fused(exports: Exports, precision: Precision, **options: Any) -> Artifact:
    return exports.lively("onnx", QA, CONFIG, precision=precision, optimize_for="cuda", fixed=FIXED, **options)


@pytest.fixture(scope="module", params=["fp32", "fp16", "bf16"])
def artifact(request: pytest.FixtureRequest, exports: Exports) -> Artifact:
    return fused(exports, request.param)


def test_it_passes_the_gate_on_every_family(artifact: Artifact) -> None:
    """Rows whose every key is masked are among them. Packed attentions have no kernel on a CPU: they are emulated alone."""
    report, precision = artifact.report, artifact.manifest.precision
    assert report is not None and report.passed
    drawn = {family.name for family in artifact.drawn_inputs().families}
    assert {cell.family for cell in report.cells if cell.kind == "reference"} == drawn >= {"ragged", "masked-row"}
    assert {cell.arithmetic for cell in report.cells} == {"native" if precision == "fp32" else "emulated"}


def test_its_manifest_says_what_runs_it(artifact: Artifact) -> None:
    options = artifact.manifest.options
    assert options["optimize_for"] == "cuda" and options["provider_options"] == {CUDA_PROVIDER: CUDA_OPTIONS}
    assert "session_settings" not in options
    filled = {"batch": 20, "text": 8, "objects": 8}
    assert options["filled"] == filled and options["launches"]["on_cpu"] == {}


def test_its_operators_are_few(artifact: Artifact) -> None:
    operators = Counter(
        node.op_type for node in onnx.load(artifact.file(ONNX_FILE), load_external_data=False).graph.node
    )
    attention = "Attention" if artifact.manifest.precision == "fp32" else "MultiHeadAttention"
    # language, vision; the first cross layer: both directions as one, two self-attentions; the last: one direction, one
    assert operators[attention] == 7 and not {"Softmax", "Erf", "Transpose"} & set(operators)
    assert operators["BiasGelu"] == 6 and operators["SkipLayerNormalization"] == 13
    assert operators["Cast"] <= 12
    rows = dict(summary_rows(inspect_artifact(artifact.path)))
    assert "kernel launches" in rows and "runs in" not in rows
    precision = artifact.manifest.precision
    assert rows["matmuls"] == f"{rows['matmuls'].split()[0]} of {rows['matmuls'].split()[0]} compute in {precision}"


def test_operations_are_counted_in_it(artifact: Artifact) -> None:
    """More than the checkpoint's own: sequences are filled up, and a joint cross attention scores more pairs than it needs."""
    flops = artifact.manifest.flops
    assert flops is not None and flops["checkpoint"] < flops["file"] < 2 * flops["checkpoint"]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_cpu_runs_it_in_emulation_alone(precision: Precision, exports: Exports, tmp_path: Path) -> None:
    artifact = fused(exports, precision)
    report = lx.verify(artifact.path)
    assert report.passed
    assert (
        f"{artifact.name}: computed by the emulator: CPU has no kernels for its operators in {precision}"
        in report.notes
    )
    with pytest.raises(ArtifactError, match="run it @cuda, on an NVIDIA GPU") as told:
        lx.load_artifact(artifact.path)
    assert "\n" not in str(told.value)
    with pytest.raises(ArtifactError, match="TensorRT does not know onnxruntime's own operators"):
        lx.build_engine(artifact.path, tmp_path / "engine")


@pytest.mark.parametrize("command", ["predict", "evaluate", "ask"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_answers_are_never_the_emulators(
    command: str, precision: Precision, exports: Exports, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before features or pictures are read."""
    made = exports.demo("onnx", task=QA, precision=precision, optimize_for="cuda", parity=False)
    monkeypatch.setattr(opening, "open_emulator", mock.Mock(side_effect=AssertionError("emulated")))
    features, questions, output = tmp_path / "gone.tsv", tmp_path / "asked.jsonl", tmp_path / "answers.json"
    questions.write_text('{"image": "1", "question": "how many?", "answer": "2"}\n', encoding="utf-8")
    calls: dict[str, Callable[[], Any]] = {
        "predict": lambda: lx.predict(made.path, features, questions, output),
        "evaluate": lambda: lx.evaluate([made.path, "gone.jsonl"], questions=questions, features=features),
        "ask": lambda: lx.ask(made.path, "how many?", tmp_path / "gone.png"),
    }
    with pytest.raises(ArtifactError, match="run it @cuda, on an NVIDIA GPU") as told:
        calls[command]()
    assert "\n" not in str(told.value) and not output.exists()


@pytest.mark.parametrize("runtime", ["openvino", "openvino-bf16"])
def test_openvino_refuses_it_in_every_precision(
    runtime: str, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "open_emulator", mock.Mock(side_effect=AssertionError("emulated")))
    named = f"{artifact.path}@{runtime}"
    where = "@onnxruntime or @cuda" if artifact.manifest.precision == "fp32" else "@cuda"
    calls: tuple[Callable[[], Any], ...] = (
        lambda: lx.verify(named),
        lambda: lx.check_parity([named], checkpoint=lively_model(QA, CONFIG)),
        lambda: lx.predict(named, "features.tsv", "questions.json", "answers.json"),
        lambda: lx.load_artifact(artifact.path, runtime=runtime),
    )
    for call in calls:
        with pytest.raises(ArtifactError, match=f"for onnxruntime alone: export it again without, or run it {where}"):
            call()


def test_the_float32_file_runs_on_a_cpu(exports: Exports) -> None:
    artifact = fused(exports, "fp32")
    batch = artifact.drawn_inputs().families[0].batches[0]
    with lx.load_artifact(artifact.path) as runner:
        assert np.isfinite(runner.run(batch)["question_answering_score"]).all()


def test_nine_five_five_layers_launch_at_most_300_kernels() -> None:
    """As many as at full size, where a layer is only wider; `python -m benchmarks.launches` counts that."""
    config = TINY.replace(l_layers=9, r_layers=5, x_layers=5)
    sizes = {"batch": 1, "text": 20, "objects": 36}
    whole, filled = (task_signature(config, QA, fixed=fixed) for fixed in (sizes, filled_sizes(sizes, "fp16", 32)))
    model = lean_graph(
        lively_model(QA, config), whole, InputLimits.of(config), precision="fp16", for_cuda=True, filled=filled
    )
    for value in model.graph.initializers.values():  # the weights are not written: their places are enough
        assert value.dtype is not None and value.shape is not None and value.name is not None
        value.const_value = value.const_value or ir.ExternalTensor(
            "nowhere", 0, 1, value.dtype, shape=value.shape, name=value.name, base_dir="."
        )
    found = count_launches(ir.to_proto(model))
    assert found.total <= 300 and found.on_cpu == {} and found.by_operator["Cast"] <= 12
    assert found.by_operator["MultiHeadAttention"] == 2 * 28


OTHERS: dict[str, tuple[Task, Precision, dict[str, Any]]] = {
    "any lengths": ("model", "fp16", {"hidden_states": True}),
    "heads and states": ("pretraining", "fp16", {"fixed": FIXED, "object_heads": True, "hidden_states": True}),
    "pairs in halves": ("nlvr2", "fp32", {"fixed": FIXED, "split": True}),
}


@pytest.mark.parametrize(("task", "precision", "options"), OTHERS.values(), ids=OTHERS)
def test_every_task(task: Task, precision: Precision, options: dict[str, Any], tmp_path: Path) -> None:
    artifact = lx.export(
        "onnx", lively_model(task, TINY), tmp_path / "out", precision=precision, optimize_for="cuda", **options
    )
    assert artifact.report is not None and artifact.report.passed
    assert "Softmax" not in artifact.manifest.options["operators"]
    if "fixed" not in options:
        assert "Shape" in artifact.manifest.options["launches"]["on_cpu"]


@dataclass(frozen=True)
class Judge:
    """A sound artifact, and what faulty copies of it are judged by."""

    artifact: Artifact
    reference: Recording
    floors: Floors

    def report_on(self, directory: Path) -> ParityReport:
        manifest = replace(self.artifact.manifest, files={})
        unlisted = replace(self.artifact, path=directory, identity=None, manifest=manifest)
        request = JudgingRequest(unlisted, unlisted.drawn_inputs(), self.reference, self.floors, (CPU,))
        return ParityReport(tuple(judge_artifact(request).cells))


def judge_of(artifact: Artifact, model: Any) -> Judge:
    signature, samples = artifact.manifest.signature, artifact.drawn_inputs()
    reference = run_reference(model, signature, CONFIG, samples)
    floors = run_floors(model, signature, CONFIG, samples, reference, artifact.manifest.precision)
    return Judge(artifact, reference, floors)


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def judge(request: pytest.FixtureRequest, exports: Exports) -> Judge:
    return judge_of(fused(exports, request.param), lively_model(QA, CONFIG))


def test_the_sound_file_passes_by_the_same_judge(judge: Judge, tmp_path: Path) -> None:
    plant_in_file(judge.artifact.file(ONNX_FILE), tmp_path / ONNX_FILE, lambda graph: None)
    assert judge.report_on(tmp_path).passed


@pytest.mark.parametrize("fault", FUSED_FAULTS)
def test_planted_faults_fail_the_gate(fault: str, judge: Judge, tmp_path: Path) -> None:
    plant_in_file(judge.artifact.file(ONNX_FILE), tmp_path / ONNX_FILE, FUSED_FAULTS[fault])
    assert not judge.report_on(tmp_path).passed


def test_an_overflow_inside_a_fused_attention_fails_in_fp16_alone(judge: Judge, tmp_path: Path) -> None:
    plant_in_file(judge.artifact.file(ONNX_FILE), tmp_path / ONNX_FILE, overflow)
    report, half = judge.report_on(tmp_path), judge.artifact.manifest.precision == "fp16"
    assert report.passed != half
    assert not half or any(cell.reason == "NaN or infinity" for cell in report.failures)


def test_sums_in_half_precision_fail_where_strict_mode_does_not(tmp_path: Path) -> None:
    """A residual of some thousands, whose squares fp16 cannot hold; the norm after it takes the factor out again."""
    model, factor = lively_model(QA, CONFIG), 2.0**11
    layer = model.lxmert.language_layers[0]
    for parameter in (layer.self_attention.layer_norm.weight, layer.self_attention.layer_norm.bias):
        parameter.data *= factor
    layer.feed_forward.expand.weight.data /= factor
    for parameter in (layer.feed_forward.contract.weight, layer.feed_forward.contract.bias):
        parameter.data *= factor
    artifact = lx.export("onnx", model, tmp_path / "out", precision="fp16", optimize_for="cuda", fixed=FIXED)
    assert artifact.report is not None and artifact.report.passed
    strict = judge_of(artifact, model)
    options = {**artifact.manifest.options, "provider_options": {}}
    plain = replace(strict, artifact=replace(artifact, manifest=replace(artifact.manifest, options=options)))
    assert strict.report_on(artifact.path).passed and not plain.report_on(artifact.path).passed


def test_the_linter_and_locating_look_inside(exports: Exports) -> None:
    artifact = fused(exports, "fp16")
    assert not [found for found in inspect_lint(artifact.path) if found["severity"] == "error"]
    model = lively_model(QA, CONFIG)
    sound = lx.locate(artifact.path, model)
    assert sound.layer is None and sound.points > sound.points_known / 2
    model.lxmert.vision_layers[0].feed_forward.expand.bias.data += 1
    found = lx.locate(artifact.path, model)
    assert (found.layer, found.family) == ("vision_layers.0", "expand")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "int8": ({"precision": "int8"}, "optimize_for=.cuda.: its fused operators compute in floating point"),
    "attentions": ({"attentions": True}, "optimize_for=.cuda.: a fused attention gives no probabilities"),
    "attention": ({"attention": "operator"}, "optimize_for=.cuda.: writes attentions in the form"),
    "islands": ({"precision": "fp16", "fp32_islands": "auto"}, "fp32_islands=.auto.: a fused operator is one node"),
    "opset": ({"opset": 22}, "optimize_for=.cuda.: fp32 needs opset 23 or later, not 22"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_one_line(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=message) as told:
        lx.export("onnx", lively_model(QA, TINY), tmp_path / "out", optimize_for="cuda", **options)
    assert "\n" not in str(told.value) and not any(tmp_path.iterdir())


def test_engines_refuse_it_with_the_reason(tmp_path: Path) -> None:
    found = run("tensorrt", "demo", "--optimize-for", "cuda", "-o", "out", cwd=tmp_path)
    assert found.returncode == 1 and "TensorRT does not know its operators" in found.stderr
    assert "--optimize-for" not in run("tensorrt", "--help", cwd=tmp_path).stdout


def operator(name: str, shapes: dict[str, list[int]], result: list[int], **attributes: Any) -> onnx.ModelProto:
    """A float32 model of one fused operator; an input called - is left out."""
    given = {key: shape for key, shape in shapes.items() if not key.startswith("-")}
    inputs = [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in given.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, result)
    names = ["" if key.startswith("-") else key for key in shapes]
    node = helper.make_node(name, names, ["y"], f"a.module/{name}", domain=MICROSOFT, **attributes)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(helper.make_graph([node], "g", inputs, [output]), opset_imports=opsets, ir_version=8)


def decomposed(model: onnx.ModelProto, place: Path) -> onnx.ModelProto:
    onnx.save(model, place / "fused.onnx")
    return ir.to_proto(load_decomposed(place / "fused.onnx"))


def computed(model: onnx.ModelProto, given: dict[str, Any]) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[CPU])
    return session.run(None, given)[0]


ALONE: dict[str, tuple[dict[str, list[int]], dict[str, Any]]] = {
    "BiasGelu": ({"x": [2, 3, 8], "b": [8]}, {}),
    "SkipLayerNormalization": ({"x": [2, 3, 8], "s": [2, 3, 8], "g": [8], "h": [8], "b": [8]}, {"epsilon": 1e-12}),
}


@pytest.mark.parametrize("name", ALONE)
def test_the_pieces_of_an_operator_compute_what_onnxruntimes_kernel_does(name: str, tmp_path: Path) -> None:
    shapes, attributes = ALONE[name]
    model, generator = operator(name, shapes, [2, 3, 8], **attributes), np.random.default_rng(0)
    given = {key: generator.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    np.testing.assert_allclose(
        computed(decomposed(model, tmp_path), given), computed(model, given), rtol=2e-5, atol=2e-6
    )


def test_a_packed_attention_is_the_unpacked_one_of_onnxruntime(tmp_path: Path) -> None:
    """The packed form [B, S, N, 3, D] has no kernel on a CPU; that of three inputs has one, with the bias in the same order."""
    batch, tokens, heads, size = 2, 5, 3, 4
    width, generator = heads * size, np.random.default_rng(0)
    packed = generator.standard_normal((batch, tokens, heads, 3, size)).astype(np.float32)
    bias = generator.standard_normal(3 * width).astype(np.float32)
    mask = generator.standard_normal((batch, 1, tokens, tokens)).astype(np.float32)
    attributes = {"num_heads": heads, "scale": 0.7}
    three = {name: [batch, tokens, width] for name in "qkv"}
    shapes = {**three, "bias": [3 * width], "-p": [], "mask": list(mask.shape)}
    plain = operator("MultiHeadAttention", shapes, [batch, tokens, width], **attributes)
    parts = {name: packed[..., place, :].reshape(batch, tokens, width) for place, name in enumerate("qkv")}
    wanted = computed(plain, {**parts, "bias": bias, "mask": mask})
    whole = {"packed": list(packed.shape), "-k": [], "-v": [], "bias": [3 * width], "-p": [], "mask": list(mask.shape)}
    model = operator("MultiHeadAttention", whole, [batch, tokens, width], **attributes)
    found = computed(decomposed(model, tmp_path), {"packed": packed, "bias": bias, "mask": mask})
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
