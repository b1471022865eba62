"""`lxmert-export ask`: a picture, a question and an answer, from any artifact of the built-in checkpoint, without PyTorch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lxmert_export as lx
from lxmert_export.errors import ArtifactError, ConversionError, InputError
from lxmert_export.files.beside_weights import COMPANION_FILES
from lxmert_export.files.hub import DEMO_DIRECTORY
from lxmert_export.files.workspaces import make_workspace
from lxmert_export.predicting.pictures import Answered, ask_about_picture, check_destination, draw_picture, save_answer
from lxmert_export.runners.onnx.session import OnnxRuntimeRunner
from parity_tests.fixtures.command import COMMAND, refused, run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.manifests import edit_manifest, list_files
from parity_tests.fixtures.missing_modules import run_without
from parity_tests.fixtures.random_models import TINY

SEED = 7
JUDGED: dict[str, Any] = {"task": "question-answering", "attentions": True}  # as test_checkpoint has it judged


@pytest.fixture(scope="module")
def place(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a picture and artifacts of the built-in checkpoint: every precision, and one with fixed axes."""
    place = tmp_path_factory.mktemp("ask")
    draw_picture(SEED, place / "scene.png")
    answering = {"task": "question-answering", "parity": False}
    made = {
        **{p: exports.demo("onnx", precision=p, **JUDGED) for p in ("fp32", "fp16", "bf16")},
        "fixed": exports.demo("onnx", fixed={"batch": 2, "text": 20, "objects": 10}, **answering),
        "tight": exports.demo("onnx", fixed={"text": 12, "objects": 4}, **answering),
        "pretraining": exports.demo("onnx", task="pretraining"),
        "backbone": exports.demo("onnx", task="model"),
        "other": exports.lively("onnx", "question-answering", TINY),
    }
    for name, artifact in made.items():
        shutil.copytree(artifact.path, place / name)
    return place


def test_what_a_killed_run_left_beside_a_picture_is_removed_before_the_picture_is_refused(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, "scene.png")
    workspace.let_go()  # as its run ends
    (tmp_path / "scene.png").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="exists already"):
        check_destination(tmp_path / "scene.png", tmp_path / "artifact", overwrite=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["scene.png"]


@pytest.mark.parametrize("artifact", ["fp32", "fp16", "bf16", "fixed", "pretraining"])
def test_questions_about_a_scene_are_answered(artifact: str, place: Path) -> None:
    """One question of each family; accuracy is measured on a thousand elsewhere (test_demo_checkpoint)."""
    right = 0
    suggested = draw_picture(SEED, place / "scene.png")
    for question in suggested:
        answered = ask_about_picture(place / artifact, question.text, place / "scene.png")
        shares = [share for _, share in answered.answers]
        assert len(answered.answers) == 40 and shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1)
        right += answered.answers[0][0] == question.answer
    assert len(suggested) >= 6 and right >= len(suggested) - 1


def test_people_write_as_they_like(place: Path) -> None:
    question = draw_picture(SEED, place / "scene.png")[0]
    for text in (question.text.upper(), question.text.replace(" ?", "?"), f"  {question.text} ", question.text[:-2]):
        assert lx.ask(place / "fp32", text, place / "scene.png").answers[0][0] == question.answer


def test_fixed_axes_change_nothing(place: Path) -> None:
    for question in draw_picture(SEED, place / "scene.png"):
        one, other = (ask_about_picture(place / name, question.text, place / "scene.png") for name in ("fp32", "fixed"))
        assert dict(one.answers) == pytest.approx(dict(other.answers), abs=1e-4)


def test_attention_is_of_the_word_that_was_chosen(place: Path) -> None:
    answered = ask_about_picture(place / "fp32", "what color is the large thing ?", place / "scene.png")
    assert answered.attention is not None
    assert answered.attention.shape == (len(answered.tokens), len(answered.objects.boxes))
    assert np.allclose(answered.attention.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(answered.attention_of("large"), answered.attention[answered.tokens.index("large")])
    pieces = ask_about_picture(place / "fp32", "how many circles are there ?", place / "scene.png")
    assert pieces.attention is not None and pieces.tokens[3:5] == ("circle", "##s")
    assert np.allclose(pieces.attention_of("circles"), pieces.attention[3:5].mean(axis=0))
    with pytest.raises(InputError, match="'tiny' is not a word of the question; choose from \\[CLS\\] what"):
        answered.attention_of("tiny")


def test_the_picture_of_an_answer(place: Path, tmp_path: Path) -> None:
    answered = ask_about_picture(place / "fp32", "how many things are there ?", place / "scene.png")
    save_answer(answered, place / "scene.png", tmp_path / "answer.png", word="[CLS]")
    with Image.open(tmp_path / "answer.png") as picture:
        assert picture.size[0] > 600 and picture.mode == "RGB"
    save_answer(answered, place / "scene.png", tmp_path / "answer.png", word="many")
    assert [file.name for file in tmp_path.iterdir()] == ["answer.png"]


def test_nothing_of_the_user_s_is_drawn_over(place: Path, tmp_path: Path) -> None:
    """Not the picture itself, whatever it is called by; not the artifact; no file that is no PNG; no other file unasked."""
    scene, artifact = tmp_path / "scene.png", tmp_path / "artifact"
    shutil.copytree(place / "fp16", artifact)
    shutil.copy(place / "scene.png", scene)
    (tmp_path / "link.png").symlink_to(scene)
    (tmp_path / "photo.png").write_bytes(b"\xff\xd8\xff a photo")
    shutil.copy(scene, tmp_path / "other.png")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    refusals = {
        "scene.png": "is the picture that is asked about",
        "./artifact/../scene.png": "is the picture that is asked about",
        "link.png": "is the picture that is asked about",
        "artifact/manifest.json": "lies inside the artifact",
        "artifact/new.png": "lies inside the artifact",
        "photo.png": "is not a PNG",
        "artifact/..": "is a directory",
    }
    for name, saying in refusals.items():
        done = run(
            "ask", "artifact", "how many things?", "--image", "scene.png", "--save", name, "--overwrite", cwd=tmp_path
        )
        refused(done, saying)
    for arguments in (["--save", "other.png"], ["--save", "n" * 300 + ".png"]):
        done = run("ask", "artifact", "how many things?", "--image", "scene.png", *arguments, cwd=tmp_path)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    for name in ("other.png", "artifact/scene.png"):
        done = run("ask", "artifact", "--draw-scene", "1", "--image", name, cwd=tmp_path)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_all_is_checked_before_anything_is_drawn(place: Path, tmp_path: Path) -> None:
    scene = str(tmp_path / "scene.png")
    for arguments in (
        ["fp16", "how many things?", "--save", str(tmp_path / "a.png"), "--word", "red"],
        ["fp16", "how many dogs?"],
        ["fixed", "how many things?", "--save", str(tmp_path / "a.png")],
        ["other"],
        ["nowhere"],
    ):
        done = run("ask", *arguments, "--draw-scene", "3", "--image", scene, cwd=place)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        assert not list(tmp_path.iterdir())


def test_what_can_be_asked_as_json(place: Path, tmp_path: Path) -> None:
    done = run("ask", "fp16", "--draw-scene", "3", "--image", str(tmp_path / "s.png"), "--json", cwd=place)
    found = json.loads(done.stdout)
    assert found["scene"] == 3 and {"text", "answer", "family"} == set(found["questions"][0])


def test_scores_that_are_no_numbers_are_no_answer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an fp16 graph that overflows gives on a GPU."""
    monkeypatch.setattr(OnnxRuntimeRunner, "compute", lambda *_: {"question_answering_score": np.full((1, 40), np.nan)})
    with pytest.raises(ArtifactError, match="answers NaN or infinity"):
        ask_about_picture(place / "fp32", "how many things are there?", place / "scene.png")


def test_an_artifact_can_be_shared(place: Path) -> None:
    modes = {file.stat().st_mode & 0o777 for file in (place / "fp32").iterdir()}
    assert modes == {(place / "fp32").stat().st_mode & 0o666}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_output_is_one_line(place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(lx.__file__).parent.parent)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "ask", "fp16", "how many things?", "--image", "scene.png"],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=place, env=environment, check=False,
        )  # fmt: skip
    assert done.returncode == 1 and done.stderr.splitlines()[0].startswith("error: the output cannot be written")


@pytest.mark.parametrize(
    ("question", "saying"),
    [
        ("", "the question is empty"),
        ("  \n", "the question is empty"),
        ("???", "has no words"),
        ("[CLS] [MASK]", "has no words"),
        ("how many elephants are there?", "does not know the word 'elephants'"),
        ("how many crcles are there?", "does not know the word 'crcles'; did you mean circle"),
        ("¿cuántos círculos hay?", "does not know the word"),
        ("is there a red circle " * 12, "takes at most 32"),
        ("how many \udcff are there?", "UTF-8"),
    ],
    ids=["empty", "blank", "marks", "special tokens", "unknown", "misspelt", "Spanish", "long", "not UTF-8"],
)
def test_questions_that_cannot_be_asked(question: str, saying: str, place: Path) -> None:
    with pytest.raises(InputError, match=saying) as caught:
        ask_about_picture(place / "fp32", question, place / "scene.png")
    assert "\n" not in str(caught.value)


def test_artifacts_that_cannot_be_asked(place: Path) -> None:
    def ask(name: str, question: str = "how many things are there?") -> Answered:
        return ask_about_picture(place / name, question, place / "scene.png")

    with pytest.raises(ArtifactError, match=f"takes features, not pictures: .* {TINY.visual_feat_dim} wide"):
        ask("other")
    with pytest.raises(ArtifactError, match="task model gives no answers; export it with --task question-answering"):
        ask("backbone")
    with pytest.raises(InputError, match="the artifact was exported for 4"):
        ask("tight")
    with pytest.raises(InputError, match="tokens; .* takes at most 12"):
        ask("tight", "is the small red circle to the left of the large blue square ?")
    with pytest.raises(InputError, match="export it again with --attentions"):
        ask("fixed").attention_of("[CLS]")
    with pytest.raises(ArtifactError, match="not an artifact directory"):
        ask("nowhere")


@pytest.mark.parametrize("labels", ["{}", "[1, 2]", json.dumps(["red"] * 40), json.dumps(list(range(40))), "no JSON"])
def test_the_labels_of_an_artifact_must_be_its_own(labels: str, place: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    shutil.copytree(place / "fp32", artifact)
    (artifact / "labels.json").write_text(labels)
    list_files(artifact, "labels.json")
    with pytest.raises(
        ArtifactError, match=r"labels\.json: (is not a list of 40 different answers|the answers' names cannot be read)"
    ):
        ask_about_picture(artifact, "how many things are there?", place / "scene.png")


def test_a_tokenizer_that_did_not_come_with_the_artifact_is_not_read(place: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    shutil.copytree(place / "fp32", artifact)
    manifest = json.loads((artifact / "manifest.json").read_text())
    edit_manifest(
        artifact, files={name: facts for name, facts in manifest["files"].items() if name != "tokenizer.json"}
    )
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is not listed in its manifest"):
        ask_about_picture(artifact, "how many things are there?", place / "scene.png")


def test_a_saved_model_keeps_its_tokenizer_and_its_answers(place: Path, tmp_path: Path) -> None:
    """In every dialect, and an export of the model in memory, too; what was lost is told when it is exported."""
    model = lx.load_checkpoint("demo", task="question-answering")
    wanted = {name: (DEMO_DIRECTORY / name).read_bytes() for name in COMPANION_FILES}
    for dialect in ("hf", "original", "tf"):
        model.save_pretrained(tmp_path / dialect, dialect=dialect)
        assert {name: (tmp_path / dialect / name).read_bytes() for name in COMPANION_FILES} == wanted
    lx.export("onnx", model, tmp_path / "artifact", parity=False)
    assert ask_about_picture(tmp_path / "artifact", "how many things are there?", place / "scene.png").answers


def test_a_tokenizer_with_more_words_than_the_embedding_has_rows_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = (DEMO_DIRECTORY / "vocab.txt").read_text().split("\n")
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(DEMO_DIRECTORY / name, tmp_path / name)
    (tmp_path / "vocab.txt").write_text("\n".join([*words[:-1], "zebra", "zebu", ""]))
    rows = lx.LxmertConfig.from_json_file(tmp_path / "config.json").vocab_size
    with pytest.raises(ConversionError, match=f"has {len(words) + 1} words and the word embedding has {rows} rows"):
        lx.export("onnx", tmp_path, tmp_path / "out", parity=False, task="question-answering")
    assert not (tmp_path / "out").exists()
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n")  # some tokenizer, which cannot be used
    lx.export("onnx", tmp_path, tmp_path / "out", parity=False, task="question-answering")
    assert "the tokenizer beside the weights cannot be used" in caplog.text


def test_weights_without_a_tokenizer_are_told(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights, artifact = tmp_path / "weights", tmp_path / "artifact"
    weights.mkdir()
    told = f"{weights}: no tokenizer lies beside the weights, so the artifact has none; vocab.txt is enough"
    for copied, lacking in (
        (("config.json", "model.safetensors"), "no labels.json"),
        (("labels.json",), "no tokenizer"),
        (("vocab.txt",), None),
    ):
        for name in copied:
            shutil.copyfile(DEMO_DIRECTORY / name, weights / name)
        caplog.clear()
        lx.export("onnx", weights, artifact, parity=False, task="question-answering", overwrite=True)
        assert (told in caplog.messages) is (lacking is not None)
        if lacking:
            with pytest.raises(ArtifactError, match=f"has {lacking}.*copy vocab.txt and labels.json"):
                ask_about_picture(artifact, "how many things are there?", place / "scene.png")
    assert ask_about_picture(artifact, "how many things are there?", place / "scene.png").answers


def test_a_runner_names_answers(place: Path) -> None:
    question = "how many things are there?"
    answered = ask_about_picture(place / "fp32", question, place / "scene.png")
    with lx.load_artifact(place / "fp32") as runner:
        ids = np.array(runner.tokenizer.encode(question))[None]
        objects = answered.objects
        inputs = {"input_ids": ids, "visual_feats": objects.features[None], "visual_pos": objects.boxes[None]}
        outputs = runner.run({name: np.repeat(array, 2, axis=0) for name, array in inputs.items()})
        named = runner.answers(outputs, top=3)
        assert [[name for name, _ in row] for row in named] == [[name for name, _ in answered.answers[:3]]] * 2
        assert named[0][0][1] == pytest.approx(answered.answers[0][1])
        assert [len(row) for row in runner.answers(outputs)] == [5, 5]
        assert runner.manifest.task == "question-answering" and len(runner.labels) == 40
        with pytest.raises(InputError, match="the outputs hold no question_answering_score; they hold logits"):
            runner.answers({"logits": outputs["question_answering_score"]})
        for refused, top, said in (
            (outputs["question_answering_score"], 5, "takes what run.. returns, arrays by name, not of type ndarray"),
            (
                {"question_answering_score": outputs["question_answering_score"][:, :3]},
                5,
                r"\[rows, 40 answers\], .* \[2, 3\]",
            ),
            ({"question_answering_score": outputs["question_answering_score"][0]}, 5, r"not float32 \[40\]"),
            (outputs, 0, "top is a number of answers, 1 or more, not 0"),
            (outputs, 2.5, "1 or more, not 2.5"),
        ):
            with pytest.raises(InputError, match=said):
                runner.answers(refused, top=top)
        listed = {name: array.tolist() for name, array in outputs.items()}
        assert runner.answers(listed, top=3)[1][0][0] == named[1][0][0]
    with lx.load_artifact(place / "other") as runner:
        with pytest.raises(ArtifactError, match=r"has no labels\.json"):
            runner.answers(outputs)
        with pytest.raises(ArtifactError, match="has no tokenizer"):
            _ = runner.tokenizer


def test_the_command(place: Path, tmp_path: Path) -> None:
    artifact, scene = str(place / "fp16"), str(tmp_path / "scene.png")
    drawn = run("ask", artifact, "--draw-scene", "3", "--image", scene, cwd=tmp_path)
    assert drawn.returncode == 0 and drawn.stdout == "" and "questions about it, with their answers:" in drawn.stderr
    asked = run("ask", artifact, "how many things are there?", "--image", scene, "--top", "3", cwd=tmp_path)
    lines = asked.stdout.splitlines()
    assert asked.returncode == 0 and len(lines) == 3 and asked.stderr == ""
    assert all(line.split()[0].endswith("%") for line in lines)
    told = run("ask", artifact, "how many things are there?", "--image", scene, "--json", cwd=tmp_path)
    found = json.loads(told.stdout)
    assert len(found["answers"]) == 5 and found["answers"][0]["answer"] == lines[0].split()[1]
    saved = run("ask", artifact, "how many things are there?", "--image", scene, "--save", "answer.png", cwd=tmp_path)
    assert saved.returncode == 0 and (tmp_path / "answer.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (["fp16", "how many?", "--image", "gone.png"], "gone.png: no such picture file"),
        (["fp16", "how many dogs?", "--image", "scene.png"], "does not know the word 'dogs'"),
        (["other", "how many?", "--image", "scene.png"], "takes features, not pictures"),
        (["fp16", "--draw-scene", "8", "--image", "scene.png"], "scene.png: exists already"),
        (["fp16", "--draw-scene", "-1", "--image", "new.png"], "the seed of a scene must be zero or more"),
        (["fp16", "--draw-scene", "1", "--image", "gone/new.png"], "cannot be written"),
        (["fixed", "how many?", "--image", "scene.png", "--save", "x.png"], "export it again with --attentions"),
        (
            ["fp16", "how many?", "--image", "scene.png", "--save", "x.png", "--word", "red"],
            "not a word of the question",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line(arguments: list[str], saying: str, place: Path) -> None:
    refused(run("ask", *arguments, cwd=place), saying)
    assert not (place / "x.png").exists() and not (place / "new.png").exists()


def test_bytes_that_are_no_text(place: Path) -> None:
    """A terminal can pass any bytes; Python hands them on as lone surrogates."""
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from lxmert_export.cli.main import main; main()"
    root = str(Path(lx.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code, root, "ask", "fp16", b"how many \xff?", "--image", "scene.png"],
        capture_output=True, text=True, cwd=place, check=False,
    )  # fmt: skip
    refused(done, "UTF-8")


def test_usage_is_exit_code_2(place: Path) -> None:
    for arguments in (
        ["fp16", "how many?"],
        ["fp16", "--image", "scene.png"],
        ["--image", "scene.png"],
        ["fp16", "how many?", "--image", "scene.png", "--word", "many"],
    ):
        assert run("ask", *arguments, cwd=place).returncode == 2


def test_asking_needs_no_pytorch_and_no_tokenizers(place: Path) -> None:
    arguments = ("ask", "fp16", "how many things are there?", "--image", "scene.png", "--json")
    done = run_without(("torch", "tokenizers"), *arguments, cwd=place)
    assert done.returncode == 0, done.stderr
    with_all = run(*arguments, cwd=place)
    assert json.loads(done.stdout) == json.loads(with_all.stdout)
