"""What earlier versions wrote can still be verified, run, judged again, and checked as a bundle.

Each archive in ``fixtures/earlier_versions`` is named by the commit that wrote it: a small question-answering network
(32 wide, 60 words), exported to every target, an engine bundle with a device's report, and a parity report.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

import lxmert_export as lx
from lxmert_export.api.inspect import inspect_artifact
from lxmert_export.cli.printing import PARITY_FAILED
from lxmert_export.files.hashing import sha256
from lxmert_export.parity.rejudging import read_report
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.command import run

pytestmark = pytest.mark.quick

ARCHIVES = Path(__file__).parent.parent / "fixtures" / "earlier_versions"
VERSIONS = {"9dbe590": "35db714de34660e57a817423407c7a366b6be44cbf3decb8c78dff663fd59466"}
OF_ONNX = ("onnx-fp32", "onnx-fp16", "bundle")
OF_TFLITE = ("tflite-fp32", "tflite-int8")
OF_TENSORFLOW = ("saved-model", "keras")
ARTIFACTS = [*OF_ONNX, *OF_TFLITE, *(pytest.param(name, marks=pytest.mark.tensorflow) for name in OF_TENSORFLOW)]


@pytest.fixture(scope="module", params=VERSIONS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that one earlier version filled."""
    archive = ARCHIVES / f"{request.param}.tar.xz"
    assert sha256(archive) == VERSIONS[request.param], "an archive stays as the earlier version wrote it"
    place = tmp_path_factory.mktemp("earlier")
    with tarfile.open(archive) as packed:
        packed.extractall(place, filter="data")
    return place / request.param


@pytest.mark.parametrize("name", ARTIFACTS)
def test_an_artifact_is_verified_and_inspected(name: str, written: Path) -> None:
    assert lx.verify(written / name).passed
    facts = inspect_artifact(written / name)
    assert facts["manifest"]["task"] == "question-answering"
    assert facts["graph"]["matmuls"]
    # Counted anew: their manifests hold none. The last vision half was in a SavedModel, and never read.
    assert facts["manifest"].get("flops") is None and 0 < facts["flops"]["file"] <= facts["flops"]["checkpoint"]


def test_artifacts_are_judged_by_their_checkpoint(written: Path) -> None:
    names = ("onnx-fp32", "onnx-fp16", "tflite-fp32", "tflite-int8")
    report = check_here([written / name for name in names], checkpoint=written / "checkpoint", laws=True)
    assert report.passed
    assert {cell.runner for cell in report.cells} >= set(names)


def test_a_report_is_read_whole_and_judged_again(written: Path, tmp_path: Path) -> None:
    report = read_report(written / "report.json")
    assert report.to_dict() == json.loads((written / "report.json").read_text())
    worst = max(cell.score for cell in report.cells if cell.score is not None)
    for threshold, code in ((8.0, 0), (worst / 2, PARITY_FAILED)):
        done = run("parity", "--from", str(written / "report.json"), "--threshold", str(threshold), cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr


def test_the_outputs_of_a_device_are_judged(written: Path) -> None:
    report = lx.check_device_report(written / "bundle", written / "device" / "report.json")
    assert report.passed


def test_the_archive_for_the_device_holds_the_bundle(written: Path, tmp_path: Path) -> None:
    with tarfile.open(written / "bundle.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    (bundle,) = tmp_path.iterdir()
    assert lx.verify(bundle).passed
