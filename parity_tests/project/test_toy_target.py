"""A new target is a row and its code: it goes through the whole tool, and no file of the package is edited for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lxmert_export as lx
from lxmert_export.api.doctor import machine
from lxmert_export.api.inspect import inspect_artifact, summary_rows
from lxmert_export.artifact.directory import open_artifact
from lxmert_export.artifact.targets import TARGETS, Part
from parity_tests.faults.torch_faults import FAULTS
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.project.toy_target import TOY


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and two artifacts of it: a toy and an ONNX one."""
    place = tmp_path_factory.mktemp("place")
    lx.save_checkpoint(lively_model("question-answering", TINY), place / "checkpoint")
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(TARGETS, "toy", TOY)
        report = lx.export("toy", place / "checkpoint", place / "toy").report
        assert report is not None and report.passed
    lx.export("onnx", place / "checkpoint", place / "onnx")
    return place


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "toy", TOY)


def test_it_is_verified_and_inspected(place: Path) -> None:
    assert lx.verify(place / "toy").passed
    facts = inspect_artifact(place / "toy")
    assert facts["graph"]["matmuls"] == {"fp32": 35} and facts["manifest"]["options"]["made of"] == "onnx"
    assert ("target", "toy, fp32, task question-answering") in summary_rows(facts)


def test_its_gate_can_fail(tmp_path: Path) -> None:
    faulty = lively_model("question-answering", TINY)
    sound = lively_model("question-answering", TINY)
    FAULTS["gelu_tanh"](faulty)
    artifact = lx.export("toy", faulty, tmp_path / "faulty", parity=False)
    report = check_here([artifact.path], checkpoint=sound)
    assert not report.passed


def test_the_matrix_judges_it_in_a_process_of_its_own(place: Path) -> None:
    """The child knows the target only from the row that came with the request."""
    report = lx.check_parity(
        [place / "toy", place / "onnx"],
        checkpoint=place / "checkpoint",
        laws=True,
        time_limit=600,
        require_targets=["toy"],
    )
    assert report.passed and {facts.target for facts in report.runners} == {"toy", "onnx"}
    assert {(cell.runner, cell.against) for cell in report.cells if cell.kind == "pair"} == {("toy", "onnx")}
    assert {cell.runner for cell in report.cells if cell.kind == "law"} == {"toy", "onnx"}
    assert json.loads(json.dumps(report.to_dict()))["passed"]


def test_doctor_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {one["what"]: one for one in machine()["capabilities"]}
    assert capabilities["convert to Toy"]["works"] and capabilities["run and verify Toy artifacts"]["works"]
    monkeypatch.setitem(TARGETS, "toy", without_runtime())
    capabilities = {one["what"]: one for one in machine()["capabilities"]}
    assert capabilities["run and verify Toy artifacts"]["mend"] == "pip install 'lxmert-export[toy]'"


def without_runtime() -> object:
    from dataclasses import replace

    from lxmert_export.extras import Library

    gone = (Library("no_such_runtime", "toy", ("toy-runtime",)),)
    return replace(TOY, runtime=replace(TOY.runtime, opens=Part(TOY.runtime.opens.place, gone)))


def test_options_of_other_targets_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(lx.ConversionError, match="opset: not an option of fp32 toy"):
        lx.export("toy", place / "checkpoint", tmp_path / "toy", opset=20)
    with pytest.raises(lx.ConversionError, match="target toy has no precision 'fp16'; choose from fp32"):
        lx.export("toy", place / "checkpoint", tmp_path / "toy", precision="fp16")


def test_where_nobody_knows_it_it_is_an_error(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TARGETS, "toy")
    unknown = "this version does not know its target 'toy'; it knows onnx, tensorflow, tflite, tensorrt"
    for use in (open_artifact, lx.verify, lx.load_artifact, inspect_artifact):
        with pytest.raises(lx.ArtifactError, match=unknown):
            use(place / "toy")
    with pytest.raises(lx.ConversionError, match="unknown target 'toy'; choose from onnx, tensorflow, tflite"):
        lx.export("toy", place / "checkpoint", tmp_path / "toy")
    with pytest.raises(lx.InputError, match="unknown target toy"):
        check_here([place / "onnx"], require_targets=["toy"])


@pytest.mark.parametrize("row", TARGETS.values(), ids=lambda row: row.name)
def test_every_row_names_code_that_is_there(row: object) -> None:
    parts = [part for part in vars(row).values() if isinstance(part, Part)]
    runtime = vars(row)["runtime"]
    parts += [part for part in (runtime.opens, runtime.finds) if part is not None]
    assert all(callable(part.load()) for part in parts)
