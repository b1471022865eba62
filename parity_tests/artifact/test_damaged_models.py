"""A model that was damaged before its hash was taken: inspect, verify and load_artifact say so in one line each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lxmert_export as lx
from lxmert_export.api.export import export
from lxmert_export.api.inspect import inspect_artifact
from lxmert_export.artifact.directory import MANIFEST_FILE
from lxmert_export.errors import ArtifactError
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.manifests import edit_manifest, list_files
from parity_tests.fixtures.random_models import TINY, lively_model

WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    "onnx": ("onnx", {}),
    "emulated": ("onnx", {"precision": "bf16"}),
    "saved-model": ("tensorflow", {}),
    "keras": ("tensorflow", {"file_format": "keras"}),
    "tflite": ("tflite", {}),
}
VARIABLES = "saved_model/variables/variables"
FILES = [
    ("onnx", "model.onnx"),
    ("onnx", "model.onnx.data"),
    ("saved-model", "saved_model/saved_model.pb"),
    ("saved-model", f"{VARIABLES}.index"),
    ("saved-model", f"{VARIABLES}.data-00000-of-00001"),
    ("keras", "model.keras"),
    ("tflite", "model.tflite"),
]
# The graph is whole: what is wrong with the weights shows when they are loaded.
WEIGHTS = ("model.onnx.data", f"{VARIABLES}.data-00000-of-00001")


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def start(content: bytes) -> bytes:
    return content[:10]


def nothing(content: bytes) -> bytes:
    return b""


def end_lost(content: bytes) -> bytes:
    return content[:-40]


def flipped(content: bytes) -> bytes:
    return bytes(byte ^ (0xFF if place % 97 == 0 else 0) for place, byte in enumerate(content))


@pytest.fixture(scope="module")
def artifacts(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("artifacts")
    for kind, (target, options) in WRITERS.items():
        shutil.copytree(exports.lively(target, "question-answering", TINY, **options).path, directory / kind)
    return directory


def with_hashes(directory: Path) -> Path:
    """The directory, its manifest saying of every file what it is now."""
    list_files(directory, *json.loads((directory / MANIFEST_FILE).read_text())["files"])
    return directory


@pytest.mark.parametrize("damage", [half, start, nothing, end_lost, flipped])
@pytest.mark.parametrize(("kind", "file"), FILES)
def test_a_damaged_file_is_one_line(
    kind: str, file: str, damage: Callable[[bytes], bytes], artifacts: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(artifacts / kind, copy)
    (copy / file).write_bytes(damage((copy / file).read_bytes()))
    with_hashes(copy)
    if file not in WEIGHTS:
        _is_one_line(inspect_artifact, copy)
    if not (file == WEIGHTS[0] and damage is flipped):  # other weights, which are there: verify's own tests
        _is_one_line(lx.load_artifact, copy)
        _is_one_line(lx.verify, copy)


def _is_one_line(use: Callable[[Path], object], directory: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        use(directory)
    assert str(directory) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [half, start, nothing])
@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.data"])
def test_a_damaged_file_that_is_emulated_is_one_line(
    file: str, damage: Callable[[bytes], bytes], artifacts: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(artifacts / "emulated", copy)
    (copy / file).write_bytes(damage((copy / file).read_bytes()))
    _is_one_line(lx.verify, with_hashes(copy))


def test_a_file_of_fixed_axes_in_an_artifact_of_free_ones(artifacts: Path, tmp_path: Path) -> None:
    fixed = export(
        "tflite",
        lively_model("question-answering", TINY),
        tmp_path / "fixed",
        fixed={"batch": 1, "text": 7, "objects": 5},
        parity=False,
    )
    copy = tmp_path / "copy"
    shutil.copytree(artifacts / "tflite", copy)
    shutil.copyfile(fixed.file("model.tflite"), copy / "model.tflite")
    edit_manifest(copy, options=dict(fixed.manifest.options))  # its operators are others
    with pytest.raises(ArtifactError) as caught:
        lx.verify(with_hashes(copy))
    assert str(caught.value).startswith("copy: failed while it ran: ") and "\n" not in str(caught.value)
