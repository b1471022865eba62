"""Every runner against every other: statuses, what may be named beside artifacts, isolation, and other checkpoints."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import lxmert_export as lx
from lxmert_export.artifact.directory import Artifact, open_artifact
from lxmert_export.artifact.golden import read_golden
from lxmert_export.errors import ArtifactError, BuiltNotRun, InputError, MissingExtra, RuntimeFailed
from lxmert_export.judging import pairs as matrix
from lxmert_export.judging.artifact import JudgingRequest
from lxmert_export.judging.own_process import child_command, child_environment, run_within
from lxmert_export.parity.report import RunnerFacts
from parity_tests.fixtures.checking import check_here, judging_here
from parity_tests.fixtures.command import run
from parity_tests.fixtures.random_models import TINY, lively_inputs, lively_model

PRETRAINING = {"prediction_logits", "cross_relationship_score", "question_answering_score"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, `fp32` and `fp16` of it, and recorded outputs of the same weights."""
    place = tmp_path_factory.mktemp("matrix")
    model = lively_model("pretraining", TINY)
    lx.save_checkpoint(model, place / "checkpoint")
    lx.export("onnx", place / "checkpoint", place / "fp32", parity=False)
    lx.export("onnx", place / "checkpoint", place / "fp16", precision="fp16", parity=False)
    inputs = lively_inputs(TINY)
    with torch.inference_mode():
        outputs = model(**inputs)
    recorded = {name: outputs[name].numpy() for name in PRETRAINING}
    save_file({**{n: t.numpy() for n, t in inputs.items()}, **recorded}, place / "recorded.safetensors")
    np.savez(place / "inputs.npz", **{name: tensor.numpy() for name, tensor in inputs.items()})
    return place


def test_every_runner_meets_float64_and_every_other(place: Path) -> None:
    names = ["canonical-fp64", "canonical-fp32", "canonical-fp16", "canonical-bf16", "transformers"]
    recorded = place / "recorded.safetensors"
    report = check_here(
        [place / "fp32", place / "fp16", *names, recorded], checkpoint=place / "checkpoint", inputs=place / "inputs.npz"
    )
    assert report.passed, report.summary()
    everyone = {"fp32", "fp16", *names, recorded.name}
    assert {facts.name for facts in report.runners} == everyone
    assert all(report.status_of(name) == "pass" for name in everyone)
    pairs = {frozenset((cell.runner, cell.against)) for cell in report.cells if cell.kind == "pair"}
    assert pairs == {frozenset((one, other)) for one in everyone for other in everyone if one != other}
    assert {cell.output for cell in report.cells if cell.runner == "transformers"} == PRETRAINING
    assert {cell.family for cell in report.cells if cell.runner == recorded.name} == {recorded.name}
    assert {cell.family for cell in report.cells if cell.runner == "fp32"} >= {"plain", "own", recorded.name}
    assert "masked-row" in report.not_run["transformers"]  # its mask is another there, by design
    assert any("3 rows" in note and "less certain" in note for note in report.notes)


def test_recorded_outputs_that_are_others_fail(place: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(place / "inputs.npz"))
    model = lively_model("pretraining", TINY, seed=3)
    with torch.inference_mode():
        outputs = model(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    np.savez(tmp_path / "other.npz", **arrays, prediction_logits=outputs["prediction_logits"].numpy())
    report = check_here([place / "fp32", tmp_path / "other.npz"], checkpoint=place / "checkpoint")
    assert not report.passed
    assert (report.status_of("other.npz"), report.status_of("fp32")) == ("FAIL", "pass")  # the pair speaks against one
    assert all(c.status == "FAIL" for c in report.cells if c.kind == "pair")
    alone = replace(report, cells=tuple(cell for cell in report.cells if cell.kind == "pair"))
    assert (alone.status_of("other.npz"), alone.status_of("fp32")) == ("FAIL", "FAIL")  # nobody knows which


@pytest.mark.parametrize(
    ("arrays", "saying"),
    [
        ({"input_ids": np.ones((2, 4), np.int64), "nonsense": np.ones(3)}, "neither an input nor an output"),
        ({"input_ids": np.ones((2, 4), np.int64)}, "missing input visual_feats"),
        ({"visual_feats": np.full((1, 2, 16), np.nan, np.float32)}, "NaN or infinity"),
    ],
    ids=["unknown", "missing", "nan"],
)
def test_inputs_that_do_not_fit(place: Path, tmp_path: Path, arrays: dict[str, Any], saying: str) -> None:
    np.savez(tmp_path / "inputs.npz", **arrays)
    with pytest.raises(InputError, match=f"inputs.npz.*{saying}"):
        check_here([place / "fp32"], checkpoint=place / "checkpoint", inputs=tmp_path / "inputs.npz")


def test_what_needs_a_checkpoint_says_so(place: Path) -> None:
    for extra in ({"inputs": place / "inputs.npz"}, {}):
        named = [place / "fp32"] if extra else [place / "fp32", "canonical-fp32"]
        with pytest.raises(InputError, match="give checkpoint"):
            check_here(named, **extra)


def test_another_checkpoint_is_told_and_allowed(place: Path, tmp_path: Path) -> None:
    lx.save_checkpoint(lively_model("pretraining", TINY, seed=2), tmp_path / "other")
    with pytest.raises(ArtifactError, match="not from .*other .*allow_other_checkpoint=True"):
        check_here([place / "fp32"], checkpoint=tmp_path / "other")
    report = check_here([place / "fp32"], checkpoint=tmp_path / "other", allow_other_checkpoint=True)
    assert not report.passed and "not from" in report.notes[-1]


def test_artifacts_of_the_same_name_are_told_apart(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "fp16", tmp_path / "fp32")
    report = check_here([place / "fp32", tmp_path / "fp32"], checkpoint=place / "checkpoint")
    assert {facts.name for facts in report.runners} == {str(place / "fp32"), str(tmp_path / "fp32")}


def raising(error: Exception, of: str, judged: Callable[[Artifact], Any]) -> Callable[[Artifact], Any]:
    def judge_one(artifact: Artifact) -> Any:
        if artifact.name == of:
            raise error
        return judged(artifact)

    return judge_one


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BuiltNotRun("engine: built, not run (no GPU)"), "built-not-run"),
        (MissingExtra("running it", "onnx"), "skipped"),
        (ArtifactError("its runtime crashed (SIGSEGV)"), "FAIL"),
    ],
    ids=["built-not-run", "skipped", "crashed"],
)
def test_one_that_cannot_be_run_does_not_keep_the_rest_from_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    judge_each = matrix.judge_each
    monkeypatch.setattr(
        "lxmert_export.reference.by_checkpoint.judge_each",
        lambda artifacts, judge_one, **options: judge_each(artifacts, raising(error, "fp16", judge_one), **options),
    )
    report = check_here([place / "fp32", place / "fp16"], checkpoint=place / "checkpoint")
    assert (report.status_of("fp32"), report.status_of("fp16")) == ("pass", status)
    assert report.passed == (status != "FAIL")
    assert status == "FAIL" or f"fp16 {status}" in report.summary()  # a pass names what it does not speak of
    required = replace(report, required=("onnx",))
    assert not required.passed and str(error) in required.summary()
    assert not replace(report, required=("tflite",)).passed
    alone = pytest.raises(type(error))
    with alone:
        check_here([place / "fp16"], checkpoint=place / "checkpoint")


def test_require_names_targets(place: Path) -> None:
    with pytest.raises(InputError, match="unknown target keras; choose from onnx"):
        check_here([place / "fp32"], checkpoint=place / "checkpoint", require_targets=["keras"])
    with pytest.raises(InputError, match="require_targets: onnx has no precision 'int4'; choose from fp32, fp16, bf16"):
        check_here([place / "fp32"], checkpoint=place / "checkpoint", require_targets=["onnx:int4"])


def test_require_tells_precisions_apart(place: Path) -> None:
    report = check_here([place / "fp32"], checkpoint=place / "checkpoint", require_targets=["onnx", "onnx:fp32"])
    assert report.passed
    lacking = replace(report, required=("onnx:fp32", "onnx:fp16"))
    assert not lacking.passed
    assert lacking.missing == ["onnx:fp16 is required, but no runner of this target and precision was named"]


class OnArrival:
    """Does something in the process that it is sent to."""

    def __init__(self, does: Callable[..., object], *arguments: object) -> None:
        self.does, self.arguments = does, arguments

    def __reduce__(self) -> Any:
        return self.does, self.arguments


@pytest.mark.parametrize(
    ("arrival", "saying"),
    [
        (OnArrival(os.abort), "its runtime crashed .SIGABRT."),
        (OnArrival(os._exit, 7), "ended its process with exit code 7"),
        (OnArrival(time.sleep, 60), "did not end within 3 s; time_limit"),
        (OnArrival(os.write, 1, b"\xff\xfe of a runtime"), "ended its process with exit code 1"),
    ],
    ids=["crash", "exit", "hang", "bytes"],
)
def test_a_runtime_that_crashes_or_hangs_takes_nothing_with_it(place: Path, arrival: OnArrival, saying: str) -> None:
    request = JudgingRequest(open_artifact(place / "fp32"), arrival, {}, {}, ())  # type: ignore[arg-type]
    with pytest.raises(RuntimeFailed, match=saying):
        run_within(request, 3)


class Unfindable:
    """Of a module that no other process finds, as the classes of a notebook are."""

    def __reduce__(self) -> tuple[Any, ...]:
        return attrgetter("no_such_name"), (None,)


@pytest.mark.parametrize(
    ("samples", "saying"),
    [(lambda: None, "this model cannot be sent to another"), (Unfindable(), "another process cannot read the request")],
)
def test_what_another_process_cannot_have_is_said(place: Path, samples: Any, saying: str) -> None:
    request = JudgingRequest(open_artifact(place / "fp32"), samples, {}, {}, ())
    with pytest.raises(RuntimeFailed, match=f"judge in this process, with time_limit=None.*: {saying}"):
        run_within(request, 60)


def test_a_runtime_that_fails_alone_is_a_failure_as_among_others(place: Path) -> None:
    artifact = open_artifact(place / "fp32")

    def judge_one(_: Artifact) -> Any:
        raise RuntimeFailed("its runtime crashed")

    report = matrix.report_on(*matrix.judge_each([artifact], judge_one))
    assert not report.passed and "its runtime crashed" in report.summary()


def test_a_process_of_its_own_finds_the_same(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "queue.py").write_text("raise RuntimeError('a file of the user that must not be imported')")
    monkeypatch.chdir(tmp_path)
    artifact = lx.export("onnx", place / "checkpoint", tmp_path / "out")
    golden = read_golden(artifact.file("golden.safetensors"), artifact.manifest.signature)
    request = JudgingRequest(
        artifact, golden.samples, golden.reference, golden.floors, ("CPUExecutionProvider",), golden
    )
    steps: list[tuple[str, int, int]] = []
    apart = run_within(request, 120, lambda *step: steps.append(step))
    assert [cell.score for cell in apart.cells] == [cell.score for cell in request.run().cells]
    assert steps[0][1] == 0 and steps[-1][1] == steps[-1][2] > 0  # its progress is passed on
    lost = replace(request, providers=("NoSuchProvider",))
    with pytest.raises(ArtifactError, match="NoSuchProvider"):  # its errors are raised as they were there
        run_within(lost, 120)


def test_the_command_line(place: Path) -> None:
    with judging_here():
        done = run(
            "parity", "fp32", "fp16", "canonical-fp32", "recorded.safetensors", "--checkpoint", "checkpoint",
            "--inputs", "inputs.npz", "--require", "onnx", "--json", "report.json", cwd=place,
        )  # fmt: skip
        missing = run(
            "parity", "fp32", "--checkpoint", "checkpoint", "--no-laws", "--require", "onnx,tensorrt", cwd=place
        )
    assert done.returncode == 0, done.stderr
    assert missing.returncode == 3 and "tensorrt is required" in missing.stderr
    again = run("parity", "--from", "report.json", "--threshold", "0.001", cwd=place)
    assert again.returncode == 3
    assert run("parity", "--from", "report.json", "--baseline", "report.json", cwd=place).returncode == 0
    assert run("parity", cwd=place).returncode == 2
    assert run("parity", "fp32", "--threshold", "9", cwd=place).returncode == 2


def test_a_runner_of_which_nothing_was_compared_is_no_pass(place: Path) -> None:
    report = check_here([place / "fp32"], checkpoint=place / "checkpoint")
    silent = replace(report, runners=(*report.runners, RunnerFacts("engine", "artifact", "tensorrt", "fp16")))
    assert report.passed and not silent.passed and "engine: nothing was compared" in silent.summary()


def test_named_twice_or_in_the_wrong_place(place: Path, tmp_path: Path) -> None:
    checkpoint, recorded = place / "checkpoint", place / "recorded.safetensors"
    for names in (
        [place / "fp32"] * 2,
        [place / "fp32", f"{place / 'fp32'}@onnxruntime"],
        [place / "fp32", "transformers", "transformers"],
    ):
        with pytest.raises(InputError, match="named twice"):
            check_here(names, checkpoint=checkpoint)
    with pytest.raises(InputError, match="but no outputs: give it as inputs"):
        check_here([place / "fp32", place / "inputs.npz"], checkpoint=checkpoint)
    with pytest.raises(InputError, match="name it beside the artifacts"):
        check_here([place / "fp32"], checkpoint=checkpoint, inputs=recorded)


def test_a_directory_of_a_runners_name_is_an_artifact(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "fp32").rename(tmp_path / "transformers")
    monkeypatch.chdir(tmp_path)
    try:
        report = check_here(["transformers"], checkpoint=place / "checkpoint")
    finally:
        (tmp_path / "transformers").rename(place / "fp32")
    assert [facts.kind for facts in report.runners] == ["artifact"]


def test_where_others_are_named_an_artifact_that_fails_is_a_row(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge_each = matrix.judge_each
    monkeypatch.setattr(
        "lxmert_export.reference.by_checkpoint.judge_each",
        lambda artifacts, judge_one, **options: judge_each(
            artifacts, raising(ArtifactError("its runtime crashed"), "fp32", judge_one), **options
        ),
    )
    report = check_here([place / "fp32", "canonical-fp32"], checkpoint=place / "checkpoint")
    assert (report.status_of("fp32"), report.status_of("canonical-fp32")) == ("FAIL", "pass") and not report.passed


def test_runner_facts_tell_size_and_source(place: Path) -> None:
    report = check_here([place / "fp32"], checkpoint=place / "checkpoint")
    (facts,) = report.runners
    assert isinstance(facts, RunnerFacts) and facts.source["dialect"] == "hf" and facts.target == "onnx"
    assert facts.bytes == sum(file["bytes"] for file in open_artifact(place / "fp32").manifest.files.values())


def test_a_child_never_takes_a_module_of_its_working_directory(tmp_path: Path) -> None:
    """In every Python from 3.10 on, which has no option -P."""
    (tmp_path / "lxmert_export.py").write_text("raise SystemExit('a module of the working directory')")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "of_this_process.py").write_text("import sys; print(__name__, sys.argv[1:])")
    environment = child_environment()
    environment["PYTHONPATH"] += f":{tmp_path / 'elsewhere'}"
    for module, printed in (("of_this_process", "__main__ ['a', '-P']\n"), ("lxmert_export.cli", "")):
        command = child_command(module, "a", "-P")
        assert "-P" not in command[:-1]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout == printed and "working directory" not in done.stderr
