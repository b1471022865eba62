"""`predict`: its answers are those of one question at a time, in every format, and bad input is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import lxmert_export as lx
from lxmert_export.artifact.directory import Artifact
from lxmert_export.data.questions.answers import read_answers
from lxmert_export.data.questions.reading import read_questions
from lxmert_export.errors import ArtifactError, InputError
from lxmert_export.predicting import plan
from lxmert_export.predicting.prediction import Request, answer_here, predict_in_memory
from lxmert_export.progress import silent
from lxmert_export.runners.onnx.session import OnnxRuntimeRunner
from parity_tests.fixtures.command import refused, run
from parity_tests.fixtures.exports import Exports
from parity_tests.predicting.question_set import answered_alone, words, write_pairs, write_set

FIXED = {"batch": 4, "text": 16, "objects": 6}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "QUESTIONS", 24)
    monkeypatch.setattr(plan, "LOOKS", 7)


@pytest.fixture
def whole(exports: Exports) -> Artifact:
    return exports.answering("onnx")


@pytest.fixture
def split(exports: Exports) -> Artifact:
    return exports.answering("onnx", split=True)


KINDS = ("whole", "split", "fixed split", "pretraining", "tensorflow", "tflite")


def artifact_of(kind: str, exports: Exports) -> Artifact:
    if kind == "pretraining":
        return exports.demo("onnx", task="pretraining")
    options = {"split": {"split": True}, "fixed split": {"split": True, "fixed": FIXED}}.get(kind, {})
    return exports.answering(kind if kind in ("tensorflow", "tflite") else "onnx", **options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_answers_are_those_of_one_question_at_a_time(kind: str, exports: Exports, tmp_path: Path) -> None:
    artifact = artifact_of(kind, exports)
    features, questions = write_set(tmp_path, width=artifact.manifest.config.visual_feat_dim)
    done = lx.predict(artifact.path, features, questions, tmp_path / "answers.jsonl")
    whole = artifact if kind == "pretraining" else artifact_of("whole", exports)
    check_same(tmp_path / "answers.jsonl", answered_alone(whole, features, questions))
    assert (done.answered, done.resumed, done.cut, done.dataset) == (90, 0, 0, "vqa")
    assert not list(tmp_path.glob(".answers*"))


def check_same(file: Path, alone: dict[str, tuple[str, float]], tolerance: float = 1e-4) -> None:
    """Every question has the answer that it has by itself, and its probability; the answers differ, so that mistakes show."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [str(row["question_id"]) for row in rows] == list(alone)
    assert {str(row["question_id"]): row["answer"] for row in rows} == words(alone)
    shares = [row["answers"][0]["probability"] for row in rows]
    assert shares == pytest.approx([share for _, share in alone.values()], abs=tolerance)
    assert len(set(words(alone).values())) > 1 and len(set(shares)) > len(rows) / 2


def test_openvino_answers_by_name(whole: Artifact, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=30, pictures=8)
    lx.predict(f"{whole.path}@openvino", features, questions, tmp_path / "answers.json")
    assert read_answers(tmp_path / "answers.json") == words(answered_alone(whole, features, questions))


def test_sentences_about_two_pictures(exports: Exports, tmp_path: Path) -> None:
    artifact = exports.answering("onnx", "nlvr2", split=True)
    features, questions = write_pairs(tmp_path)
    alone = answered_alone(artifact, features, questions)
    lx.predict(artifact.path, features, questions, tmp_path / "answers.csv")
    lines = (tmp_path / "answers.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == [one.id for one in read_questions(questions).questions]
    answers = read_answers(tmp_path / "answers.csv")
    assert answers == words(alone) and set(answers.values()) == {"True", "False"}
    lx.predict(artifact.path, features, questions, tmp_path / "answers.jsonl")
    check_same(tmp_path / "answers.jsonl", alone)


def test_a_split_artifact_sees_each_picture_once(split: Artifact, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path)
    rows = {"vision.onnx": 0, "question.onnx": 0}
    compute = OnnxRuntimeRunner.compute

    def counting(runner: OnnxRuntimeRunner, inputs: Any) -> Any:
        half = "question.onnx" if "input_ids" in inputs else "vision.onnx"
        rows[half] += len(next(iter(inputs.values())))
        return compute(runner, inputs)

    with mock.patch.object(OnnxRuntimeRunner, "compute", counting):
        lx.predict(split.path, features, questions, tmp_path / "answers.json")
    assert rows == {"vision.onnx": 20, "question.onnx": 90}


def test_json_lines_hold_the_likeliest_answers(whole: Artifact, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path)
    lx.predict(whole.path, features, questions, tmp_path / "answers.jsonl", top=3)
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["question_id"] for row in rows] == list(range(1000, 1090))
    for row in rows:
        shares = [one["probability"] for one in row["answers"]]
        assert len(shares) == 3 and shares == sorted(shares, reverse=True) and sum(shares) <= 1.00001
        assert row["answer"] == row["answers"][0]["answer"]
    assert read_answers(tmp_path / "answers.jsonl") == words(answered_alone(whole, features, questions))


def test_gqas_submission(whole: Artifact, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=12, pictures=4)
    rows = json.loads(questions.read_text())["questions"]
    gqa = {f"0{row['question_id']}": {"question": row["question"], "imageId": str(row["image_id"])} for row in rows}
    (tmp_path / "gqa.json").write_text(json.dumps(gqa))
    lx.predict(whole.path, features, tmp_path / "gqa.json", tmp_path / "answers.json", dataset="gqa")
    found = json.loads((tmp_path / "answers.json").read_text())
    assert [row["questionId"] for row in found] == list(gqa) and set(found[0]) == {"questionId", "prediction"}


def test_long_questions_are_cut_and_counted(exports: Exports, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=40, longest=25)
    done = lx.predict(artifact_of("fixed split", exports).path, features, questions, tmp_path / "answers.json")
    assert 5 < done.cut < 40 == done.answered


def test_answers_in_memory_are_the_same(whole: Artifact, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path)
    request = Request(str(whole.path), features, questions, None, 32, 1, None, ("CPUExecutionProvider",), False)
    answers, matched = predict_in_memory(request, answer_here, silent)
    assert answers == words(answered_alone(whole, features, questions)) and matched.left_over == []


def edited(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], None]:
    """Changes a file of questions."""

    def edit(questions: Path) -> None:
        content = json.loads(questions.read_text())
        change(content["questions"])
        questions.write_text(json.dumps(content))

    return edit


def test_what_is_missing_is_counted_listed_and_left_out_if_asked(whole: Artifact, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=30, pictures=10)
    edited(lambda rows: [row.update(image_id=7) for row in rows[:2]])(questions)
    edited(lambda rows: [rows.remove(row) for row in rows[2:] if row["image_id"] == 262144])(questions)
    output = tmp_path / "answers.json"
    command = [
        "predict",
        str(whole.path),
        "--features",
        str(features),
        "--questions",
        str(questions),
        "-o",
        str(output),
    ]
    done = run(*command, cwd=tmp_path)
    refused(
        done,
        "do not fit: 2 questions without features (1000, 1001) and 1 pictures without questions (COCO_val2014_0000",
    )
    assert "--skip-missing answers the others" in done.stderr and not output.exists()
    done = run(*command, "--skip-missing", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["without_features"] == ["1000", "1001"] and told["without_questions"] == ["COCO_val2014_000000262144"]
    assert len(read_answers(output)) == told["answered"] < 29


@pytest.mark.parametrize(
    ("change", "output", "said"),
    [
        (
            edited(lambda rows: [row.update(image_id=7) for row in rows]),
            "a.json",
            "has features for none of the 12 questions",
        ),
        (lambda file: None, "a.csv", "answers to questions of 'vqa' are written as .json (VQA's submission) or .jsonl"),
        (lambda file: None, "no/such/a.json", None),
        (lambda file: None, "questions.json", "is what is read: choose another output (-o)"),
        (lambda file: None, ".", "is a directory: name a file (-o)"),
    ],
)
def test_bad_input_is_one_line(
    change: Callable[[Path], None], output: str, said: str | None, whole: Artifact, tmp_path: Path
) -> None:
    features, questions = write_set(tmp_path, questions=12, pictures=4)
    change(questions)
    before = sorted(tmp_path.rglob("*"))
    if said is None:
        lx.predict(whole.path, features, questions, tmp_path / output)
        assert (tmp_path / output).exists()
        return
    done = run(
        "predict", str(whole.path), "--features", str(features), "--questions", str(questions), "-o", str(tmp_path / output),
        cwd=tmp_path,
    )  # fmt: skip
    refused(done, said)
    assert sorted(path for path in tmp_path.rglob("*") if ".index." not in path.name) == before


def test_an_output_inside_the_features_is_refused(whole: Artifact, tmp_path: Path) -> None:
    """The answers that a stopped run leaves there would be read as features, or as a change of them."""
    (tmp_path / "features").mkdir()
    features, questions = write_set(tmp_path, questions=12, pictures=4)
    features.rename(tmp_path / "features" / features.name)
    with pytest.raises(ArtifactError, match="a.json: lies inside the features"):
        lx.predict(whole.path, tmp_path / "features", questions, tmp_path / "features" / "a.json")


def test_artifacts_that_do_not_answer_are_one_line(exports: Exports, whole: Artifact, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=12, pictures=4)
    (tmp_path / "pairs").mkdir()
    pair_features, pairs = write_pairs(tmp_path / "pairs")
    cases = [
        (exports.lively("onnx", "model"), features, questions, ArtifactError, "task model gives no answers; export it with"),
        (exports.answering("onnx", "nlvr2", split=True), features, questions, InputError, "task nlvr2 takes 2 pictures"),
        (whole, pair_features, pairs, InputError, "task question-answering takes 1 picture a question, and question dev-0-0-0"),
        (exports.lively("onnx", "question-answering"), features, questions, ArtifactError, "has no labels.json"),
        (exports.demo("onnx", task="pretraining"), features, questions, InputError, "its features are 8 wide, and .* takes 192"),
    ]  # fmt: skip
    for artifact, given, asked, kind, said in cases:
        with pytest.raises(kind, match=said):
            lx.predict(artifact.path, given, asked, tmp_path / "answers.jsonl")
        assert not list(tmp_path.glob(".answers*"))


def test_more_objects_than_the_artifact_takes(exports: Exports, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=12, pictures=4, objects=(3, 7))
    with pytest.raises(InputError, match="up to 7 objects, and .* was exported for 6"):
        lx.predict(artifact_of("fixed split", exports).path, features, questions, tmp_path / "a.json")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": 0}, "batch: takes whole numbers from 1 on, not 0"),
        ({"top": -1}, "top: takes whole numbers from 1 on, not -1"),
        ({"threads": 0}, "threads: takes whole numbers"),
        ({"engine": "spark"}, "engine: takes local or ray, not 'spark'"),
        ({"workers": 2}, 'workers: is for engine="ray"'),
        (
            {"providers": ("CUDAExecutionProvider",), "artifact": "@openvino"},
            "providers is for ONNX artifacts in onnxruntime",
        ),
    ],
)
def test_options_out_of_range(options: dict[str, Any], said: str, whole: Artifact, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=12, pictures=4)
    name = f"{whole.path}{options.pop('artifact', '')}"
    with pytest.raises(InputError) as raised:
        lx.predict(name, features, questions, tmp_path / "answers.json", **options)
    assert said in str(raised.value)


def test_boxes_that_look_wrong_are_read_as_the_user_says(whole: Artifact, tmp_path: Path) -> None:
    features, questions = write_set(tmp_path, questions=12, pictures=4)
    lines = [line.split("\t") for line in features.read_text().splitlines()]
    features.write_text("".join("\t".join([line[0], line[2], line[1], *line[3:]]) + "\n" for line in lines))
    with pytest.raises(InputError, match="width and height are exchanged; .* give boxes=.pixels-swapped"):
        lx.predict(whole.path, features, questions, tmp_path / "answers.json")
    lx.predict(whole.path, features, questions, tmp_path / "answers.json", boxes="pixels-swapped")
    sound, _ = write_set(tmp_path / "sound", questions=12, pictures=4)
    assert read_answers(tmp_path / "answers.json") == words(answered_alone(whole, sound, questions))
