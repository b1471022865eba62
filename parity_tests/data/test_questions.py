"""Files of questions: each format is recognised by its content, and what is wrong in one is a line with file, row and id."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lxmert_export.data.questions.annotations import read_annotations
from lxmert_export.data.questions.question_set import COCO_SUBSETS
from lxmert_export.data.questions.reading import FORMATS, read_questions
from lxmert_export.errors import InputError
from parity_tests.data import question_files
from parity_tests.data.question_files import QUESTIONS

pytestmark = pytest.mark.quick

# data set, numeric ids, first id, pictures of the first question
EXPECTED = {
    "vqa": ("vqa", True, "262148000", ("262148",)),
    "airsplay_vqa": ("vqa", True, "262148000", ("COCO_val2014_000000262148",)),
    "gqa": ("gqa", False, "02930152", ("n0",)),
    "airsplay_gqa": ("gqa", False, "02930152", ("n0",)),
    "nlvr2": ("nlvr2", False, "dev-850-0-0", ("dev-850-0-img0", "dev-850-0-img1")),
    "airsplay_nlvr2": ("nlvr2", False, "dev-850-0-0", ("dev-850-0-img0", "dev-850-0-img1")),
    "own_lines": ("own", True, "1", ("photo0",)),
    "own_csv": ("own", True, "1", ("photo0",)),
}


@pytest.mark.parametrize("name", question_files.FORMATS)
def test_each_format_is_recognised_by_its_content(name: str, tmp_path: Path) -> None:
    path = question_files.FORMATS[name](tmp_path).rename(tmp_path / "file")
    found = read_questions(path)
    first = found.questions[0]
    assert (found.dataset, found.numeric_ids, first.id, first.pictures) == EXPECTED[name]
    assert tuple(one.text for one in found.questions) == QUESTIONS
    assert found.path == path


def test_every_format_of_the_table_has_a_file() -> None:
    assert EXPECTED.keys() == question_files.FORMATS.keys()
    assert len(FORMATS) == 6  # airsplay's of VQA and GQA are one, and so are both of one's own


def test_the_data_set_can_be_said(tmp_path: Path) -> None:
    assert read_questions(question_files.airsplay_gqa(tmp_path), "vqa").dataset == "vqa"
    with pytest.raises(
        InputError, match='dataset="nlvr2": its questions are about two pictures, and these are about 1'
    ):
        read_questions(question_files.vqa(tmp_path), "nlvr2")
    with pytest.raises(InputError, match="dataset: takes vqa, gqa, nlvr2, own, not 'okvqa'"):
        read_questions(question_files.vqa(tmp_path), "okvqa")


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"COCO_val2014_000000262148"}, "COCO_val2014_000000262148"),
        ({"COCO_train2014_000000262148"}, "COCO_train2014_000000262148"),
        ({"262148"}, "262148"),
        ({"000000262148"}, "000000262148"),
        ({"another"}, None),
    ],
)
def test_pictures_are_found_under_the_names_of_coco(known: set[str], expected: str | None, tmp_path: Path) -> None:
    """VQA's own files name a picture by its number; bottom-up-attention's features too, airsplay's do not."""
    found = read_questions(question_files.vqa(tmp_path))
    (picture,) = found.spelled_as_in(known).questions[0].pictures
    assert picture == (expected or found.questions[0].pictures[0])


def test_a_name_of_coco_never_stands_for_one_of_another_split(tmp_path: Path) -> None:
    found = read_questions(question_files.airsplay_vqa(tmp_path))
    (own,) = found.questions[0].pictures
    _, subset, number = own.split("_")
    for known, expected in (
        ({f"COCO_{other}_{number}" for other in COCO_SUBSETS} - {own}, own),
        ({str(int(number))}, str(int(number))),
        ({number, own}, own),
    ):
        assert found.spelled_as_in(known).questions[0].pictures == (expected,), subset


def test_a_number_of_two_pictures_is_refused(tmp_path: Path) -> None:
    found = read_questions(question_files.vqa(tmp_path))
    known = {f"COCO_{subset}_000000262148" for subset in ("train2014", "val2014")}
    with pytest.raises(InputError, match="picture 262148: the features hold COCO_train2014_.* and COCO_val2014_"):
        found.spelled_as_in(known)


def test_a_key_is_the_id_and_a_text(tmp_path: Path) -> None:
    """Answers would be written with a number that there is not. The key is the id of the true answer, too."""
    path = tmp_path / "mine.json"
    path.write_text('{"mine": {"id": 7, "image": "a", "question": "What?", "answer": "red"}}')
    found = read_questions(path)
    assert not found.numeric_ids and found.questions[0].id == "mine"
    annotations = read_annotations(found)
    assert annotations is not None and annotations.of == {"mine": "red"}


@pytest.mark.parametrize("lacking", [0, 1])
@pytest.mark.parametrize("field", ["id", "image"])
def test_a_row_that_lacks_what_the_others_have_is_told(field: str, lacking: int, tmp_path: Path) -> None:
    """In the first row, too: the others tell the format."""
    rows: list[dict[str, str]] = [{"id": id, "image": "a", "question": "What?"} for id in ("one", "two")]
    del rows[lacking][field]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(InputError, match=rf"line {lacking + 1}.*: {field} is missing"):
        read_questions(path)


def test_the_first_entry_of_vqa_without_a_picture_is_told(tmp_path: Path) -> None:
    path = question_files.vqa(tmp_path)
    values = json.loads(path.read_text())
    del values["questions"][0]["image_id"]
    path.write_text(json.dumps(values, indent=1))
    with pytest.raises(InputError, match=r"entry 1 \(question '262148000'\): image_id is missing"):
        read_questions(path)


def test_own_ids_and_empty_lines_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('id,image,question\n\nq7,a,"What is\nthis?"\nq9,b,Why?\n')
    found = read_questions(path)
    assert [one.id for one in found.questions] == ["q7", "q9"] and not found.numeric_ids
    assert found.questions[0].text == "What is\nthis?"


def _changed(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], str]:
    """A change to the questions of VQA's file."""

    def write(path: Path) -> str:
        values = json.loads(path.read_text())
        change(values["questions"])
        path.write_text(json.dumps(values))
        return path.name

    return write


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "same id, same question": (
        _changed(lambda rows: rows.append(dict(rows[0]))),
        r"entry 4 \(question '262148000'\): the id stands on entry 1, too, for the same question; remove one",
    ),
    "same id, another question": (
        _changed(lambda rows: rows[1].update(question_id=262148000)),
        r"entry 2 \(question '262148000'\): the id stands on entry 1, too, for another question; remove one",
    ),
    "an id that is a text": (
        _changed(lambda rows: rows[2].update(question_id="5")),
        r"entry 3 \(question '5'\): question_id is a text, and that of entry 1 is a number; write all alike",
    ),
    "the same id as text and as number": (
        _changed(lambda rows: rows[2].update(question_id="262148000")),
        r"entry 3 \(question '262148000'\): the id stands on entry 1, too",
    ),
    "an id that is no id": (
        _changed(lambda rows: rows[2].update(question_id=1.5)),
        r"entry 3: question_id is 1.5, not an id: a whole number or a text",
    ),
    "no question": (
        _changed(lambda rows: rows[1].pop("question")),
        r"entry 2 \(question '262148001'\): question is missing",
    ),
    "a question that is no text": (
        _changed(lambda rows: rows[1].update(question=None)),
        r"entry 2 \(question '262148001'\): question is None, not a text",
    ),
    "an empty question": (
        _changed(lambda rows: rows[1].update(question=" ")),
        r"entry 2 \(question '262148001'\): question is empty",
    ),
    "half a character": (
        _changed(lambda rows: rows[1].update(question="\ud83d")),
        r"entry 2 \(question '262148001'\): question holds half of a surrogate pair",
    ),
    "no picture": (
        _changed(lambda rows: rows[2].pop("image_id")),
        r"entry 3 \(question '262148002'\): image_id is missing",
    ),
    "a row that is no object": (
        _changed(lambda rows: rows.insert(1, 5)),  # type: ignore[arg-type]
        r"entry 2: is 5, not an object with named fields",
    ),
    "no questions": (_changed(lambda rows: rows.clear()), r"holds no questions"),
    "another file": (
        _bytes(lambda _: b'{"a": {"b": 1}}'),
        r"entry 1 \(question 'a'\): is no question of a known format: its fields are b. Known are VQA v2's questions: ",
    ),
    "not UTF-8": (
        _bytes(lambda content: content.replace(b"cat?", b"caf\xe9")),
        r"line 1: the questions cannot be read: byte \d+ is not UTF-8; save the file as UTF-8",
    ),
    "empty": (_bytes(lambda _: b""), r"the questions cannot be read: it is empty; copy or download it again"),
    "blank": (_bytes(lambda _: b" \r\n "), r"the questions cannot be read: it holds nothing but white space"),
    "cut": (
        _bytes(lambda content: content[:-30]),
        r"line 1: the questions cannot be read: it ends in the middle; copy or download it again",
    ),
    "not JSON": (
        _bytes(lambda content: content.replace(b"262148000", b"00", 1)),
        r"line 1: the questions cannot be read: Expecting ',' delimiter at line 1, column",
    ),
    "a key twice": (
        _bytes(lambda content: content.replace(b'"question_id"', b'"question"')),
        r"the questions cannot be read: it holds the key 'question' twice",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_with_file_row_and_id(fault: str, tmp_path: Path) -> None:
    path = question_files.vqa(tmp_path)
    plant, message = FAULTS[fault]
    plant(path)
    with pytest.raises(InputError, match=message) as caught:
        read_questions(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


LINES: dict[str, tuple[Callable[[Path], Path], Callable[[bytes], bytes], str]] = {
    "a line that was cut": (
        question_files.nlvr2, lambda content: content[:-20],
        r"line 3: is no JSON object: Unterminated string.*; was the line cut\?",
    ),
    "an identifier of another form": (
        question_files.nlvr2, lambda content: content.replace(b"dev-850-1-0", b"dev-850"),
        r"line 2 \(question 'dev-850'\): identifier is not of the form split-set-pair-sentence",
    ),
    "a field too many": (
        question_files.own_csv, lambda content: content.replace(b"raining?", b"raining?,5"),
        r"line 3: has 3 fields, not 2 \(image, question\)",
    ),
    "a quote that does not end": (
        question_files.own_csv, lambda content: content.replace(b"photo1", b'"photo1'),
        r"line 4: the questions cannot be read as CSV: unexpected end of data",
    ),
    "a column twice": (
        question_files.own_csv, lambda content: content.replace(b"image,question", b"image,image"),
        r"line 1: the questions cannot be read: the column 'image' stands there twice",
    ),
    "another table": (
        question_files.own_csv, lambda content: content.replace(b"image,question", b"picture,question"),
        r"line 2: is no question of a known format: its fields are picture, question",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", LINES)
def test_a_fault_in_a_line_is_told_with_its_number(fault: str, tmp_path: Path) -> None:
    write, change, message = LINES[fault]
    path = write(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=message) as caught:
        read_questions(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.json: the questions cannot be read: No such file or directory"):
        read_questions(tmp_path / "none.json")
