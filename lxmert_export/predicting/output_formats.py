"""The files that answers are written to: what each benchmark takes as a submission, and a JSON line for each question."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxmert_export.data.questions.question_set import Question
from lxmert_export.errors import InputError
from lxmert_export.option_names import option

# The likeliest answers to a question with their probabilities, the likeliest first.
Ranked = Sequence[tuple[str, float]]
DIGITS = 6  # of a probability, behind the point


@dataclass(frozen=True)
class OutputFormat:
    """How answers are written.

    ``record``: (id as the questions' file has it, ranked answers) → text. Records stand between ``begin`` and ``end``, with
    ``between`` between them.
    """

    name: str
    dataset: str | None  # None: any
    suffix: str
    record: Callable[[int | str, Ranked], str]
    begin: str = ""
    between: str = "\n"
    end: str = "\n"


def _of_vqa(number: int | str, ranked: Ranked) -> str:
    return json.dumps({"question_id": number, "answer": ranked[0][0]})


def _of_gqa(number: int | str, ranked: Ranked) -> str:
    return json.dumps({"questionId": str(number), "prediction": ranked[0][0]})


def _of_nlvr2(number: int | str, ranked: Ranked) -> str:
    return f"{number},{ranked[0][0]}"


def _with_probabilities(number: int | str, ranked: Ranked) -> str:
    answers = [{"answer": answer, "probability": round(share, DIGITS)} for answer, share in ranked]
    return json.dumps({"question_id": number, "answer": ranked[0][0], "answers": answers})


_LIST: dict[str, Any] = {"begin": "[\n", "between": ",\n", "end": "\n]\n"}
WITH_PROBABILITIES = OutputFormat("JSON lines", None, ".jsonl", _with_probabilities)
FORMATS = (
    OutputFormat("VQA's submission", "vqa", ".json", _of_vqa, **_LIST),
    OutputFormat("GQA's submission", "gqa", ".json", _of_gqa, **_LIST),
    OutputFormat("NLVR2's submission", "nlvr2", ".csv", _of_nlvr2),
    WITH_PROBABILITIES,
)


def format_of(output: Path, dataset: str) -> OutputFormat:
    """Returns the format of a file, by its suffix. ``InputError``: answers to these questions have no such format."""
    possible = [row for row in FORMATS if row.dataset in (dataset, None)]
    for row in possible:
        if row.suffix == output.suffix:
            return row
    known = " or ".join(f"{row.suffix} ({row.name})" for row in possible)
    raise InputError(f"{output}: answers to questions of {dataset!r} are written as {known}: rename {option('output')}")


def number_of(question: Question, *, numeric: bool) -> int | str:
    """Returns a question's id as its file has it."""
    return int(question.id) if numeric else question.id
