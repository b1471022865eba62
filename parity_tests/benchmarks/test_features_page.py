"""benchmarks.features on a set of a few pictures: the set has the workload's lengths, and every figure is on the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import features
from benchmarks.synthetic_set import WORKLOAD, write_set
from lxmert_export.benching.workload import read_workload
from lxmert_export.data.features.opening import open_features
from lxmert_export.data.questions.reading import read_questions
from lxmert_export.files.hub import DEMO_DIRECTORY
from lxmert_export.tokenizer.opening import load_tokenizer

QUESTIONS = 54


def test_the_set_has_the_lengths_of_the_workload_and_a_picture_for_each_question(tmp_path: Path) -> None:
    folder = write_set(tmp_path, QUESTIONS, width=8)
    expected = replace(read_workload(WORKLOAD), questions=QUESTIONS)
    with open_features(folder / "val2014_obj36.tsv") as source:
        asked = read_questions(folder / "questions.json").spelled_as_in(set(source.ids))
        assert all(question.pictures[0] in source for question in asked.questions)
        assert len(source.ids) == expected.images and source.most_objects == expected.objects
    tokens = load_tokenizer(DEMO_DIRECTORY)([question.text for question in asked.questions])["input_ids"]
    assert Counter(map(len, tokens)) == Counter(expected.question_lengths.tolist())
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    again = write_set(tmp_path / "again", QUESTIONS, width=8)
    assert all((again / name).read_bytes() == content for name, content in before.items() if "index" not in name)


def test_the_page_has_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "ROUNDS", 1)
    page = features.page(QUESTIONS, tmp_path)
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")][1:]
    assert rows == [features.DECODER, features.STORED, features.TSV, features.FP32, features.FP16, features.ORIGINAL]
    assert "Indexing: " in page
