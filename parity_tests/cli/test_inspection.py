"""What inspect and verify say of a converted model's file: what it is, and the artifact directory that it lies in."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from lxmert_export.api.inspect import inspect_checkpoint, summary_rows
from lxmert_export.artifact.directory import open_artifact, refuse_converted
from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.errors import ArtifactError, CheckpointError
from lxmert_export.files.hub import DEMO_DIRECTORY
from parity_tests.fixtures.missing_modules import run_without

pytestmark = pytest.mark.quick

KINDS = {
    "model.tflite": "a TFLite model",
    "model.keras": "a Keras model",
    "model.onnx": "an ONNX model",
    "saved_model": "a SavedModel",
    "saved_model/saved_model.pb": "a SavedModel",
    "saved_model/variables": "a part of an artifact",
    "model.onnx.data": "a part of an artifact",
    "golden.safetensors": "a part of an artifact",
    "manifest.json": "a part of an artifact",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The files of converted models as far as one tells them apart, in an artifact directory and in none."""
    for directory in (tmp_path / "artifact", tmp_path / "foreign"):
        (directory / "saved_model" / "variables").mkdir(parents=True)
        (directory / "saved_model" / "saved_model.pb").write_bytes(b"\x08\x01")
        (directory / "saved_model" / "variables" / "variables.index").write_bytes(b"")
        (directory / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(20))
        with zipfile.ZipFile(directory / "model.keras", "w") as file:
            for name in ("metadata.json", "config.json", "model.weights.h5"):
                file.writestr(name, "{}")
        for name in ("model.onnx", "model.onnx.data", "golden.safetensors"):
            (directory / name).write_bytes(b"\x08\x0a" + bytes(20))
    files = [p.relative_to(tmp_path / "artifact").as_posix() for p in (tmp_path / "artifact").rglob("*") if p.is_file()]
    (tmp_path / "artifact" / "manifest.json").write_text(json.dumps({"target": "onnx", "files": dict.fromkeys(files)}))
    return tmp_path


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_an_artifact_names_its_directory(name: str, place: Path) -> None:
    path = place / "artifact" / name
    said = (
        f"{path}: is {KINDS[name]}, not an artifact directory; name the directory that holds it: {place / 'artifact'}"
    )
    for use in (refuse_converted, open_artifact):
        with pytest.raises(ArtifactError) as caught:
            use(path)
        assert str(caught.value) == said


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind != "a part of an artifact"])
def test_a_converted_model_of_unknown_origin_is_told_from_a_checkpoint(name: str, place: Path) -> None:
    path = place / "foreign" / name
    said = f"{path}: is {KINDS[name]}, not an artifact directory .there is no manifest.json with it"
    for use in (refuse_converted, open_artifact):
        with pytest.raises(ArtifactError, match=said):
            use(path)


def test_whatever_its_name_it_is_told_by_its_content(place: Path) -> None:
    for name, other in (("model.tflite", "weights.bin"), ("model.keras", "weights.pth")):
        path = (place / "foreign" / name).rename(place / other)
        with pytest.raises(ArtifactError, match=f"is {KINDS[name]}"):
            refuse_converted(path)


def test_a_manifest_of_something_else_takes_no_checkpoint(place: Path) -> None:
    for content in (
        '{"target": "onnx", "files": {"other": {}}}', '{"target": "onnx", "files": 3}', '{"files": {"weights.bin": 1}}',
        "[]", "no json",
    ):  # fmt: skip
        (place / "manifest.json").write_text(content)
        (place / "weights.bin").write_bytes(b"\x80\x02")
        refuse_converted(place / "weights.bin")


def test_checkpoints_and_what_is_not_there_pass(place: Path) -> None:
    (place / "weights.pth").write_bytes(b"PK\x03\x04, and no more of a zip file")
    (place / "small.bin").write_bytes(b"")
    for path in (
        "demo",
        "owner/name",
        place / "gone.onnx",
        place / "foreign",
        place / "weights.pth",
        place / "small.bin",
    ):
        refuse_converted(path)
    assert inspect_checkpoint("demo")["kind"] == "checkpoint"


def test_inspect_says_it_in_one_line_and_needs_no_framework(place: Path) -> None:
    done = run_without(("torch",), "inspect", "artifact/model.tflite", cwd=place)
    assert done.returncode == 1
    assert done.stderr == (
        "error: artifact/model.tflite: is a TFLite model, not an artifact directory; name the directory that holds it: artifact\n"
    )


@pytest.mark.parametrize("name", KINDS)
def test_given_as_a_checkpoint_it_is_none(name: str, place: Path) -> None:
    manifest = place / "artifact" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "checkpoint": {"name": "owner/name"}}))
    path = place / "artifact" / name
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    mend = "name the checkpoint that it was exported from, owner/name"
    assert str(caught.value) == f"{path}: is {KINDS[name]}, not a checkpoint: {mend}"


def test_an_artifact_given_as_a_checkpoint_names_its_own(place: Path) -> None:
    for checkpoint, origin in (({"name": "owner/name"}, ", owner/name"), ({}, ""), (None, "")):
        values = {"target": "onnx", "files": {"model.onnx": {}}, "checkpoint": checkpoint}
        (place / "artifact" / "manifest.json").write_text(json.dumps(values))
        mend = f"name the checkpoint that it was exported from{origin}$"
        with pytest.raises(CheckpointError, match=f"artifact: is an artifact, not a checkpoint: {mend}"):
            read_checkpoint(place / "artifact")


def test_a_keras_file_of_ones_own_is_loaded_and_saved(place: Path) -> None:
    said = "model.keras: is a Keras model, not a checkpoint: import converters.tensorflow_model, load it with .*load_model, and"
    with pytest.raises(CheckpointError, match=rf"{said} write a checkpoint with .* save_pretrained\(DIRECTORY\)$"):
        read_checkpoint(place / "foreign" / "model.keras")
    with pytest.raises(CheckpointError, match="model.tflite: is a TFLite model, not a checkpoint: name the checkpoint"):
        read_checkpoint(place / "foreign" / "model.tflite")


def test_a_checkpoint_beside_a_manifest_of_something_else_is_read(tmp_path: Path) -> None:
    for file in DEMO_DIRECTORY.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    (tmp_path / "manifest.json").write_text('{"files": {"model.safetensors": "its hash"}}')
    assert read_checkpoint(tmp_path).config == read_checkpoint(tmp_path / "model.safetensors").config


def test_what_a_checkpoint_takes_and_answers_is_shown() -> None:
    rows = dict(summary_rows(inspect_checkpoint("demo")))
    assert rows["features"] == "192 wide, boxes of 4 numbers"
    assert rows["vocabulary"] == "80 words, texts of at most 32, with a tokenizer"
    assert rows["answers"] == "40, named in labels.json"
