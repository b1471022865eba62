"""Output classes read as Hugging Face's ModelOutput does."""

from __future__ import annotations

import itertools

import pytest
import torch
from transformers.models.lxmert import modeling_lxmert as theirs

from lxmert_export.model import outputs as ours
from lxmert_export.model.outputs import LxmertForPreTrainingOutput, LxmertForQuestionAnsweringOutput

pytestmark = pytest.mark.quick

THEIR_NAMES = ("LxmertModelOutput", "LxmertForPreTrainingOutput", "LxmertForQuestionAnsweringOutput")


@pytest.mark.parametrize("name", THEIR_NAMES)
def test_fields_have_upstream_names_and_order(name: str) -> None:
    mine = list(getattr(ours, name).__dataclass_fields__)
    others = list(getattr(theirs, name).__dataclass_fields__)
    assert mine[: len(others)] == others
    object_heads = [
        "object_logits",
        "attribute_logits",
        "feature_regression",
    ]  # ours alone: they come after all of them
    assert mine[len(others) :] == (object_heads if name == "LxmertForPreTrainingOutput" else [])


def test_reading_by_name_key_index_and_slice() -> None:
    output = LxmertForQuestionAnsweringOutput(loss=None, question_answering_score="score", language_attentions=("a",))  # type: ignore[arg-type]
    assert output.question_answering_score == output["question_answering_score"] == output[0] == "score"
    assert output[:2] == ("score", ("a",)) == output.to_tuple() == output.values()
    assert list(output) == ["question_answering_score", "language_attentions"] == list(output.keys())
    assert len(output) == 2
    assert "loss" not in output and "language_attentions" in output
    assert dict(output.items()) == {"question_answering_score": "score", "language_attentions": ("a",)}


@pytest.mark.parametrize("name", THEIR_NAMES)
def test_reads_as_theirs_whatever_is_absent(name: str) -> None:
    """Every subset of three fields: keys, values, integers, slices, length and membership."""
    fields = list(getattr(theirs, name).__dataclass_fields__)[:3]
    for present in itertools.product((False, True), repeat=3):
        values = {field: torch.tensor(n) for n, field in enumerate(fields) if present[n]}
        mine, other = getattr(ours, name)(**values), getattr(theirs, name)(**values)
        assert list(mine.keys()) == list(other.keys()) and list(mine) == list(other)
        assert mine.to_tuple() == other.to_tuple() == tuple(mine.values())
        assert list(mine.items()) == list(other.items())
        assert len(mine) == len(other)
        for places in (slice(None), slice(1, None), slice(0, 1), slice(-1, None)):
            assert mine[places] == other[places]
        for field in fields:
            assert (field in mine) == (field in other)
            assert getattr(mine, field) is getattr(other, field)


def test_nlvr2_output_has_loss_then_logits() -> None:
    assert ours.LxmertForNLVR2Output(loss=1, logits=2).to_tuple() == (1, 2)  # type: ignore[arg-type]
    tail = list(LxmertForQuestionAnsweringOutput.__dataclass_fields__)[2:]
    assert list(ours.LxmertForNLVR2Output.__dataclass_fields__)[2:] == tail


def test_absent_fields_cannot_be_read_by_key() -> None:
    with pytest.raises(KeyError):
        LxmertForPreTrainingOutput()["loss"]
    with pytest.raises(IndexError):
        LxmertForPreTrainingOutput()[0]
