"""Directories whose names read as patterns, or that the locale cannot spell: written, read and verified like any other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import lxmert_export as lx
from lxmert_export.api import export
from lxmert_export.errors import ArtifactError
from lxmert_export.glob_free import glob_free
from lxmert_export.inspection import inspect_artifact
from parity_tests.random_models import lively_model

CASES: list[tuple[str, dict[str, Any]]] = [
    ("tensorflow", {}),
    ("tensorflow", {"file_format": "keras"}),
    ("tflite", {}),
    ("onnx", {}),
]


@pytest.mark.parametrize(("target", "options"), CASES)
@pytest.mark.parametrize("name", ["a[1]*b? out", r"back\slash"])
def test_a_name_that_reads_as_a_pattern_is_a_name(
    target: str, options: dict[str, Any], name: str, tmp_path: Path
) -> None:
    artifact = export(target, lively_model("question-answering"), tmp_path / name, **options)
    assert artifact.path == tmp_path / name and [entry.name for entry in tmp_path.iterdir()] == [name]
    assert lx.verify(artifact.path).passed
    assert inspect_artifact(artifact.path)["graph"]["matmuls"]


def test_a_copy_below_such_a_name_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = export("tensorflow", lively_model("question-answering"), tmp_path / "out")
    (tmp_path / "b[1]").mkdir()
    shutil.copytree(written.path, tmp_path / "b[1]" / "copy")
    assert lx.verify(tmp_path / "b[1]" / "copy").passed
    monkeypatch.chdir(tmp_path / "b[1]")
    assert lx.verify("copy").passed


def test_what_tensorflow_says_of_such_a_file_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = export("tensorflow", lively_model("question-answering"), tmp_path / "b[1]")

    def fails(path: str) -> None:
        raise OSError(f"SavedModel file does not exist at: {path}")

    monkeypatch.setattr(tf.saved_model, "load", fails)
    with pytest.raises(ArtifactError, match=r"b\[1\]/saved_model: TensorFlow cannot serve it"):
        lx.load_artifact(written.path)


def test_no_link_is_made_where_none_is_needed_and_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plain, pattern = tmp_path / "plain", tmp_path / "[1]"
    pattern.mkdir()
    with glob_free(plain) as same:
        assert same is plain
    with glob_free(pattern) as link:
        assert "[" not in str(link) and link.samefile(pattern)
    assert list(tmp_path.iterdir()) == [pattern] and pattern.is_dir()
