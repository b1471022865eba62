"""Files of questions, answers and annotations that were damaged at random: each is read, or is one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.trust.mutations import damaged, damaged_json
from lxmert_export.data.questions.answers import read_answers
from lxmert_export.data.questions.reading import read_questions
from lxmert_export.errors import LxmertExportError
from lxmert_export.scoring.official import scorer_of
from parity_tests.data import question_files
from parity_tests.data.test_answers import vqa_annotations

pytestmark = pytest.mark.quick

TRIALS = 60
ANSWERS = {
    "VQA's": '[{"question_id": 5, "answer": "net"}, {"question_id": 6, "answer": "yes"}]',
    "NLVR2's": "dev-1-0-0,True\ndev-1-1-0,False\n",
    "own": '{"id": 1, "answer": "a", "top": [["a", 0.9]]}\n{"id": 2, "answer": "b"}\n',
}


def of_kind(path: Path, trial: int) -> bytes:
    """The content of a file after damage; of JSON lines and CSV single bytes are damaged, of JSON its values, too."""
    content, generator = path.read_bytes(), np.random.default_rng(trial)
    try:
        json.loads(content)
    except ValueError:
        return damaged(content, generator)
    return damaged_json(content, generator)


def tell(error: LxmertExportError, path: Path) -> None:
    assert str(error).startswith(f"{path}: ") and "\n" not in str(error), str(error)


@pytest.mark.parametrize("name", [*question_files.FORMATS, "VQA's annotations"])
def test_damaged_questions_are_read_and_scored_or_are_one_line(name: str, tmp_path: Path) -> None:
    told = 0
    for trial in range(TRIALS):
        annotations = vqa_annotations(tmp_path) if name not in question_files.FORMATS else None
        questions = question_files.FORMATS[name if annotations is None else "vqa"](tmp_path)
        path = annotations or questions
        path.write_bytes(of_kind(path, trial))
        try:
            asked = read_questions(questions)
            scorer = scorer_of(asked, annotations)
            if scorer is not None:
                scorer.score({one.id: "True" for one in asked.questions})
        except LxmertExportError as error:
            tell(error, path)
            told += 1
    assert TRIALS / 4 < told


@pytest.mark.parametrize("name", ANSWERS)
def test_damaged_answers_are_read_or_are_one_line(name: str, tmp_path: Path) -> None:
    told = 0
    for trial in range(TRIALS):
        path = tmp_path / "answers"
        path.write_text(ANSWERS[name])
        path.write_bytes(of_kind(path, trial))
        try:
            read_answers(path)
        except LxmertExportError as error:
            tell(error, path)
            told += 1
    assert TRIALS / 4 < told
