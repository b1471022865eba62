"""Files of answers and annotations: recognised by their content; what is wrong is one line with file, row and id."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lxmert_export.data.questions.annotations import read_annotations, read_gqa_choices
from lxmert_export.data.questions.answers import read_answers
from lxmert_export.data.questions.reading import read_questions
from lxmert_export.errors import InputError
from parity_tests.data import question_files

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('[{"question_id": 5, "answer": "net"}, {"question_id": 6, "answer": ""}]', {"5": "net", "6": ""}),
        ('[{"questionId": "05", "prediction": "yes"}]', {"05": "yes"}),
        ("dev-1-0-0,true\ndev-1-1-0,FALSE\n", {"dev-1-0-0": "True", "dev-1-1-0": "False"}),
        ("identifier,prediction\r\ndev-1-0-0,True\r\n", {"dev-1-0-0": "True"}),
        ('{"id": 1, "answer": "a", "top": [["a", 0.9]]}\n{"id": 2, "answer": "b"}\n', {"1": "a", "2": "b"}),
        ('{"id": 1, "answer": "a", "top": [["a", 0.9]]}', {"1": "a"}),
        ("id,answer\nq1,cat\n", {"q1": "cat"}),
        ('\ufeff[{"question_id": 5, "answer": "net"}]', {"5": "net"}),
    ],
)
def test_answers_are_recognised_by_their_content(written: str, expected: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text(written, encoding="utf-8", newline="")
    assert read_answers(tmp_path / "file") == expected


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            '[{"question_id": 5, "answer": "net"}, {"question_id": "5", "answer": "net"}]',
            r"entry 2 \(question '5'\): is answered on entry 1, too, with the same answer; remove one",
        ),
        (
            '[{"question_id": 5, "answer": "net"}, {"question_id": 5, "answer": "pen"}]',
            r"entry 2 \(question '5'\): is answered on entry 1, too, with 'net' instead of 'pen'; remove one",
        ),
        ('[{"question_id": 5, "answer": 2}]', r"entry 1 \(question '5'\): answer is 2, not a text"),
        ('[{"question_id": 5, "answer": "a"}, {"question_id": 6}]', r"entry 2 \(question '6'\): answer is missing"),
        ('[{"question_id": 5, "answer": "a"}, {"answer": "b"}]', r"entry 2: question_id is missing"),
        (
            '[{"question": 5, "answer": "a"}]',
            r"entry 1: is no answer in a known format: its fields are question, answer",
        ),
        ("dev-1-0-0,maybe\n", r"line 1 \(question 'dev-1-0-0'\): prediction is 'maybe', not True or False"),
        ("dev-1-0-0,True\ndev-1-1-0\n", r"line 2: has 1 fields, not 2 \(identifier, prediction\)"),
        ("[]", "holds no answers"),
        ('[{"question_id": 5, "answer": "a"}', r"line 1: the answers cannot be read: it ends in the middle"),
        ("[1]", "entry 1: is 1, not an object with named fields"),
    ],
)
def test_faults_of_answers_are_told(written: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text(written)
    with pytest.raises(InputError, match=message) as caught:
        read_answers(tmp_path / "answers")
    assert str(caught.value).startswith(f"{tmp_path / 'answers'}: ") and "\n" not in str(caught.value)


KINDS = {"vqa": None, "airsplay_vqa": "labels", "gqa": "gqa", "airsplay_gqa": "labels", "nlvr2": "nlvr2",
         "airsplay_nlvr2": "nlvr2", "own_lines": None, "own_csv": None}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_the_questions_own_file_may_hold_the_annotations(name: str, tmp_path: Path) -> None:
    questions = read_questions(question_files.FORMATS[name](tmp_path))
    found = read_annotations(questions)
    assert (None if found is None else found.kind) == KINDS[name]
    if found is not None:
        assert list(found.of) == [one.id for one in questions.questions]


def test_a_test_split_of_airsplay_has_no_annotations(tmp_path: Path) -> None:
    path = question_files.airsplay_vqa(tmp_path)
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{name: row[name] for name in ("img_id", "question_id", "sent")} for row in rows]))
    assert read_annotations(read_questions(path)) is None


def vqa_annotations(folder: Path) -> Path:
    """VQA v2's annotations as published."""
    rows = [
        {
            "question_type": "what", "multiple_choice_answer": "net", "image_id": 262148, "question_id": 262148000 + place,
            "answers": [{"answer": "net", "answer_confidence": "maybe", "answer_id": number + 1} for number in range(10)],
            "answer_type": "other",
        }
        for place in range(4)
    ]  # fmt: skip
    path = folder / "annotations.json"
    path.write_text(json.dumps({"info": {}, "license": {}, "data_subtype": "val2014", "annotations": rows}))
    return path


def test_annotations_of_other_questions_are_left_out(tmp_path: Path) -> None:
    found = read_annotations(read_questions(question_files.vqa(tmp_path)), vqa_annotations(tmp_path))
    assert found is not None and list(found.of) == ["262148000", "262148001", "262148002"]
    assert found.of["262148000"].records == tuple(range(10))


def _of_annotations(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], tuple[Path, Path]]:
    def write(folder: Path) -> tuple[Path, Path]:
        path = vqa_annotations(folder)
        values = json.loads(path.read_text())
        change(values["annotations"])
        path.write_text(json.dumps(values))
        return question_files.vqa(folder), path

    return write


def _of_questions(name: str, change: Callable[[Any], object], place: int = 0) -> Callable[[Path], tuple[Path, Path]]:
    def write(folder: Path) -> tuple[Path, Path]:
        path = question_files.FORMATS[name](folder)
        values = json.loads(path.read_text())
        change(list(values.values() if isinstance(values, dict) else values)[place])
        path.write_text(json.dumps(values))
        return path, path

    return write


FAULTS: dict[str, tuple[Callable[[Path], tuple[Path, Path]], str]] = {
    "a question without": (
        _of_annotations(lambda rows: rows.pop(1)),
        r"has no annotation of 1 of the 3 questions of .*: 262148001; give the annotations of the same split",
    ),
    "a question twice": (
        _of_annotations(lambda rows: rows.append(rows[0])),
        r"entry 5 \(question '262148000'\): the question is annotated twice; remove one",
    ),
    "no answers": (
        _of_annotations(lambda rows: rows[1].update(answers=[])),
        r"entry 2 \(question '262148001'\): answers is missing or no list of answers",
    ),
    "an answer that is no object": (
        _of_annotations(lambda rows: rows[1].update(answers=["net"])),
        r"entry 2 \(question '262148001'\): answers: number 1 is no object whose answer is a text",
    ),
    "no type": (
        _of_annotations(lambda rows: rows[1].pop("answer_type")),
        r"entry 2 \(question '262148001'\): answer_type is missing",
    ),
    "the questions": (
        lambda folder: (question_files.vqa(folder),) * 2,
        r"entry 1: is no annotation of a known format: its fields are image_id, question, question_id. Known are vqa: ",
    ),
    "gqa, types": (
        _of_questions("gqa", lambda row: row["types"].pop("semantic")),
        r"entry 1 \(question '02930152'\): types.semantic is missing or no text",
    ),
    "gqa, entailed": (
        _of_questions("gqa", lambda row: row.update(entailed=[5])),
        r"entry 1 \(question '02930152'\): entailed is missing or no list of question ids",
    ),
    "gqa, semantic": (
        _of_questions("gqa", lambda row: row.pop("semantic")),
        r"entry 1 \(question '02930152'\): semantic is missing or no list of steps",
    ),
    "gqa, balanced": (
        _of_questions("gqa", lambda row: row.update(isBalanced=1)),
        r"entry 1 \(question '02930152'\): isBalanced is 1, not true or false",
    ),
    "gqa, not said whether balanced": (
        _of_questions("gqa", lambda row: row.pop("isBalanced"), 1),
        r"entry 2 \(question '02930153'\): isBalanced is None, not true or false",
    ),
    "nlvr2, no label": (
        _of_questions("airsplay_nlvr2", lambda row: row.pop("label"), 1),
        r"entry 2 \(question 'dev-850-1-0'\): label is None, not True or False",
    ),
    "nlvr2, another identifier": (
        _of_questions("airsplay_nlvr2", lambda row: row.update(identifier="7"), 1),
        r"entry 2 \(question '7'\): identifier is not of the form split-set-pair-sentence",
    ),
    "gqa, groups": (
        _of_questions("gqa", lambda row: row.update(groups={"global": 5})),
        r"entry 1 \(question '02930152'\): groups.global is 5, not a text or null",
    ),
    "a label that is no share": (
        _of_questions("airsplay_vqa", lambda row: row.update(label={"net": 3})),
        r"entry 1 \(question '262148000'\): label gives 'net' 3, not a number from 0 to 1",
    ),
    "a label that is neither true nor false": (
        _of_questions("airsplay_nlvr2", lambda row: row.update(label=2)),
        r"entry 1 \(question 'dev-850-0-0'\): label is 2, not True or False",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_annotations_are_told(fault: str, tmp_path: Path) -> None:
    write, message = FAULTS[fault]
    questions, annotations = write(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(read_questions(questions), annotations)
    assert str(caught.value).startswith(f"{annotations}: ") and "\n" not in str(caught.value)


def test_choices_that_are_no_lists_are_told(tmp_path: Path) -> None:
    (tmp_path / "choices.json").write_text('{"1": {"valid": ["a"], "plausible": "b"}}')
    with pytest.raises(InputError, match=r"entry 1 \(question '1'\): plausible is missing or no list of answers"):
        read_gqa_choices(tmp_path / "choices.json")


@pytest.mark.parametrize("lacking", [0, 1])
def test_one_missing_answer_is_told_wherever_it_is(lacking: int, tmp_path: Path) -> None:
    """In the first row, too: it does not make the file one without true answers."""
    rows: list[dict[str, str]] = [
        {"id": f"q{number}", "image": "a", "question": "What?", "answer": "red"} for number in (1, 2)
    ]
    del rows[lacking]["answer"]
    (tmp_path / "own.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(InputError, match=rf"line {lacking + 1} \(question 'q{lacking + 1}'\): answer is missing"):
        read_annotations(read_questions(tmp_path / "own.jsonl"))
