"""Output classes read as Hugging Face's ModelOutput does."""

from __future__ import annotations

import pytest
from transformers.models.lxmert import modeling_lxmert as theirs

from lxmert_export import outputs as ours
from lxmert_export.outputs import LxmertForPreTrainingOutput, LxmertForQuestionAnsweringOutput


@pytest.mark.parametrize(
    "name", ["LxmertModelOutput", "LxmertForPreTrainingOutput", "LxmertForQuestionAnsweringOutput"]
)
def test_fields_have_upstream_names_and_order(name: str) -> None:
    mine = list(getattr(ours, name).__dataclass_fields__)
    others = list(getattr(theirs, name).__dataclass_fields__)
    assert mine[: len(others)] == others  # the object heads come after all of them


def test_reading_by_name_key_index_and_slice() -> None:
    output = LxmertForQuestionAnsweringOutput(loss=None, question_answering_score="score", language_attentions=("a",))  # type: ignore[arg-type]
    assert output.question_answering_score == output["question_answering_score"] == output[0] == "score"
    assert output[:2] == ("score", ("a",)) == output.to_tuple() == output.values()
    assert list(output) == ["question_answering_score", "language_attentions"] == list(output.keys())
    assert len(output) == 2
    assert "loss" not in output and "language_attentions" in output
    assert dict(output.items()) == {"question_answering_score": "score", "language_attentions": ("a",)}


def test_absent_fields_cannot_be_read_by_key() -> None:
    with pytest.raises(KeyError):
        LxmertForPreTrainingOutput()["loss"]
    with pytest.raises(IndexError):
        LxmertForPreTrainingOutput()[0]
