"""The ONNX file: right in every task, precision and opset; lean, readable, strictly valid, and the same bytes each time."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import lxmert_export as lx
from converters.to_onnx import IR_VERSIONS, OPSETS, convert_to_onnx, lean_graph, write_onnx
from lxmert_export.artifact.directory import ONNX_DATA_FILE, ONNX_FILE
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.graphs.onnx_facts import read_onnx_facts
from lxmert_export.model.signature_module import module_state
from lxmert_export.runners.onnx.session import OnnxRuntimeRunner
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import TASKS, Signature, Task, TensorSpec, task_signature
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import SMALL, TINY, lively_inputs, lively_model

LIMITS = InputLimits.of(TINY)


def export(task: Task, directory: Path, *, precision: str = "fp32", opset: int = 18, **options: Any) -> Signature:
    signature = task_signature(TINY, task, **options)
    convert_to_onnx(lively_model(task, TINY), signature, LIMITS, directory, precision=precision, opset=opset)
    return signature


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Signature]:
    directory = tmp_path_factory.mktemp("pretraining")
    return directory / ONNX_FILE, export("pretraining", directory, object_heads=True)


def every_output(task: Task, precision: lx.Precision) -> dict[str, bool]:
    """All outputs in float32, and for one task in every precision: an output of its own takes long to trace."""
    asked = precision == "fp32" or task == "model"
    return {"hidden_states": asked, "attentions": asked}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_every_task_and_precision_passes_its_gate(task: Task, precision: lx.Precision, exports: Exports) -> None:
    artifact = exports.lively("onnx", task, TINY, precision=precision, **every_output(task, precision))
    assert artifact.report is not None and artifact.report.passed
    outputs = {cell.output for cell in artifact.report.cells}
    assert outputs == {spec.name for spec in artifact.manifest.signature.outputs}
    facts = read_onnx_facts(artifact.path / ONNX_FILE)
    assert set(facts.matmuls) == set(facts.matmul_weights) == {precision}
    assert {spec.dtype for spec in artifact.manifest.signature.outputs} == {"float32"}


@pytest.mark.parametrize("opset", [OPSETS.start, 20, 23, OPSETS.stop - 1])
def test_opsets(opset: int, tmp_path: Path) -> None:
    signature = export("question-answering", tmp_path, precision="fp16", opset=opset)
    facts = read_onnx_facts(tmp_path / ONNX_FILE)
    assert (facts.opset, facts.ir_version) == (opset, IR_VERSIONS[opset])
    with OnnxRuntimeRunner(tmp_path / ONNX_FILE, signature, LIMITS, precision="fp16") as runner:
        inputs = {name: tensor.numpy() for name, tensor in lively_inputs(TINY).items()}
        wanted = lively_model("question-answering", TINY)(**lively_inputs(TINY)).question_answering_score
        np.testing.assert_allclose(runner.run(inputs)["question_answering_score"], wanted.detach().numpy(), atol=0.02)


@pytest.mark.parametrize("opset", [17, 26])
def test_opset_out_of_range(opset: int, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="choose 18 to 25"):
        export("model", tmp_path, opset=opset)


def test_an_opset_that_the_installed_onnx_does_not_know(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 24)
    with pytest.raises(
        ConversionError, match="opset 25 needs a newer onnx: .*, which is installed, knows opsets up to 24"
    ):
        lx.export("onnx", lively_model("model", TINY), tmp_path / "out", opset=25)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("task", "batch"), [("question-answering", 1), ("nlvr2", 16)])
def test_fixed_axes(task: Task, batch: int, tmp_path: Path) -> None:
    """A batch of 16 for the two numbers of a pair, which take 128 rows of each family: one call a row takes long."""
    model = lively_model(task, TINY)
    artifact = lx.export("onnx", model, tmp_path / "out", fixed={"batch": batch, "text": 9, "objects": 11})
    shapes = {value.name: value.shape for value in onnxruntime.InferenceSession(artifact.path / ONNX_FILE).get_inputs()}
    assert shapes["input_ids"] == [batch, 9]
    assert shapes["visual_feats"] == ([16, 2, 11, 16] if task == "nlvr2" else [1, 11, 16])
    assert artifact.report is not None and artifact.report.families_not_run == ()


def test_families_that_fixed_axes_are_too_small_for_are_not_run(tmp_path: Path) -> None:
    model = lively_model("question-answering", TINY)
    narrow = lx.export("onnx", model, tmp_path / "narrow", fixed={"text": 1, "objects": 1})
    assert narrow.report is not None and set(narrow.report.families_not_run) >= {"ragged", "two-tokens"}


def test_text_and_objects_are_independent(pretraining: tuple[Path, Signature]) -> None:
    path, signature = pretraining
    with OnnxRuntimeRunner(path, signature, LIMITS, precision="fp32") as runner:
        for rows, text, objects in ((1, 1, 1), (1, 32, 1), (4, 3, 50), (2, 7, 7)):
            output = runner.run({
                "input_ids": np.ones((rows, text), np.int32),
                "visual_feats": np.zeros((rows, objects, 16), np.float64),
                "visual_pos": np.zeros((rows, objects, 4), np.float32),
            })  # fmt: skip
            assert output["prediction_logits"].shape == (rows, text, 150)
            assert output["object_logits"].shape == (rows, objects, 9)


def test_strictly_valid_and_silent(pretraining: tuple[Path, Signature], capfd: pytest.CaptureFixture[str]) -> None:
    path, _ = pretraining
    onnx.checker.check_model(path, full_check=True)
    onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True, data_prop=True)
    onnxruntime.InferenceSession(path)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


@pytest.mark.parametrize("task", TASKS)
def test_a_conversion_warns_of_nothing(task: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """onnx_ir warns of every value that has a shape and no dtype; a user would see it."""
    export(task, tmp_path)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_lean(pretraining: tuple[Path, Signature]) -> None:
    path, signature = pretraining
    model = onnx.load(path)
    operators = Counter(node.op_type for node in model.graph.node)
    assert not set(operators) & {"Identity", "Constant", "Where", "Equal", "Expand", "ConstantOfShape", "Dropout", "If"}
    assert operators["Shape"] == 1  # the end of the positions
    # One additive bias a side: a cast of the integer mask, two subtractions, two products.
    masks = [node for node in model.graph.node if node.name.split("/")[0] == "lxmert"]
    assert Counter(n.op_type for n in masks) == {"Cast": 1, "Sub": 2, "Mul": 2, "Unsqueeze": 4, "Gather": 1, "Tanh": 1}
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    assert [value.name for value in model.graph.input] == [spec.name for spec in signature.inputs]


def test_shared_weights_are_stored_once(pretraining: tuple[Path, Signature]) -> None:
    path, _ = pretraining
    model = onnx.load(path, load_external_data=False)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    parameters = sum(p.numel() for p in lively_model("pretraining", TINY).parameters())
    constants = sum(size for name, size in sizes.items() if name.startswith("constant/"))
    assert sum(sizes.values()) - constants == parameters
    assert "lxmert.embeddings.word.weight" in sizes and "masked_language_head.decoder.weight" not in sizes


def test_unused_branches_and_their_weights_are_gone(tmp_path: Path) -> None:
    export("question-answering", tmp_path)
    names = {t.name for t in onnx.load(tmp_path / ONNX_FILE, load_external_data=False).graph.initializer}
    # Only [CLS] is pooled: what the last layer writes into vision is never read.
    assert "lxmert.cross_modality_layers.0.language_feed_forward.expand.weight" in names
    assert "lxmert.cross_modality_layers.0.vision_feed_forward.expand.weight" not in names


def test_one_data_file(pretraining: tuple[Path, Signature]) -> None:
    path, _ = pretraining
    assert {file.name for file in path.parent.iterdir()} == {ONNX_FILE, ONNX_DATA_FILE}
    places = {
        entry.value
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert places == {ONNX_DATA_FILE}


def test_names_say_the_module(pretraining: tuple[Path, Signature]) -> None:
    path, _ = pretraining
    graph = onnx.load(path, load_external_data=False).graph
    modules = {name for name, _ in lively_model("pretraining", TINY).named_modules()}
    assert len({node.name for node in graph.node}) == len(graph.node)
    for node in graph.node:
        module, _, operator = node.name.rpartition("/")
        assert operator.split("_")[0] == node.op_type
        assert module in modules
    assert not any(node.metadata_props or node.doc_string for node in graph.node)


def test_intermediate_axes_have_our_names(pretraining: tuple[Path, Signature]) -> None:
    path, _ = pretraining
    graph = onnx.load(path, load_external_data=False).graph
    symbols = {
        dim.dim_param
        for value in (*graph.input, *graph.output, *graph.value_info)
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_param
    }
    assert symbols == {"batch", "text", "objects"}


DEEP = TINY.replace(l_layers=2, x_layers=2)  # stacks, of which one layer is traced
WRITE = """
import sys
from pathlib import Path
from converters.to_onnx import convert_to_onnx
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.random_models import TINY, lively_model
config = TINY.replace(l_layers=2, x_layers=2)
module, signature = lively_model("model", config), task_signature(config, "model")
convert_to_onnx(module, signature, InputLimits.of(config), Path(sys.argv[1]), precision="fp16")
"""


def test_same_bytes_from_two_processes_and_directories(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "another" / "place"
    for place in (here, there):
        place.mkdir(parents=True)
    convert_to_onnx(lively_model("model", DEEP), task_signature(DEEP, "model"), LIMITS, here, precision="fp16")
    subprocess.run([sys.executable, "-c", WRITE, str(there)], check=True, cwd=Path(__file__).parent.parent.parent,
                   env={"PYTHONHASHSEED": "2", "HOME": str(there), "PATH": "", "OMP_NUM_THREADS": "1"})  # fmt: skip
    written = [[(place / file).read_bytes() for file in (ONNX_FILE, ONNX_DATA_FILE)] for place in (here, there)]
    assert written[0] == written[1]
    assert str(tmp_path).encode() not in written[0][0] and b"site-packages" not in written[0][0]


def test_half_precision_inputs_and_outputs_on_request(exports: Exports) -> None:
    artifact = exports.lively("onnx", "question-answering", TINY, precision="fp16", io_dtype="float16")
    assert artifact.report is not None and artifact.report.passed
    with lx.load_artifact(artifact.path) as runner:
        output = runner.run({name: tensor.numpy() for name, tensor in lively_inputs(TINY).items()})
    assert {array.dtype for array in output.values()} == {np.dtype(np.float16)}


def test_fp16_data_is_half_of_fp32(tmp_path: Path) -> None:
    # narrow layers have relatively more float32 LayerNorm parameters: full size is measured in benchmarks/
    wide = SMALL.replace(hidden_size=256, intermediate_size=1024, l_layers=1, x_layers=1, r_layers=1)
    sizes = {}
    for precision in ("fp32", "fp16"):
        (tmp_path / precision).mkdir()
        convert_to_onnx(lively_model("model", wide), task_signature(wide, "model"), InputLimits.of(wide),
                        tmp_path / precision, precision=precision)  # fmt: skip
        sizes[precision] = (tmp_path / precision / ONNX_DATA_FILE).stat().st_size
    assert sizes["fp16"] / sizes["fp32"] < 0.503


def test_bf16_needs_a_provider_with_kernels(exports: Exports) -> None:
    artifact = exports.lively("onnx", "question-answering", TINY, precision="bf16")
    with pytest.raises(ArtifactError, match="bf16 has no kernels in CPUExecutionProvider"):
        OnnxRuntimeRunner(artifact.file(ONNX_FILE), artifact.manifest.signature, LIMITS, precision="bf16")


def test_a_weight_beyond_fp16_is_named(tmp_path: Path) -> None:
    model = lively_model("model", TINY)
    model.pooler.weight.data[3, 4] = 1e5
    with pytest.raises(ConversionError, match="pooler.weight does not fit float16: its largest magnitude is 1e"):
        convert_to_onnx(model, task_signature(TINY, "model"), LIMITS, tmp_path, precision="fp16")


def test_what_keeps_a_weight_beyond_fp16_is_told_and_that_nothing_is_kept(tmp_path: Path) -> None:
    model = lively_model("question-answering", TINY)
    model.lxmert.pooler.weight.data[3, 4] = 1e5
    told = r'fp32_islands="auto" or fp32_islands="standard\+" can .*; keep_failed keeps nothing: no file was made'
    with pytest.raises(ConversionError, match=told):
        lx.export("onnx", model, tmp_path / "out", precision="fp16", keep_failed=tmp_path / "kept")
    assert not any(tmp_path.iterdir())


def test_a_small_weight_beyond_fp16_is_named(tmp_path: Path) -> None:
    model = lively_model("model", TINY)  # its bias is small enough to lie in the graph itself
    model.pooler.bias.data[3] = 1e5
    with pytest.raises(ConversionError, match="pooler.bias does not fit float16: its largest magnitude is 1e"):
        convert_to_onnx(model, task_signature(TINY, "model"), LIMITS, tmp_path, precision="fp16")


def test_one_graph_with_many_weights(tmp_path: Path) -> None:
    signature = task_signature(TINY, "pretraining")
    graph = lean_graph(lively_model("pretraining", TINY), signature, LIMITS, precision="fp32")
    inputs = lively_inputs(TINY)
    for seed in (1, 2):
        model = lively_model("pretraining", TINY, seed)
        write_onnx(graph, module_state(model), tmp_path)
        with OnnxRuntimeRunner(tmp_path / ONNX_FILE, signature, LIMITS, precision="fp32") as runner:
            got = runner.run({name: tensor.numpy() for name, tensor in inputs.items()})
        wanted = model(**inputs)
        for name, array in got.items():
            np.testing.assert_allclose(array, wanted[name].detach().numpy(), atol=1e-4)


class Retrieval(nn.Module):
    """A user's own model: the backbone, a head of his, a buffer, and inputs and outputs under his names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = lively_model("model", TINY)
        self.score = nn.Linear(TINY.hidden_size, 1)
        self.register_buffer("temperature", torch.tensor(0.5))

    def forward(self, input_ids: Tensor, visual_feats: Tensor, visual_pos: Tensor, prior: Tensor) -> dict[str, Tensor]:
        pooled = self.body(input_ids, visual_feats, visual_pos).pooled_output
        return {"match": self.score(pooled) / self.temperature + prior, "embedding": pooled}


RETRIEVAL = Signature(
    "retrieval",
    inputs=(
        TensorSpec("input_ids", "int64", ("batch", "text")),
        TensorSpec("visual_feats", "float32", ("batch", "objects", 16)),
        TensorSpec("visual_pos", "float32", ("batch", "objects", 4)),
        TensorSpec("prior", "float32", ("batch", 1)),
    ),
    outputs=(TensorSpec("embedding", "float32", ("batch", 32)), TensorSpec("match", "float32", ("batch", 1))),
)


def test_a_users_own_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Retrieval().eval()
    for precision in ("fp32", "fp16"):
        artifact = lx.export("onnx", module, tmp_path / precision, precision=precision, signature=RETRIEVAL)
        assert artifact.report is not None and artifact.report.passed
        assert lx.verify(artifact.path).passed
        names = {t.name for t in onnx.load(artifact.path / ONNX_FILE, load_external_data=False).graph.initializer}
        assert {"body.pooler.weight", "score.weight", "temperature"} <= names
    assert check_here([tmp_path / "fp32", tmp_path / "fp16"], checkpoint=module).passed
    assert module.body.config.output_attentions is False


class Glance(Retrieval):
    """Takes and gives the same, and does not call the backbone: tracing that takes most of an export's time."""

    def forward(self, input_ids: Tensor, visual_feats: Tensor, visual_pos: Tensor, prior: Tensor) -> dict[str, Tensor]:
        words = self.body.embeddings.word(input_ids).mean(dim=1)
        seen = torch.tanh(torch.cat((visual_feats, visual_feats), dim=-1) * visual_pos.mean(dim=-1, keepdim=True))
        pooled = torch.tanh(words * seen.mean(dim=1))
        return {"match": self.score(pooled) / self.temperature + prior, "embedding": pooled}


class WholeTimesFraction(Glance):
    """Multiplies whole numbers by a fraction, which PyTorch computes in floating point."""

    def forward(self, input_ids: Tensor, visual_feats: Tensor, visual_pos: Tensor, prior: Tensor) -> dict[str, Tensor]:
        first = input_ids.select(1, 0).unsqueeze(-1) * 0.5
        return super().forward(input_ids, visual_feats, visual_pos, prior + first)


class OverWords(Glance):
    """Divides by the number of words, which is an integer of the graph."""

    def forward(self, input_ids: Tensor, visual_feats: Tensor, visual_pos: Tensor, prior: Tensor) -> dict[str, Tensor]:
        return super().forward(input_ids, visual_feats, visual_pos, prior / input_ids.shape[1])


@pytest.mark.parametrize("module", [WholeTimesFraction, OverWords])
def test_operators_that_mix_dtypes_compute_as_in_pytorch(module: type[Retrieval], tmp_path: Path) -> None:
    artifact = lx.export("onnx", module().eval(), tmp_path / "out", signature=RETRIEVAL)
    assert artifact.report is not None and artifact.report.passed


def test_a_users_module_needs_a_signature_and_a_backbone(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="pass its signature"):
        lx.export("onnx", Retrieval(), tmp_path / "out")
    with pytest.raises(ConversionError, match="holds no LxmertModel"):
        lx.export("onnx", nn.Linear(2, 2), tmp_path / "out")


class Branching(Retrieval):
    """A model that cannot be traced: it looks at its numbers."""

    def forward(self, input_ids: Tensor, visual_feats: Tensor, visual_pos: Tensor, prior: Tensor) -> dict[str, Tensor]:
        if prior.sum() > 0:
            prior = prior * 2
        return super().forward(input_ids, visual_feats, visual_pos, prior)


def test_what_cannot_be_traced_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = r"Branching chooses by a value that it computes \(test_converter\.py, line \d+\), and a graph has no such choice"
    with pytest.raises(ConversionError, match=said) as caught:
        lx.export("onnx", Branching(), tmp_path / "out", signature=RETRIEVAL)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # PyTorch prints the graph so far
    assert not (tmp_path / "out").exists()
