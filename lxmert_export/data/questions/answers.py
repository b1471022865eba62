"""Reads a file of predicted answers, in the format that its data set's official program takes, or in ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lxmert_export.data.questions.rows import Row, read_rows
from lxmert_export.errors import InputError, shortened

WHAT = "answers"
TRUE_OR_FALSE: Mapping[str, str] = {"true": "True", "false": "False"}  # NLVR2 compares them whatever their case is


@dataclass(frozen=True)
class AnswerFormat:
    """A format of answers: the fields of the question's id and of the answer."""

    name: str
    id: str
    answer: str


FORMATS = (
    AnswerFormat("VQA's results", "question_id", "answer"),
    AnswerFormat("GQA's predictions", "questionId", "prediction"),
    AnswerFormat("NLVR2's predictions", "identifier", "prediction"),
    AnswerFormat("answers of one's own", "id", "answer"),
)
NLVR2 = FORMATS[2]
ID_FIELDS = frozenset(one.id for one in FORMATS)


def read_answers(path: str | Path) -> dict[str, str]:
    """Reads a file of answers: question id → answer, in the file's order. Its content tells the format, not its name.

    | format | what it is |
    |---|---|
    | VQA's results | a JSON list of question_id, answer |
    | GQA's predictions | a JSON list of questionId, prediction |
    | NLVR2's predictions | a CSV of identifier and True or False, without a header; the case does not matter |
    | answers of one's own | JSON lines or a CSV with a header: id, answer; other fields, such as probabilities, are not read |

    Each may also be JSON, JSON lines, or a CSV with a header. ``InputError``: one line with file, row and id: the file is none of
    these, was cut, a field is missing, or a question is answered twice.
    """
    rows = read_rows(Path(path), WHAT, no_header=(NLVR2.id, NLVR2.answer), named=ID_FIELDS).rows
    if not rows:
        raise InputError(f"{path}: holds no answers")
    found = _format_of(rows)
    places: dict[str, Row] = {}
    answers: dict[str, str] = {}
    for row in rows:
        id = row.identifier(found.id)
        answer = _answer(row, found, id)
        if id in places:
            other = "with the same answer" if answers[id] == answer else f"with {answers[id]!r} instead of {answer!r}"
            raise row.fault(f"is answered on {places[id].kind} {places[id].number}, too, {other}; remove one", id)
        places[id], answers[id] = row, answer
    return answers


def _format_of(rows: Sequence[Row]) -> AnswerFormat:
    """The format of the first row that has one: what a row before it lacks is told as that row's fault."""
    found = next((one for row in rows for one in FORMATS if one.id in row.values and one.answer in row.values), None)
    if found is None:
        known = "; ".join(f"{one.name}: {one.id}, {one.answer}" for one in FORMATS)
        has = shortened([str(field)[:40] for field in rows[0].values]) or "none"
        raise rows[0].fault(f"is no answer in a known format: its fields are {has}. Known are {known}")
    return found


def _answer(row: Row, format: AnswerFormat, id: str) -> str:
    answer = row.answer(format.answer, id)
    if format is not NLVR2:
        return answer
    if (word := TRUE_OR_FALSE.get(answer.strip().lower())) is None:
        raise row.fault(f"{format.answer} is {answer!r}, not True or False", id)
    return word
