"""One export of each target, as a user makes it: written, judged, verified and inspected. The start of ``make quick``."""

from __future__ import annotations

import pytest

import lxmert_export as lx
from lxmert_export.artifact.directory import Artifact
from lxmert_export.engines.on_device.build_and_verify import NOT_RUN
from lxmert_export.errors import BuiltNotRun
from parity_tests.fixtures.command import run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("onnx", "fp32"),
        ("onnx", "fp16"),
        pytest.param("tensorflow", "fp32", marks=pytest.mark.tensorflow),
        pytest.param("tflite", "int8", marks=pytest.mark.tensorflow),
    ],
)
def test_it_passes_its_gate_and_verifies(target: str, precision: str, exports: Exports) -> None:
    artifact = exports.lively(target, "question-answering", TINY, precision=precision)
    assert artifact.report is not None and artifact.report.passed
    done = run("verify", str(artifact.path), cwd=artifact.path)
    assert done.returncode == 0, done.stderr
    assert f"{target}, {precision}" in run("inspect", str(artifact.path), cwd=artifact.path).stdout


@pytest.mark.tensorrt
def test_an_engine_is_built_and_says_that_it_was_not_run(exports: Exports) -> None:
    engine: Artifact = exports.engine(exports.lively("onnx", "question-answering", TINY), compute_capability="8.9")
    assert engine.manifest.options["status"] == NOT_RUN
    with pytest.raises(BuiltNotRun):
        lx.verify(engine.path)
    assert "tensorrt, fp32" in run("inspect", str(engine.path), cwd=engine.path).stdout
