"""int8 is calibrated on files of features and questions: the rows are what a user's program would feed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import lxmert_export as lx
from lxmert_export.data.features.opening import open_features
from lxmert_export.errors import InputError, LxmertExportError
from lxmert_export.exporting.calibration import MOST_PICTURED, Calibration, pictured_calibration
from lxmert_export.exporting.conversion import plan_conversion
from lxmert_export.exporting.model_to_export import ModelToExport, model_of_checkpoint
from lxmert_export.exporting.options import ExportOptions
from lxmert_export.files.hub import DEMO_DIRECTORY
from lxmert_export.spec.signature import Task, task_signature
from lxmert_export.tokenizer.opening import load_tokenizer
from parity_tests.data.feature_files import Detected, detected
from parity_tests.fixtures.command import refused, run
from parity_tests.fixtures.exports import ANSWERING
from parity_tests.fixtures.random_models import lively_model
from parity_tests.predicting.question_set import write_pairs, write_set

ROWS = 300


def checkpoint(folder: Path, task: Task) -> Path:
    lx.save_checkpoint(lively_model(task, ANSWERING), folder)
    shutil.copy(DEMO_DIRECTORY / "vocab.txt", folder / "vocab.txt")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelToExport:
    return model_of_checkpoint(checkpoint(tmp_path_factory.mktemp("place") / "checkpoint", "question-answering"), None)


def calibrate(model: ModelToExport, features: Path, questions: Path, **fixed: int) -> Calibration:
    assert model.task is not None
    signature = task_signature(model.config, model.task, fixed=fixed or None)
    return pictured_calibration(features, questions, model, signature)


def test_a_row_is_a_question_with_its_picture(model: ModelToExport, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=ROWS)
    found = calibrate(model, features, questions)
    assert found.described == f"{MOST_PICTURED} questions of questions.json about pictures of val2014_obj36.tsv"
    asked = json.loads(questions.read_text())["questions"]
    seen = {int(one.id[-12:]): one for one in detected(20, objects=(2, 3, 5))}
    tokenizer = load_tokenizer(DEMO_DIRECTORY)
    ids = [tuple(tokenizer.encode(question["question"])) for question in asked]
    matched = set()
    for row in range(MOST_PICTURED):
        tokens = tuple(found.rows["input_ids"][row][found.rows["attention_mask"][row] == 1].tolist())
        count = int(found.rows["visual_attention_mask"][row].sum())
        shown = found.rows["visual_feats"][row, :count], found.rows["visual_pos"][row, :count]
        matched |= {
            number
            for number, question in enumerate(asked)
            if ids[number] == tokens and shows(seen[question["image_id"]], *shown)
        }
        assert not found.rows["visual_feats"][row, count:].any()
    assert len(matched) >= MOST_PICTURED and min(matched) < 10 and max(matched) > ROWS - 10  # from all over the file


def shows(one: Detected, features: object, boxes: object) -> bool:
    return np.array_equal(one.features, features) and np.array_equal(one.shares, boxes)  # type: ignore[arg-type]


def test_only_what_fits_fixed_axes_is_taken(model: ModelToExport, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=900)
    found = calibrate(model, features, questions, text=9, objects=3)
    assert found.rows["input_ids"].shape[1] == 9 and found.rows["visual_feats"].shape[1] == 3
    assert len(found.rows["input_ids"]) == MOST_PICTURED  # others take the place of those that do not fit


def test_pairs_of_pictures_have_an_axis_of_their_own(tmp_path: Path) -> None:
    model = model_of_checkpoint(checkpoint(tmp_path / "checkpoint", "nlvr2"), None)
    features, questions = write_pairs(tmp_path / "set", questions=600)
    found = calibrate(model, features, questions)
    pairs = {(pair["img0"], pair["img1"]) for pair in json.loads(questions.read_text())}
    counts = found.rows["visual_attention_mask"].sum(axis=-1).astype(int)
    with open_features(features) as source:
        by_features = {source.read(id).features.tobytes(): id for id in source.ids}
        for row, both in enumerate(found.rows["visual_feats"]):
            shown = [by_features[both[side, : counts[row, side]].tobytes()] for side in (0, 1)]
            assert tuple(shown) in pairs


def test_the_options_of_an_export_lead_to_it(model: ModelToExport, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=ROWS)
    for options in ({"target": "onnx"}, {"target": "tflite", "full_integer": True}):
        asked = ExportOptions(precision="int8", calibration=features, questions=questions, **options)  # type: ignore[arg-type]
        found = plan_conversion(model, asked).calibration
        assert (
            found is not None and "questions of questions.json about pictures of val2014_obj36.tsv" in found.described
        )


@pytest.mark.parametrize("command", ["onnx", "tflite", "tensorrt"])
def test_the_commands_take_both_files(command: str, tmp_path: Path) -> None:
    _, questions = write_set(tmp_path, questions=ROWS)
    kind = ["--int8", "--full-integer"] if command == "tflite" else ["--int8"]
    files = ["--calibration", "gone.tsv", "--questions", questions.name]
    refused(run(command, "demo", *kind, *files, "-o", "out", cwd=tmp_path), "gone.tsv: no such file")


def test_what_does_not_fit_is_one_line(model: ModelToExport, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=ROWS)
    few, _ = write_set(tmp_path / "few", questions=20)
    wide, _ = write_set(tmp_path / "wide", questions=20, width=9)
    with pytest.raises(InputError, match="features are 9 wide, and .* takes 8"):
        calibrate(model, wide, questions)
    with pytest.raises(InputError, match="20 questions .*: has 20 rows; calibration needs at least"):
        calibrate(model, few, few.with_name("questions.json"))
    with pytest.raises(InputError, match="0 questions of questions.json"):
        other = tmp_path / "other.json"
        other.write_text(json.dumps([{"img_id": "x", "question_id": 1, "sent": "what?"}]))
        shutil.copy(other, other.with_name("questions.json"))
        calibrate(model, features, other.with_name("questions.json"))


def test_a_checkpoint_without_tokenizer_is_told(tmp_path: Path) -> None:
    features, questions = write_set(tmp_path / "set", questions=ROWS)
    lx.save_checkpoint(lively_model("question-answering", ANSWERING), tmp_path / "bare")
    with pytest.raises(InputError, match="has no tokenizer for questions: put its vocab.txt beside the weights"):
        calibrate(model_of_checkpoint(tmp_path / "bare", None), features, questions)


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        ({"precision": "int8", "questions": "q.json"}, "questions: needs features to ask about: give calibration, too"),
        ({"precision": "fp16", "questions": "q.json"}, "questions: not an option of fp16 onnx"),
    ],
)
def test_questions_go_with_features_and_int8(options: dict[str, str], saying: str, tmp_path: Path) -> None:
    with pytest.raises(LxmertExportError, match=saying):
        lx.export("onnx", "demo", tmp_path / "out", **options)  # type: ignore[arg-type]
