"""Tokenizer and label files that cannot be used are told when an artifact is exported, by the name of the user's file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lxmert_export as lx
from lxmert_export.artifact.companions import problem_of_labels
from lxmert_export.files.answer_names import answer_names, names_in
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


COUNT = TINY.num_qa_labels
ANSWERS = ["", *(f"answer {place}" for place in range(1, COUNT))]  # VQA's first answer is empty
OTHER_PROGRAMS = {
    "trainval_label2ans.json": ANSWERS,
    "label2ans.json": ANSWERS,
    "all_ans.json": [{"ans": answer, "dsets": ["vqa"]} for answer in ANSWERS],
}


@pytest.mark.parametrize("name", OTHER_PROGRAMS)
def test_other_programs_files_name_the_answers_too(name: str, tmp_path: Path) -> None:
    lx.save_checkpoint(lively_model("question-answering", TINY), tmp_path / "in")
    for other in OTHER_PROGRAMS:  # files of another head's answers lie beside it
        (tmp_path / "in" / other).write_text(json.dumps(ANSWERS[1:]))
    (tmp_path / "in" / name).write_text(json.dumps(OTHER_PROGRAMS[name]))
    lx.export("onnx", tmp_path / "in", tmp_path / "out", parity=False)
    assert list(lx.load_artifact(tmp_path / "out").labels) == ANSWERS


def test_the_config_may_name_the_answers(tmp_path: Path) -> None:
    lx.save_checkpoint(lively_model("question-answering", TINY), tmp_path / "in")
    config = json.loads((tmp_path / "in/config.json").read_text())
    named = {str(place): answer for place, answer in reversed(list(enumerate(ANSWERS)))}
    (tmp_path / "in/config.json").write_text(json.dumps({**config, "id2label": named}))
    lx.export("onnx", tmp_path / "in", tmp_path / "out", parity=False)
    assert list(lx.load_artifact(tmp_path / "out").labels) == ANSWERS


@pytest.mark.quick
@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["a", "b"], ["a", "b"]),
        ([{"ans": "a"}, {"ans": "b", "dsets": []}], ["a", "b"]),
        ({"0": "a", "1": "b"}, ["a", "b"]),
        ({1: "b", 0: "a"}, ["a", "b"]),
        ({"0": "a", "2": "b"}, None),
        (["a", 5], None),
        ([{"answer": "a"}], None),
        ("ab", None),
    ],
)
def test_names_are_found_in_every_form(values: object, names: list[str] | None) -> None:
    assert names_in(values) == names


@pytest.mark.quick
def test_names_that_transformers_made_up_are_no_names(tmp_path: Path) -> None:
    assert answer_names(tmp_path, 2, {"0": "LABEL_0", "1": "LABEL_1"}) is None
    assert answer_names(tmp_path, 2, {"0": "LABEL_0", "1": "cat"}) == ["LABEL_0", "cat"]


@pytest.mark.quick
def test_a_file_that_was_cut_is_told_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "label2ans.json").write_text('["a", "b')
    (tmp_path / "all_ans.json").write_text('[{"ans": "c"}]')
    assert answer_names(tmp_path, 1) == ["c"]
    assert caplog.messages == [
        f"{tmp_path / 'label2ans.json'}: the answers' names cannot be read, so the file is left out: "
        "Unterminated string starting at: line 1 column 7 (char 6)"
    ]
