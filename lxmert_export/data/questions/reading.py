"""Reads a file of questions: VQA, GQA, NLVR2, as published or as airsplay redistributed them, and files of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lxmert_export.data.questions.nlvr2_identifiers import parts_of
from lxmert_export.data.questions.question_set import Question, QuestionSet
from lxmert_export.data.questions.rows import Row, id_field, ids_of, read_rows
from lxmert_export.errors import InputError, as_given, shortened
from lxmert_export.option_names import option

WHAT = "questions"
DATASETS = ("vqa", "gqa", "nlvr2", "own")


@dataclass(frozen=True)
class QuestionFormat:
    """One format of questions: a row of the table below.

    ``fields``: a file whose first row has them is of this format. ``id``: the field of a question's id; None: the row's key, or
    in files of one's own the row's number. ``pictures``: the pictures' ids of a row with this question id. ``dataset``: of a
    row, as several data sets share a format.
    """

    name: str
    fields: frozenset[str]
    id: str | None
    text: str
    pictures: Callable[[Row, str], tuple[str, ...]]
    dataset: Callable[[Row], str]


def read_questions(path: str | Path, dataset: str | None = None) -> QuestionSet:
    """Reads a file of questions. Its content tells the format and the data set; ``dataset`` overrides the latter.

    | format | recognised by the fields of its first question |
    |---|---|
    | VQA v2, as published | question_id, image_id, question |
    | VQA or GQA, airsplay's | question_id, img_id, sent |
    | GQA, as published | imageId, question, under the question's id |
    | NLVR2, as published (JSON lines) | identifier, sentence |
    | NLVR2, airsplay's | identifier, img0, img1, sent |
    | one's own, JSON lines or CSV | image, question; id, answer if they are there |

    ``InputError``: one line with file, row and id: the file is none of these, was cut, or a question is unsound or there twice.
    """
    check_dataset(dataset)
    rows = read_rows(Path(path), WHAT, lists=("questions",)).rows
    if not rows:
        raise InputError(f"{path}: holds no questions")
    found = _format_of(rows)
    questions = tuple(
        Question(id, row.text(found.text, id), found.pictures(row, id))
        for id, row in zip(ids_of(rows, found.id), rows, strict=True)
    )
    _check_unique(rows, questions)
    numeric = _numeric_ids(rows, found)
    asked = dataset or found.dataset(rows[0])
    _check_pictures(Path(path), questions, asked)
    return QuestionSet(asked, questions, numeric, Path(path), found.name)


def check_dataset(dataset: str | None) -> None:
    """``InputError``: there is no such data set."""
    if dataset is not None and dataset not in DATASETS:
        raise InputError(f"{option('dataset')}: takes {', '.join(DATASETS)}, not {as_given(dataset)}")


def _format_of(rows: Sequence[Row]) -> QuestionFormat:
    """The format of the first row that has one: what a row before it lacks is told as that row's fault."""
    found = next((one for row in rows for one in FORMATS if _is_of(row, one)), None)
    if found is None:
        known = "; ".join(f"{one.name}: {', '.join(sorted(one.fields))}" for one in FORMATS)
        has = shortened([str(field)[:40] for field in rows[0].values]) or "none"
        raise rows[0].fault(f"is no question of a known format: its fields are {has}. Known are {known}")
    return found


def _is_of(row: Row, format: QuestionFormat) -> bool:
    return format.fields <= row.values.keys() and bool(format.id or row.key or format is OWN)


def _check_unique(rows: Sequence[Row], questions: Sequence[Question]) -> None:
    first: dict[str, int] = {}
    for place, question in enumerate(questions):
        earlier = first.setdefault(question.id, place)
        if earlier != place:
            same = "the same question" if questions[earlier] == question else "another question"
            where = f"{rows[earlier].kind} {rows[earlier].number}"
            raise rows[place].fault(f"the id stands on {where}, too, for {same}; remove one", question.id)


def _numeric_ids(rows: Sequence[Row], format: QuestionFormat) -> bool:
    """Whether the ids are numbers. ``InputError``: some are, and others are texts."""
    field = id_field(rows, format.id)
    if field is None:
        return rows[0].key is None  # a key is a text, a place is a number
    numeric = isinstance(rows[0].values.get(field), int)
    for row in rows:
        if isinstance(row.values.get(field), int) is not numeric:
            kinds = ("a text", "a number") if numeric else ("a number", "a text")
            what = f"{field} is {kinds[0]}, and that of {rows[0].kind} {rows[0].number} is {kinds[1]}; write all alike"
            raise row.fault(what, str(row.values.get(field)))
    return numeric


def _check_pictures(path: Path, questions: Sequence[Question], dataset: str) -> None:
    pictures = len(questions[0].pictures)
    if (dataset == "nlvr2") is not (pictures == 2):
        about = "two pictures, and these are" if dataset == "nlvr2" else "one picture, and these are"
        raise InputError(f"{path}: {option('dataset', dataset)}: its questions are about {about} about {pictures}")


def _one(field: str) -> Callable[[Row, str], tuple[str, ...]]:
    return lambda row, id: (row.identifier(field, id),)


def _two(row: Row, id: str) -> tuple[str, ...]:
    return row.identifier("img0", id), row.identifier("img1", id)


def _of_identifier(row: Row, id: str) -> tuple[str, ...]:
    """NLVR2's pictures are named after the question: those of dev-850-0-1 are dev-850-0-img0 and dev-850-0-img1."""
    stem = "-".join(parts_of(row, id)[:-1])
    return f"{stem}-img0", f"{stem}-img1"


def _vqa_or_gqa(row: Row) -> str:
    """Airsplay's files of both look alike: VQA's ids are numbers, and its pictures COCO's."""
    numeric = isinstance(row.values["question_id"], int)
    coco = str(row.values["img_id"]).startswith("COCO_")
    return "vqa" if numeric or coco or "question_type" in row.values else "gqa"


def _always(dataset: str) -> Callable[[Row], str]:
    return lambda row: dataset


OWN = QuestionFormat(
    "questions of one's own", frozenset(("image", "question")), None, "question", _one("image"), _always("own")
)
FORMATS = (
    QuestionFormat(
        "VQA v2's questions", frozenset(("question_id", "image_id", "question")), "question_id", "question",
        _one("image_id"), _always("vqa"),
    ),
    QuestionFormat(
        "airsplay's questions", frozenset(("question_id", "img_id", "sent")), "question_id", "sent", _one("img_id"),
        _vqa_or_gqa,
    ),
    QuestionFormat(
        "GQA's questions", frozenset(("imageId", "question")), None, "question", _one("imageId"), _always("gqa")
    ),
    QuestionFormat(
        "airsplay's NLVR2 questions", frozenset(("identifier", "img0", "img1", "sent")), "identifier", "sent", _two,
        _always("nlvr2"),
    ),
    QuestionFormat(
        "NLVR2's questions", frozenset(("identifier", "sentence")), "identifier", "sentence", _of_identifier,
        _always("nlvr2"),
    ),
    OWN,
)  # fmt: skip
