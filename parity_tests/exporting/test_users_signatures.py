"""A user's own module and its signature: what is false in either is one line, before anything is converted."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lxmert_export as lx
from lxmert_export.errors import CheckpointError, ConversionError
from lxmert_export.exporting import write
from lxmert_export.reference.yardstick import Yardstick
from lxmert_export.spec.sample_inputs import sample_inputs
from lxmert_export.spec.signature import TASKS, Signature, TensorSpec
from parity_tests.fixtures.random_models import TINY, lively_model

WIDTH = 24
INPUTS = (
    TensorSpec("input_ids", "int64", ("batch", "text")),
    TensorSpec("visual_feats", "float32", ("batch", "objects", 16)),
    TensorSpec("visual_pos", "float32", ("batch", "objects", 4)),
)
LOGITS = TensorSpec("logits", "float32", ("batch", 7))
BEST = TensorSpec("best", "int64", ("batch",))
WORDS = TensorSpec("words", "float32", ("batch", "text", WIDTH))


class Small(nn.Module):
    """Its LXMERT says which ids it takes, and is not called, because tracing one takes most of an export's time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = lively_model("model", TINY)
        self.words = nn.Embedding(TINY.vocab_size, WIDTH)
        self.objects = nn.Linear(16, WIDTH)
        self.head = nn.Linear(WIDTH, 7)
        self.plain = torch.arange(7.0)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("counts", torch.zeros(2, dtype=torch.int64))

    def forward(self, input_ids: Tensor, visual_feats: Tensor, visual_pos: Tensor) -> dict[str, Tensor]:
        words = self.words(input_ids)
        pooled = torch.tanh(words.mean(dim=1) + self.objects(visual_feats).mean(dim=1))
        logits = self.changed(self.head(pooled), pooled, input_ids)
        return {"logits": logits, "best": logits.argmax(dim=-1), "words": words}

    def changed(self, logits: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        return logits


def signature(*outputs: TensorSpec, task: Any = "small", inputs: tuple[TensorSpec, ...] = INPUTS) -> Signature:
    return Signature(task, inputs, outputs or (LOGITS,))


def refused(module: nn.Module, given: Any, directory: Path, **options: Any) -> str:
    """Exports a module, which must fail, write nothing and say one line."""
    with pytest.raises(ConversionError) as caught:
        lx.export("onnx", module, directory / "out", signature=given, **options)
    assert not any(directory.iterdir())
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Squeezed(Small):
    def changed(self, logits: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        return logits.squeeze()


@pytest.mark.parametrize(
    ("module", "output", "said"),
    [
        (Small, replace(LOGITS, axes=("batch", 8)), r"logits .* \['batch', 8\], which is \[5, 8\] .* gives \[5, 7\] there"),
        (Small, replace(LOGITS, axes=("batch",)), r"which is \[5\] .* the module gives \[5, 7\]"),
        (Small, replace(LOGITS, axes=("text", 7)), r"which is \[3, 7\] .* the module gives \[5, 7\]"),
        (Small, replace(LOGITS, axes=("images", 7)), r"which is \[10, 7\] .* the module gives \[5, 7\]"),
        (Small, replace(WORDS, axes=("batch", "objects", WIDTH)), r"which is \[5, 7, 24\] .* the module gives \[5, 3, 24\]"),
        (Squeezed, LOGITS, r"which is \[1, 7\] at batch 1, .* the module gives \[7\] there"),
    ],
    ids=["width", "rank", "axis", "images", "objects", "squeezed"],
)  # fmt: skip
def test_a_false_shape_is_told_before_conversion(
    module: type[Small], output: TensorSpec, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_convert", lambda *_: pytest.fail("it was converted"))
    for parity in (True, False):
        assert re.search(said, refused(module().eval(), signature(output), tmp_path, parity=parity))


FEATURES = INPUTS[1]
FAULTS: dict[str, tuple[Any, str]] = {
    "dict": ({"task": "small"}, "it is of type dict; give an lx.Signature"),
    "task none": (signature(task=None), "its task is None; give it a name of your choice"),
    "task with a slash": (signature(task="a/b"), "its task is 'a/b'; give it a name"),
    "one output": (Signature("small", INPUTS, LOGITS), r"its outputs must be a tuple of TensorSpec"),  # type: ignore[arg-type]
    "no outputs": (Signature("small", INPUTS, ()), "it has no outputs"),
    "twice": (signature(LOGITS, LOGITS), "logits is there twice"),
    "input and output": (signature(replace(LOGITS, name="input_ids")), "input_ids is there twice"),
    "scalar": (signature(TensorSpec("rows", "int64", ())), "output rows has no axes: a single number; give it one"),
    "axis": (signature(replace(LOGITS, axes=("rows", 7))), "output logits has the axis 'rows'; an axis is batch, text, obj"),
    "word": (signature(replace(LOGITS, axes="batch")), r"output logits has the axes 'batch'; give a tuple"),  # type: ignore[arg-type]
    "size 0": (signature(replace(LOGITS, axes=("batch", 0))), "output logits has the axis 0"),
    "dtype": (signature(replace(LOGITS, dtype="float99")), "output logits has the dtype 'float99'; choose from float16,"),
    "names": (
        signature(inputs=(replace(INPUTS[0], name="ids"), replace(FEATURES, name="feats"))),
        "it has no input input_ids and visual_feats, by which words and objects are drawn for the gate; it has ids, feats",
    ),
    "words": (signature(inputs=(replace(INPUTS[0], axes=("text", "batch")), *INPUTS[1:])), "input_ids has the axes"),
    "boxes": (signature(inputs=(*INPUTS[:2], replace(INPUTS[2], axes=("batch", "objects", 5)))), r"beside .* 'objects', 4\]"),
    "features": (signature(inputs=(INPUTS[0], replace(FEATURES, axes=("batch", 16)))), "visual_feats has the axes"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_signature_is_one_line(name: str, tmp_path: Path) -> None:
    given, said = FAULTS[name]
    message = refused(Small().eval(), given, tmp_path)
    assert message.startswith("signature: ") and re.search(said, message)


def test_a_module_of_your_own_is_one_whatever_its_task_is_called(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """LXMERT's laws do not apply, and integers and other axes are no fault. Other libraries log nothing among our lines."""
    out, given = tmp_path / "out", signature(LOGITS, BEST, task="nlvr2")
    with caplog.at_level(logging.INFO):
        artifact = lx.export("onnx", Small().eval(), out, signature=given)
    assert {record.name for record in caplog.records if not record.name.startswith("lxmert_export")} == set()
    assert artifact.report is not None and artifact.report.passed
    assert lx.load_artifact(out).manifest.signature == replace(given, own_module=True)
    assert lx.verify(out).passed
    laws = lx.check_laws(out)
    assert laws.passed and {law.reason for law in laws.laws_not_run} == {
        "it is your own module, to which LXMERT's laws do not apply"
    }


@pytest.mark.parametrize("task", TASKS)
def test_a_signature_knows_whose_it_is(task: str) -> None:
    assert signature(task=task).lxmert_task == task
    own = replace(signature(task=task), own_module=True)
    assert own.lxmert_task is None and Signature.from_dict(own.to_dict()) == own
    assert signature(task="small").lxmert_task is None


class Nowhere(Small):
    def changed(self, logits: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        return logits * float("nan")


def test_a_module_that_is_finite_nowhere_is_not_told_to_leave_all_families_out(tmp_path: Path) -> None:
    said = refused(Nowhere().eval(), signature(), tmp_path)
    assert "gives NaN or infinity in float64 on all inputs: look at its weights" in said and "without" not in said


class MeanOfWords(Small):
    """Divides by the number of words that are seen."""

    def forward(self, attention_mask: Tensor, **inputs: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        seen = attention_mask.unsqueeze(-1).to(self.head.weight.dtype)
        return {"mean": (super().forward(**inputs)["words"] * seen).sum(dim=1) / seen.sum(dim=1)}


def test_families_can_be_left_out_whatever_the_task_is_called(tmp_path: Path) -> None:
    inputs = (*INPUTS, replace(INPUTS[0], name="attention_mask"))
    given = signature(TensorSpec("mean", "float32", ("batch", WIDTH)), task="model", inputs=inputs)
    said = refused(MeanOfWords().eval(), given, tmp_path)
    assert "on masked-row inputs: mend it, or leave them out with without_families=('masked-row',)" in said
    artifact = lx.export(
        "onnx", MeanOfWords().eval(), tmp_path / "out", signature=given, without_families=["masked-row"]
    )
    assert artifact.report is not None and artifact.report.passed  # a graph without any matmul is no fault


class OtherDtype(Small):
    def changed(self, logits: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        return self.head(pooled.float())  # type: ignore[no-any-return]


class Double(Small):
    """Right in float64 only."""

    def changed(self, logits: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        return self.head(pooled.double())  # type: ignore[no-any-return]


class TensorOfItsOwn(Small):
    def changed(self, logits: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        return logits + torch.ones(7)


class PlainTensor(Small):
    def changed(self, logits: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        return logits + self.plain


class BySize(Small):
    def changed(self, logits: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        return logits * 2 if ids.shape[1] > 3 else logits


class OneRow(Small):
    def changed(self, logits: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        return logits * 2 if ids.shape[0] == 1 else logits


class EachWord(Small):
    def changed(self, logits: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        for place in range(ids.shape[1]):
            logits = logits + place
        return logits


class Counting(Small):
    def changed(self, logits: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        self.calls += 1
        self.counts[0] += 1
        return logits * (1 + self.calls)


class Bounded(Small):
    """Asserts what holds for every size."""

    def changed(self, logits: Tensor, pooled: Tensor, ids: Tensor) -> Tensor:
        assert ids.shape[1] <= TINY.max_position_embeddings
        return logits


PLACE = r"test_users_signatures\.py, line \d+"
CODE = {
    OtherDtype: rf"computes with two dtypes \({PLACE}\): .* as in x\.to\(self\.head\.weight\.dtype\)",
    TensorOfItsOwn: rf"a tensor of its own on the CPU \({PLACE}\): make it with device=x\.device, or .* register_buffer",
    PlainTensor: rf"a tensor of its own on the CPU \({PLACE}\): make it with device=x\.device, or .* register_buffer",
    BySize: rf"BySize chooses by a size \({PLACE}\), and a graph holds one branch",
    OneRow: rf"OneRow chooses by a size \({PLACE}\), and a graph holds one branch",
    EachWord: rf"EachWord chooses by a size \({PLACE}\), and a graph holds one branch",
}  # fmt: skip


@pytest.mark.parametrize("module", CODE, ids=lambda module: module.__name__)
def test_code_that_no_graph_can_hold_is_told_with_its_line_and_the_mend(
    module: type[Small], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert re.search(CODE[module], refused(module().eval(), signature(), tmp_path))
    assert capfd.readouterr().err == ""


def test_other_precisions_than_the_references_are_told_too(tmp_path: Path) -> None:
    for parity in (True, False):
        for module in (OtherDtype(), Double()):
            said = refused(module.eval(), signature(), tmp_path, precision="fp16", parity=parity)
            assert "x.to(self.head.weight.dtype)" in said


def test_a_module_that_fails_as_the_reference_of_an_artifact_is_one_line() -> None:
    samples = sample_inputs(signature(), TINY)
    with pytest.raises(ConversionError, match=CODE[OtherDtype]):
        Yardstick(OtherDtype().eval(), TINY).reference(signature(), samples)


def test_a_size_that_is_only_asserted_is_no_choice(tmp_path: Path) -> None:
    lx.export("onnx", Bounded().eval(), tmp_path / "out", signature=signature(), parity=False)


def test_state_that_a_forward_pass_changes_is_named_and_yours_stays_as_it_was(tmp_path: Path) -> None:
    module = Counting().eval()
    said = refused(module, signature(), tmp_path)
    assert "Counting changes its buffer calls, counts in forward: state that changes between runs" in said
    assert not module.calls.any() and not module.counts.any()


def test_inputs_that_the_module_does_not_take_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    inputs = (INPUTS[0], replace(FEATURES, axes=("batch", "objects", 12)), INPUTS[2])
    said = refused(Small().eval(), signature(inputs=inputs), tmp_path)
    assert re.search(rf"Small fails on inputs of its signature: .* \({PLACE}\); .*visual_feats \[5, \d, 12\]", said)
    assert "required positional argument: 'visual_pos'" in refused(
        Small().eval(), signature(inputs=INPUTS[:2]), tmp_path
    )
    assert capfd.readouterr().err == ""


def stranger(name: str, package: str) -> Any:
    """An object of a class that some library defines."""
    return type(name, (nn.Module if package.startswith("transformers") else object,), {"__module__": package})()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: stranger("LxmertModel", "transformers.models.lxmert.modeling_lxmert"), "of the transformers library: save"),
        (lambda: stranger("Functional", "keras.src.models.functional"), "Functional is a Keras model: save it with save_pretr"),
        (lambda: 3, "int is no checkpoint: give a path, a name on the hub, or a PyTorch module"),
    ],
    ids=["transformers", "keras", "number"],
)  # fmt: skip
def test_models_of_other_libraries_are_told_what_to_do(make: Callable[[], Any], said: str, tmp_path: Path) -> None:
    for target in ("onnx", "tensorflow"):
        with pytest.raises(ConversionError, match=said):
            lx.export(target, make(), tmp_path / "out")
    with pytest.raises(CheckpointError, match="is no model of lxmert_export: give the one inside it"):
        lx.save_checkpoint(make(), tmp_path / "out")


def test_the_example_of_the_docs_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[2] / "docs" / "own-modules.md"
    monkeypatch.setattr(lx, "load_checkpoint", lambda *_, **__: lively_model("model", TINY))  # the demo takes a minute
    (example,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)  # the example's head is new
    exec(compile(example, str(page), "exec"), {"__name__": "example"})
    assert re.search(r"^parity passed: .*\n\[\d\]$", capsys.readouterr().out, re.MULTILINE)
