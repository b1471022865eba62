"""Modules as users hold them: wrapped ones are unwrapped, and what cannot be read is one line that says how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import lxmert_export as lx
from converters.onnx.choices_by_size import ChoicesBySize
from lxmert_export.errors import CheckpointError, ConversionError
from lxmert_export.model.lxmert import LxmertForQuestionAnswering
from lxmert_export.model.plain_modules import unwrapped, why_not_plain
from lxmert_export.spec.sample_inputs import FAMILY_KINDS
from lxmert_export.spec.signature import Signature, TensorSpec, task_signature
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.onnx.test_converter import RETRIEVAL, Retrieval

pytestmark = pytest.mark.quick


class Compiled(nn.Module):
    """Stands for what ``torch.compile(module)`` returns; the import behind it takes seconds."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module


class Packed(nn.Linear):
    """Stands for a quantised layer: known by the package of its class."""

    __module__ = "torch.ao.nn.quantized.dynamic.modules.linear"


def model() -> Any:
    return lively_model("question-answering", TINY)


def on_meta() -> Any:
    with torch.device("meta"):
        return LxmertForQuestionAnswering(TINY)


def pruned() -> Any:
    made = model()
    prune.l1_unstructured(made.lxmert.pooler, "weight", 0.3)
    return made


def parametrised() -> Any:
    made = model()
    parametrizations.weight_norm(made.lxmert.pooler)
    return made


def quantised() -> Any:
    made = model()
    made.lxmert.pooler = Packed(TINY.hidden_size, TINY.hidden_size)
    return made


NOT_PLAIN: dict[str, tuple[Callable[[], Any], str]] = {
    "meta": (on_meta, r"are on the meta device and hold no values \(lxmert.embeddings.word.weight, .* assign=True"),
    "pruned": (pruned, r"it is pruned \(lxmert.pooler\); torch.nn.utils.prune.remove makes that permanent"),
    "quantised": (quantised, r"it is quantised \(lxmert.pooler\); give the module before that"),
    "parametrised": (parametrised, r"it is parametrised \(lxmert.pooler\); torch.nn.utils.parametrize.remove_par"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_weights_that_cannot_be_read_are_one_line(name: str, tmp_path: Path) -> None:
    make, said = NOT_PLAIN[name]
    with pytest.raises(CheckpointError, match=said):
        lx.save_checkpoint(make(), tmp_path / "out")
    if name != "parametrised":  # which ONNX can hold: it is traced
        with pytest.raises(ConversionError, match=said) as caught:
            lx.export("onnx", make(), tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.tensorflow
def test_targets_that_copy_weights_by_name_refuse_parametrised_ones(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="it is parametrised"):
        lx.export("tflite", parametrised(), tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_plain_modules_pass() -> None:
    assert why_not_plain(model(), by_name=True) is None
    assert why_not_plain(parametrised()) is None


def test_wrappers_are_taken_off(tmp_path: Path) -> None:
    plain = model()
    for wrapped in (Compiled(plain), nn.DataParallel(plain), nn.DataParallel(Compiled(plain))):
        assert unwrapped(wrapped) is plain
    artifact = lx.export("onnx", nn.DataParallel(Compiled(plain)), tmp_path / "out", parity=False)
    assert (artifact.manifest.task, artifact.manifest.checkpoint["name"]) == (
        "question-answering",
        type(plain).__name__,
    )
    lx.save_checkpoint(Compiled(plain), tmp_path / "saved")  # type: ignore[arg-type]  # as a user would
    assert torch.equal(lx.load_checkpoint(tmp_path / "saved").lxmert.pooler.weight, plain.lxmert.pooler.weight)


GIVEN = task_signature(TINY, "question-answering")


@pytest.mark.parametrize(
    ("signature", "options", "said"),
    [
        (RETRIEVAL, {}, "signature: LxmertForQuestionAnswering has no input prior; it has input_ids, "),
        (
            Signature("question-answering", GIVEN.inputs, (TensorSpec("logits", "float32", ("batch", 2)),)),
            {},
            "has no output logits; it has question_answering_score",
        ),
        (
            task_signature(TINY.replace(visual_feat_dim=2048), "question-answering"),
            {},
            r"signature: input visual_feats has the axes \['batch', 'objects', 2048\]; those of .* \['batch', 'objects', 16\]",
        ),
        (
            task_signature(TINY, "question-answering", attentions=True),
            {"attention": "operator"},
            'attention="operator": gives no attention probabilities, which the signature names',
        ),
    ],
    ids=["input", "output", "width", "attentions"],
)  # fmt: skip
def test_what_a_signature_asks_for_in_vain_is_named(
    signature: Signature, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match=said):
        lx.export("onnx", model(), tmp_path / "out", signature=signature, **options)
    assert not any(tmp_path.iterdir())


class MeanOfWords(nn.Module):
    """Divides by the number of words that are seen: NaN in a row that masks them all. Of its LXMERT it takes the embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.body = lively_model("model", TINY)

    def forward(self, input_ids: Tensor, visual_feats: Tensor, visual_pos: Tensor, attention_mask: Tensor) -> Any:
        objects = self.body.visual_embeddings(visual_feats, visual_pos).mean(1, keepdim=True)
        words = self.body.embeddings.word(input_ids) + objects
        seen = attention_mask.unsqueeze(-1).to(words.dtype)
        return {"mean": (words * seen).sum(1) / seen.sum(1)}


def test_a_family_on_which_a_module_is_not_finite_can_be_left_out_by_name(tmp_path: Path) -> None:
    taken = ("input_ids", "visual_feats", "visual_pos", "attention_mask")
    inputs = tuple(spec for spec in task_signature(TINY, "model").inputs if spec.name in taken)
    signature = Signature("mean-of-words", inputs, (TensorSpec("mean", "float32", ("batch", TINY.hidden_size)),))  # type: ignore[arg-type]  # a task of its own
    module, out = MeanOfWords().eval(), tmp_path / "out"
    said = r"NaN or infinity in float64 on masked-row inputs: mend it, or leave them out with without_families=\('masked-row',\)"
    with pytest.raises(ConversionError, match=said):
        lx.export("onnx", module, out, signature=signature)
    assert not out.exists()
    artifact = lx.export("onnx", module, out, signature=signature, without_families=["masked-row"])
    for report in (artifact.report, lx.verify(out), lx.check_parity([out], checkpoint=module, time_limit=None)):
        assert report is not None and report.passed and report.cells
        assert report.families_not_run == ("masked-row",)
    assert artifact.manifest.options["without_families"] == ["masked-row"]
    for wrong in ("masked-row", ["masked"], list(FAMILY_KINDS)):
        with pytest.raises(ConversionError, match="without_families"):
            lx.export("onnx", module, tmp_path / "other", signature=signature, without_families=wrong)


class TreatsOneApart(Retrieval):
    """Doubles its embedding of a row alone, as ``squeeze`` and ``if len(x) == 1`` do by mistake."""

    def forward(self, input_ids: Tensor, visual_feats: Tensor, visual_pos: Tensor, prior: Tensor) -> dict[str, Tensor]:
        outputs = super().forward(input_ids, visual_feats, visual_pos, prior)
        return outputs if input_ids.shape[0] > 1 else {**outputs, "embedding": 2 * outputs["embedding"]}


def test_a_module_that_treats_one_row_apart_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate sees it, too, where tracing does not: in compiled code, for example."""
    monkeypatch.setattr(ChoicesBySize, "refuse", lambda *_: None)
    with pytest.raises(lx.ParityError) as caught:
        lx.export("onnx", TreatsOneApart().eval(), tmp_path / "out", signature=RETRIEVAL)
    assert {cell.family for cell in caught.value.report.cells if cell.status == "FAIL"} == {"plain"}
    assert not any(tmp_path.iterdir())
