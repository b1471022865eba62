"""Tokenizer and label files that cannot be used are told when an artifact is exported, by the name of the user's file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lxmert_export as lx
from lxmert_export.artifact.companions import problem_of_labels
from parity_tests.fixtures.random_models import TINY, lively_model


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"0": "a"}, "is not a list of 3 different answers, but a dict"),
        (["a", "b"], "is not a list of 3 different answers: it holds 2"),
        (["a", "b", 7], "is not a list of 3 different answers: it holds 7, which is no text"),
        (["a", "b", "a"], "is not a list of 3 different answers: it holds 'a' 2 times"),
        (["a", "b", "c"], None),
    ],
)
def test_labels_that_name_no_answers_are_told(labels: object, told: str | None) -> None:
    assert problem_of_labels(labels, 3) == told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[", "is not JSON: "),
        ("", "is empty; copy or download it again"),
        (json.dumps(["a"]), f"is not a list of {TINY.num_qa_labels} different answers: it holds 1"),
    ],
)
def test_the_users_own_files_are_named(
    content: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "in"
    lx.save_checkpoint(lively_model("question-answering", TINY), place)
    (place / "labels.json").write_text(content)
    (place / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    lx.export("onnx", place, tmp_path / "out", parity=False)
    labels, tokenizer = (
        next(message for message in caplog.messages if word in message)
        for word in ("labels.json", "the tokenizer beside")
    )
    assert labels.startswith(f"{place / 'labels.json'}: {told}")
    assert labels.endswith("so the artifact cannot name its answers: correct the file or remove it, and export again")
    assert f"cannot be used: {place / 'vocab.txt'}: " in tokenizer
    with pytest.raises(
        lx.ArtifactError, match=r"correct labels\.json beside the checkpoint's weights, and export again"
    ):
        _ = lx.load_artifact(tmp_path / "out").labels
