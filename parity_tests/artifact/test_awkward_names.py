"""Directories whose names read as patterns, or that the locale cannot spell: written, read and verified like any other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import lxmert_export as lx
from lxmert_export.api.export import export
from lxmert_export.api.inspect import inspect_artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.files.glob_free import glob_free
from lxmert_export.files.hub import DEMO_DIRECTORY
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_model

SHALLOW = TINY.replace(l_layers=0, r_layers=0)
NAME = r"a[1]*b? back\slash"
CASES: list[tuple[str, dict[str, Any]]] = [
    ("tensorflow", {}),
    ("tensorflow", {"file_format": "keras"}),
    ("tflite", {}),
    ("onnx", {}),
]


@pytest.mark.parametrize(("target", "options"), CASES)
def test_a_name_that_reads_as_a_pattern_is_a_name(target: str, options: dict[str, Any], tmp_path: Path) -> None:
    artifact = export(target, lively_model("question-answering", SHALLOW), tmp_path / NAME, **options)
    assert artifact.path == tmp_path / NAME and [entry.name for entry in tmp_path.iterdir()] == [NAME]
    assert lx.verify(artifact.path).passed
    assert inspect_artifact(artifact.path)["graph"]["matmuls"]


@pytest.fixture
def copied(exports: Exports, tmp_path: Path) -> Path:
    """A SavedModel below a name that reads as a pattern."""
    return Path(
        shutil.copytree(exports.lively("tensorflow", "question-answering", TINY).path, tmp_path / "b[1]" / "copy")
    )


def test_a_copy_below_such_a_name_verifies(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lx.verify(tmp_path / "b[1]" / "copy").passed
    monkeypatch.chdir(tmp_path / "b[1]")
    assert lx.verify("copy").passed


def test_what_tensorflow_says_of_such_a_file_names_it(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: str) -> None:
        raise OSError(f"SavedModel file does not exist at: {path}")

    monkeypatch.setattr(tf.saved_model, "load", fails)
    with pytest.raises(ArtifactError, match=r"b\[1\]/copy/saved_model: TensorFlow cannot serve it"):
        lx.load_artifact(copied)


def test_no_link_is_made_where_none_is_needed_and_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plain, pattern = tmp_path / "plain", tmp_path / "[1]"
    pattern.mkdir()
    with glob_free(plain) as same:
        assert same is plain
    with glob_free(pattern) as link:
        assert "[" not in str(link) and link.samefile(pattern)
    assert list(tmp_path.iterdir()) == [pattern] and pattern.is_dir()


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
MEND = r"this name is not UTF-8 in this locale: set PYTHONUTF8=1 \(or LC_ALL=C.UTF-8\), or use an ASCII name"


def python(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **ASCII, "PYTHONPATH": str(Path(__file__).parent.parent.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, encoding="utf-8", cwd=cwd, env=variables, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [("onnx", "demo", "-o", "été c"), ("convert", "demo", "--to", "hf", "-o", "été"),
                                       ("verify", "été"), ("inspect", "été"), ("tensorflow", "été")])  # fmt: skip
def test_a_name_that_the_locale_cannot_spell_is_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = python("from lxmert_export.cli.main import main; main()", *arguments, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert re.fullmatch(rf"error: été( c)?: {MEND}\n", done.stderr), done.stderr
    assert not any(tmp_path.iterdir())


IN_PYTHON = """
import lxmert_export as lx
for use in (lambda: lx.export("onnx", "demo", "\\xe9t\\xe9"), lambda: lx.load_artifact("\\xe9t\\xe9")):
    try:
        use()
    except lx.ArtifactError as error:
        print(ascii(str(error)))
"""


def test_in_python_it_is_an_artifact_error(tmp_path: Path) -> None:
    done = python(IN_PYTHON, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [MEND.replace("\\", "") in line for line in done.stdout.splitlines()] == [True, True]
    assert not any(tmp_path.iterdir())


def test_an_ascii_name_is_read_beside_others(tmp_path: Path) -> None:
    """What the process has mapped from elsewhere may be named as it likes: a checkpoint below such a directory is read."""
    place = tmp_path / "été"
    place.mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copy(DEMO_DIRECTORY / name, place)
    done = python("from lxmert_export.cli.main import main; main()", "inspect", ".", cwd=place)
    assert done.returncode == 0 and "dialect" in done.stdout, done.stderr
