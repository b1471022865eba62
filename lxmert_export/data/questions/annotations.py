"""The true answers to questions, as the data sets publish them, and as airsplay redistributed them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxmert_export.data.questions.answers import TRUE_OR_FALSE
from lxmert_export.data.questions.nlvr2_identifiers import parts_of
from lxmert_export.data.questions.question_set import QuestionSet
from lxmert_export.data.questions.rows import Row, ids_of, read_rows
from lxmert_export.errors import InputError, as_given, shortened

WHAT = "annotations"
AIRSPLAY_TRUTH = ("False", "True")  # what airsplay's labels 0 and 1 stand for


@dataclass(frozen=True, slots=True)
class VqaAnnotation:
    """What VQA's annotators answered to a question.

    ``records``: a number for each answer; two answers have the same one if nothing else that is written about them differs.
    Published files number the answers, so all differ.
    """

    answers: tuple[str, ...]
    records: tuple[int, ...]
    question_type: str
    answer_type: str


@dataclass(frozen=True, slots=True)
class GqaAnnotation:
    """What GQA says about a question.

    ``balanced``: whether it counts for accuracy. ``group``: of questions with like answers, for the distribution; None: in none.
    ``entailed``: the ids of the questions that its answer answers, too. ``steps``: of reasoning. ``words``: of the question.
    """

    answer: str
    balanced: bool
    structural: str
    semantic: str
    detailed: str
    group: str | None
    entailed: tuple[str, ...]
    steps: int
    words: int


@dataclass(frozen=True, slots=True)
class LabelAnnotation:
    """Airsplay's label of a question: how right each answer is, from 0 to 1. VQA's also say the types of question and answer."""

    label: Mapping[str, float]
    question_type: str | None
    answer_type: str | None


Annotation = VqaAnnotation | GqaAnnotation | LabelAnnotation | str  # a text: NLVR2's True or False, or one's own answer


@dataclass(frozen=True)
class Annotations:
    """The annotations of a question set. ``kind``: one of the table's; it decides who scores. ``of``: by question id.

    Those of questions that were not asked are left out.
    """

    kind: str
    of: Mapping[str, Any]
    path: Path


def read_annotations(questions: QuestionSet, path: str | Path | None = None) -> Annotations | None:
    """Reads the annotations of questions: from ``path``, or without one from the questions' own file, if that holds any.

    | kind | recognised by | where |
    |---|---|---|
    | ``vqa`` | question_id, answers | VQA v2's annotations |
    | ``gqa`` | answer, isBalanced, types | GQA's questions |
    | ``labels`` | question_id, label | airsplay's VQA and GQA questions |
    | ``nlvr2`` | identifier, label | NLVR2's questions, and airsplay's |
    | ``own`` | answer | questions of one's own, or a file of id and answer |

    Returns None if no path is given and the questions' file has no annotations: a test split. ``InputError``: one line with file,
    row and id: the file is none, was cut, a field is missing, a question is annotated twice, or one is not annotated.
    """
    file = questions.path if path is None else Path(path)
    rows = read_rows(file, WHAT, lists=("annotations", "questions")).rows
    if not rows:
        raise InputError(f"{file}: holds no annotations")
    # the first row that is of any kind: one that lacks its answer is then told, and not taken for a question without a truth
    found = next((one for row in rows for one in KINDS if one.fields <= row.values.keys()), None)
    if found is None:
        if path is None:
            return None
        known = "; ".join(f"{one.name}: {', '.join(sorted(one.fields))}" for one in KINDS)
        has = shortened([str(field)[:40] for field in rows[0].values]) or "none"
        raise rows[0].fault(f"is no annotation of a known format: its fields are {has}. Known are {known}")
    return Annotations(found.name, _of_questions(questions, _annotations(rows, found), file), file)


def _annotations(rows: Sequence[Row], kind: AnnotationKind) -> dict[str, Annotation]:
    annotated: dict[str, Annotation] = {}
    for id, row in zip(ids_of(rows, kind.id), rows, strict=True):
        if id in annotated:
            raise row.fault("the question is annotated twice; remove one", id)
        annotated[id] = kind.read(row, id)
    return annotated


def _of_questions(questions: QuestionSet, annotated: Mapping[str, Annotation], file: Path) -> dict[str, Annotation]:
    missing = [one.id for one in questions.questions if one.id not in annotated]
    if missing:
        raise InputError(
            f"{file}: has no annotation of {len(missing)} of the {len(questions.questions)} questions of "
            f"{questions.path}: {shortened(missing)}; give the annotations of the same split"
        )
    return {one.id: annotated[one.id] for one in questions.questions}


def _vqa(row: Row, id: str) -> VqaAnnotation:
    answers = row.values.get("answers")
    if not isinstance(answers, list) or not answers:
        raise row.fault("answers is missing or no list of answers", id)
    for place, one in enumerate(answers, 1):
        if not isinstance(one, dict) or not isinstance(one.get("answer"), str):
            raise row.fault(f"answers: number {place} is no object whose answer is a text", id)
    texts = tuple(one["answer"] for one in answers)
    return VqaAnnotation(texts, _records(answers), row.text("question_type", id), row.text("answer_type", id))


def _records(answers: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    ids = {one.get("answer_id") for one in answers if isinstance(one.get("answer_id"), int)}
    if len(ids) == len(answers):  # as published, and much the fastest way
        return tuple(range(len(answers)))
    numbers: dict[str, int] = {}
    others = (sorted((name, value) for name, value in one.items() if name != "answer") for one in answers)
    return tuple(numbers.setdefault(repr(one), len(numbers)) for one in others)


def _gqa(row: Row, id: str) -> GqaAnnotation:
    types, group = _object(row, "types", id), _object(row, "groups", id).get("global")
    entailed, steps = row.values.get("entailed"), row.values.get("semantic")
    balanced = row.values.get("isBalanced")
    if not isinstance(balanced, bool):
        raise row.fault(f"isBalanced is {as_given(balanced)}, not true or false", id)
    if not isinstance(entailed, list) or not all(isinstance(one, str) for one in entailed):
        raise row.fault("entailed is missing or no list of question ids", id)
    if not isinstance(steps, list) or not all(isinstance(one, dict) for one in steps):
        raise row.fault("semantic is missing or no list of steps", id)
    if group is not None and not isinstance(group, str):
        raise row.fault(f"groups.global is {as_given(group)}, not a text or null", id)
    if odd := next((name for name in GQA_TYPES if not isinstance(types.get(name), str)), None):
        raise row.fault(f"types.{odd} is missing or no text", id)
    return GqaAnnotation(
        row.answer("answer", id), balanced, types["structural"], types["semantic"], types["detailed"], group,
        tuple(entailed), sum(map(_is_step, steps)), len(row.text("question", id).split()),
    )  # fmt: skip


GQA_TYPES = ("structural", "semantic", "detailed")


def _is_step(operation: Mapping[str, Any]) -> bool:
    """Whether GQA's official program counts an operation as a step of reasoning."""
    described = f"{operation.get('operation')}: {operation.get('argument')}"
    return not any(part in described for part in ("exist", "query: name", "choose name"))


def _object(row: Row, field: str, id: str) -> Mapping[str, Any]:
    value = row.values.get(field)
    if not isinstance(value, dict):
        raise row.fault(f"{field} is missing or no object", id)
    return value


def _label(row: Row, id: str) -> LabelAnnotation:
    label = _object(row, "label", id)
    if odd := next((name for name, value in label.items() if not _is_share(value)), None):
        raise row.fault(f"label gives {odd!r} {as_given(label[odd])}, not a number from 0 to 1", id)
    types = (row.text(name, id) if name in row.values else None for name in ("question_type", "answer_type"))
    return LabelAnnotation(label, *types)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _truth(row: Row, id: str) -> str:
    parts_of(row, id)  # consistency groups questions by them
    label = row.values.get("label")
    if isinstance(label, int) and not isinstance(label, bool) and label in (0, 1):
        return AIRSPLAY_TRUTH[label]
    word = TRUE_OR_FALSE.get(label.lower()) if isinstance(label, str) else None
    if word is None:
        raise row.fault(f"label is {as_given(label)}, not True or False", id)
    return word


@dataclass(frozen=True)
class AnnotationKind:
    """A kind of annotations: a row of the table. ``id``: the field of the question's id; None: as ``ids_of`` finds it."""

    name: str
    fields: frozenset[str]
    id: str | None
    read: Callable[[Row, str], Annotation]


KINDS = (
    AnnotationKind("vqa", frozenset(("question_id", "answers")), "question_id", _vqa),
    AnnotationKind("gqa", frozenset(("answer", "isBalanced", "types")), None, _gqa),
    AnnotationKind("labels", frozenset(("question_id", "label")), "question_id", _label),
    AnnotationKind("nlvr2", frozenset(("identifier", "label")), "identifier", _truth),
    AnnotationKind("own", frozenset(("answer",)), None, lambda row, id: row.answer("answer", id)),
)


@dataclass(frozen=True, slots=True)
class GqaChoices:
    """The answers that are valid for a GQA question, and those that are plausible."""

    valid: frozenset[str]
    plausible: frozenset[str]


def read_gqa_choices(path: str | Path) -> dict[str, GqaChoices]:
    """Reads GQA's file of choices: question id → choices. ``InputError``: one line with file, row and id."""
    rows = read_rows(Path(path), "choices").rows
    return {row.key or str(row.number): GqaChoices(*(_words(row, name) for name in CHOICES)) for row in rows}


CHOICES = ("valid", "plausible")


def _words(row: Row, field: str) -> frozenset[str]:
    words = row.values.get(field)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise row.fault(f"{field} is missing or no list of answers")
    return frozenset(words)
