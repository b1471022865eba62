"""A slice of the laws in every gate and in verify: cheap, and blind to none of the planted faults that break a law."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lxmert_export as lx
from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.artifact.golden import golden_of
from lxmert_export.errors import ArtifactError
from lxmert_export.judging import artifact as judging_artifact
from lxmert_export.judging.artifact import JudgingRequest, judge_artifact
from lxmert_export.parity.cells import Cell
from lxmert_export.parity.law_slice import slice_subject, sliced_cells
from lxmert_export.parity.scores import measure_floor
from lxmert_export.reference.torch_runner import TorchRunner
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.onnx.session import OnnxRuntimeRunner
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.sample_inputs import sample_inputs
from lxmert_export.spec.signature import Task, task_signature
from parity_tests.faults.lawbreakers import LAW_FAULTS
from parity_tests.faults.onnx_faults import plant_in_file
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_model

REPEATED = "law: determinism"


@pytest.fixture(scope="module")
def sound(exports: Exports) -> Artifact:
    return exports.lively("onnx", "pretraining", TINY, object_heads=True)


def slice_of(artifact: Artifact) -> list[Cell]:
    """The laws' cells of a gate that does not fail by values: the laws alone must see the fault."""
    golden = golden_of(artifact)
    request = JudgingRequest(
        artifact, golden.samples, golden.reference, golden.floors, (CPU,), golden=golden, laws="slice"
    )
    return [cell for cell in judge_artifact(request).cells if cell.kind == "law"]


def test_sound_artifacts_keep_the_laws_and_the_report_says_so(sound: Artifact) -> None:
    assert sound.report is not None and sound.report.passed
    for report in (sound.report, lx.verify(sound.path)):
        laws = {(cell.against, cell.family) for cell in report.cells if cell.kind == "law"}
        assert laws == {
            (REPEATED, "plain again"),
            ("law: laws together", "all"),
            ("law: batch invariance", "one row alone"),
        }
        assert max(cell.score or 0 for cell in report.cells if cell.kind == "law") < 3
        assert {cell.score for cell in report.cells if cell.against == REPEATED} == {0.0}


# What only all laws see: fully masked rows, and noise far below the floor.
UNSEEN = {"words masked by infinity", "objects masked by infinity", "lowest number as mask", "random noise"}


@pytest.mark.parametrize("name", [name for name in LAW_FAULTS if name not in UNSEEN])
def test_every_planted_fault_breaks_the_slice(
    name: str, sound: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = replace(sound, path=Path(shutil.copytree(sound.path, tmp_path / "out")), identity=None)
    plant_in_file(sound.file(ONNX_FILE), copied.path / ONNX_FILE, LAW_FAULTS[name])
    monkeypatch.setattr(judging_artifact, "judge_laws", lambda *arguments: ([], []))  # which a broken slice calls for
    if name == "frozen batch":  # it cannot run the families, whose batches are of other sizes
        with pytest.raises(ArtifactError, match="failed while it ran: .*Reshape"):
            slice_of(copied)
        return
    assert {cell.against for cell in slice_of(copied) if cell.status == "FAIL"} >= {"law: laws together"}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every call of a runner."""
    calls: list[int] = []
    run: Callable[..., Any] = Runner.run

    def counting(self: Runner, inputs: Any, **options: Any) -> Any:
        calls.append(len(inputs["input_ids"]))
        return run(self, inputs, **options)

    monkeypatch.setattr(Runner, "run", counting)
    return calls


def test_the_slice_is_at_most_a_fifth_of_verify(sound: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, golden = counted(monkeypatch), golden_of(sound)
    assert lx.verify(sound.path).passed
    replayed = [rows for family in golden.samples.families for rows in family.rows]
    # the first batch again, half of a batch with everything varied, and one row
    assert calls[: len(replayed)] == replayed and calls[len(replayed) :] == [8, 4, 1]
    assert sum(calls[len(replayed) :]) <= 0.2 * sum(replayed)


class Restless:
    """Gives every output of a second call a little more of its size."""

    def __init__(self, share: float) -> None:
        self.share, self.called = share, 0

    def __call__(self, outputs: Any) -> Any:
        self.called += 1
        moved = 1 + self.share * (self.called % 7)
        return {name: (array * moved).astype(array.dtype) for name, array in outputs.items()}


@pytest.mark.parametrize("pair", [False, True])
def test_an_artifact_whose_runs_differ_fails_by_name(
    pair: bool, sound: Artifact, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, restless = OnnxRuntimeRunner.compute, Restless(5e-7)

    def moving(self: OnnxRuntimeRunner, inputs: Any) -> Any:
        return restless(compute(self, inputs))

    monkeypatch.setattr(OnnxRuntimeRunner, "compute", moving)
    if pair:
        report = check_here([sound.path])
    else:
        report = lx.verify(sound.path)
    failed = [cell for cell in report.failures if cell.against == REPEATED]
    assert failed and not report.passed and report.status_of(sound.name) == "FAIL"
    assert not [cell for cell in report.failures if cell.kind == "reference"], "noise that values do not show"


def test_pairs_of_sentences_and_fixed_axes() -> None:
    """NLVR2 has two pictures a row; a fixed batch leaves no row alone; one word and one object leave little to vary."""
    cases: list[tuple[Task, dict[str, int], list[int], int]] = [
        ("nlvr2", {}, [4, 1], 0),
        ("nlvr2", {"batch": 2}, [2], 1),
        ("model", {"text": 1, "objects": 1}, [4, 1], 0),
        ("model", {"batch": 1, "text": 1, "objects": 1}, [], 2),
    ]
    for task, fixed, calls, missing in cases:
        signature = task_signature(TINY, task, hidden_states=True, attentions=True, fixed=fixed)
        run: list[int] = []
        with TorchRunner(lively_model(task, TINY), signature, InputLimits.of(TINY), "fp32") as runner:
            subject = slice_subject(signature, TINY, sample_inputs(signature, TINY))
            assert subject is not None
            outputs = runner.run(subject.inputs)
            floors = {(subject.family, name): measure_floor([a], [a], "fp32") for name, a in outputs.items()}

            def noting(inputs: Any, runner: TorchRunner = runner, run: list[int] = run) -> Any:
                run.append(len(inputs["input_ids"]))
                return runner.run(inputs)

            cells, not_run = sliced_cells("x", "native", noting, subject, outputs, floors, "fp32", lambda call: True)
        assert run == calls and len(not_run) == missing
        assert {cell.status for cell in cells} <= {"pass"} and len(cells) == len(calls) * len(outputs)


def test_weights_in_half_precision_are_judged_by_the_floor_of_float32(exports: Exports) -> None:
    """The floor of the gate is that of rounded weights, 3,000 times as large, and both calls have the same weights."""
    artifact = exports.lively("tflite", "question-answering", TINY, precision="fp16")
    (cell,) = [cell for cell in slice_of(artifact) if cell.against == "law: laws together"]
    assert artifact.report is not None
    gate = next(c.floor or 0 for c in artifact.report.cells if (c.kind, c.family) == ("reference", "ragged"))
    assert cell.status == "pass" and 0 < (cell.floor or 0) < gate / 100
