"""What is not installed is said by its own name: the pip extra of the very library that is missing."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

import lxmert_export as lx
from lxmert_export import extras
from lxmert_export.errors import MissingExtra
from lxmert_export.extras import Library, require
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_model

pytestmark = pytest.mark.quick


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """From now on these modules are not installed."""
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in modules else find_spec(name))


def test_the_first_library_that_is_missing_is_named() -> None:
    here, gone, worse = Library("json", "a", ()), Library("no_such_module", "b", ()), Library("nor_this", "c", ())
    require("reading", here)
    with pytest.raises(MissingExtra, match=r"^reading needs the extra 'b': pip install 'lxmert-export\[b\]'$"):
        require("reading", here, gone, worse)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    lx.save_checkpoint(lively_model("question-answering", TINY), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_a_missing_reference_is_refused(exports: Exports, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = exports.lively("onnx", "question-answering", TINY)
    without(monkeypatch, "torch")
    with pytest.raises(MissingExtra, match="^the reference needs the extra 'torch'"):
        check_here([graph.path], checkpoint=checkpoint)


@pytest.mark.parametrize(
    ("missing", "precision", "reason"),
    [
        ("onnxruntime", "fp32", "running ONNX artifacts needs the extra 'onnx'"),
        ("onnx_ir", "fp16", "reading the precision of ONNX artifacts needs the extra 'onnx'"),
    ],
)
def test_a_missing_runtime_is_not_taken_for_a_missing_reference(
    missing: str, precision: str, reason: str, exports: Exports, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = exports.lively("onnx", "question-answering", TINY, precision=precision)
    without(monkeypatch, missing)
    with pytest.raises(MissingExtra, match=f"^{reason}"):
        check_here([graph.path], checkpoint=checkpoint)


def test_a_runner_needs_its_runtime_alone(exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running an ONNX file needs onnxruntime, and neither ``onnx`` nor PyTorch."""
    graph = exports.lively("onnx", "question-answering", TINY)
    without(monkeypatch, "onnx", "onnxscript", "onnx_ir", "torch")
    lx.load_artifact(graph.path).close()
    without(monkeypatch, "onnxruntime")
    with pytest.raises(MissingExtra, match="running ONNX artifacts"):
        lx.load_artifact(graph.path)


@pytest.mark.tensorflow
def test_an_artifact_that_was_not_run_is_not_vouched_for(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = shutil.copytree(exports.lively("onnx", "question-answering", TINY, precision="fp16").path, tmp_path / "half")
    lite = shutil.copytree(exports.lively("tflite", "question-answering", TINY).path, tmp_path / "lite")
    without(monkeypatch, "onnx_ir")
    assert check_here([half, lite]).vouched == ("half",)
    without(monkeypatch, "onnxruntime")
    report = check_here([half, lite])
    assert report.vouched == () and not any("was emulated at export" in note for note in report.notes)
