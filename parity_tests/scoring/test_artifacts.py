"""`evaluate` of artifacts: they answer first, and then their answers are scored and compared as those of files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lxmert_export as lx
from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError, InputError
from lxmert_export.files.json_files import check_schema
from lxmert_export.scoring.pages.markdown import markdown_page
from lxmert_export.scoring.report import SCHEMA
from parity_tests.fixtures.command import refused, run
from parity_tests.fixtures.exports import Exports
from parity_tests.predicting.question_set import write_pairs, write_set


@pytest.fixture
def artifact(exports: Exports) -> Artifact:
    return exports.answering("onnx")


def annotations_of(answers: Path, folder: Path) -> Path:
    """VQA's annotations, of which all ten people answer as a file of answers does."""
    rows = [
        {
            "question_id": row["question_id"], "question_type": "what", "answer_type": "other",
            "answers": [{"answer": row["answer"], "answer_confidence": "yes", "answer_id": n + 1} for n in range(10)],
        }
        for row in json.loads(answers.read_text())
    ]  # fmt: skip
    file = folder / "annotations.json"
    file.write_text(json.dumps({"annotations": rows}))
    return file


def test_an_artifact_scores_what_its_own_file_of_answers_scores(artifact: Artifact, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=40, pictures=8)
    lx.predict(artifact.path, features, questions, tmp_path / "answers.json")
    truths = annotations_of(tmp_path / "answers.json", tmp_path)
    rows = json.loads((tmp_path / "answers.json").read_text())
    worse = [{**row, "answer": "another"} if place < 4 else row for place, row in enumerate(rows)]
    (tmp_path / "worse.json").write_text(json.dumps(worse))
    report = lx.evaluate(
        [artifact.path, f"{artifact.path}@openvino", tmp_path / "answers.json", tmp_path / "worse.json"],
        questions=questions, features=features, annotations=truths, max_drop=5,
    )  # fmt: skip
    values = report.to_dict()
    check_schema(values, SCHEMA)
    assert [one["scores"]["overall"] for one in values["runners"]] == [100, 100, 100, 90]
    facts = [
        {name: one.get(name) for name in ("kind", "runtime", "precision", "arithmetic")} for one in values["runners"]
    ]
    assert facts[0] == {"kind": "artifact", "runtime": "onnxruntime", "precision": "fp32", "arithmetic": "native"}
    assert facts[1]["runtime"] == "openvino" and values["runners"][0]["device"] == "CPU"
    assert facts[2] == {"kind": "answers", "runtime": None, "precision": None, "arithmetic": None}
    assert [one["passed"] for one in values["comparisons"]] == [True, True, False]
    page = markdown_page(values)
    assert "| onnxruntime on CPU, fp32 | 100.00 |" in page and "| openvino on CPU, fp32 | 100.00 |" in page
    assert "| file | 90.00 |" in page


def test_the_command_answers_and_compares(artifact: Artifact, tmp_path: Path) -> None:
    """Without true answers: the artifact's own file agrees with it in everything."""
    features, questions = write_set(tmp_path, questions=30, pictures=6)
    lx.predict(artifact.path, features, questions, tmp_path / "answers.jsonl")
    done = run(
        "evaluate", str(artifact.path), "answers.jsonl", "--questions", str(questions), "--features", str(features),
        "--json", "-", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["comparisons"]
    assert found["agreement"] == 100 and found["flips"] == []


def test_sentences_about_two_pictures_are_scored(exports: Exports, tmp_path: Path) -> None:
    features, questions = write_pairs(tmp_path)
    nlvr2 = exports.answering("onnx", "nlvr2", split=True)
    lx.predict(nlvr2.path, features, questions, tmp_path / "answers.csv")
    right = dict(line.split(",") for line in (tmp_path / "answers.csv").read_text().splitlines())
    rows = [{**row, "label": int(right[row["identifier"]] == "True")} for row in json.loads(questions.read_text())]
    rows[0]["label"] = 1 - rows[0]["label"]
    questions.write_text(json.dumps(rows))
    report = lx.evaluate([nlvr2.path], questions=questions, features=features)
    assert report.runners[0].scored is not None
    assert report.runners[0].scored.scores == pytest.approx({"accuracy": 100 * 23 / 24, "consistency": 100 * 23 / 24})


def test_questions_without_features_are_left_out_if_that_is_asked_for(artifact: Artifact, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=20, pictures=5)
    lx.predict(artifact.path, features, questions, tmp_path / "answers.json")
    truths = annotations_of(tmp_path / "answers.json", tmp_path)
    values = json.loads(questions.read_text())
    values["questions"][3]["image_id"] = 99
    questions.write_text(json.dumps(values))
    given = {"questions": questions, "features": features, "annotations": truths}
    with pytest.raises(
        InputError, match=r"1 questions without features \(1003\).*; skip_missing=True answers the others"
    ):
        lx.evaluate([artifact.path], **given)
    report = lx.evaluate([artifact.path, tmp_path / "answers.json"], skip_missing=True, **given)
    assert len(report.runners[0].answers) == 19 and report.notes[0].startswith(
        "1 questions without features were left out"
    )
    assert [one.scored is not None and one.scored.scores["overall"] for one in report.runners] == [100, 100]


def test_what_cannot_answer_is_told_before_anything_is_read_for_hours(
    artifact: Artifact, exports: Exports, tmp_path: Path
) -> None:
    features, questions = write_set(tmp_path, questions=12, pictures=4)
    arguments = ("evaluate", str(artifact.path), "none.json", "--questions", str(questions))
    refused(run(*arguments, cwd=tmp_path), "is an artifact: give the pictures' features, too (--features)")
    backbone = exports.lively("onnx", "model")
    ran: list[int] = []
    with pytest.raises(ArtifactError, match="task model gives no answers; export it with --task question-answering"):
        lx.evaluate(
            [artifact.path, backbone.path],
            questions=questions,
            features=features,
            progress=lambda step, done, total: ran.append(done),
        )
    assert ran == []
