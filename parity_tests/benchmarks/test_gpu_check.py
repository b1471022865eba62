"""`make gpu` without a GPU: its harness on a clock of its own, its arithmetic by hand, its steps on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from benchmarks.gpu import check, steps
from benchmarks.gpu.contestants import (
    EAGER,
    ENGINE,
    ENGINE_GRAPH,
    OPERATOR,
    OPERATOR_GRAPH,
    EngineCall,
    difference,
    draw_inputs,
    torch_openers,
)
from benchmarks.gpu.page import page
from benchmarks.gpu.results import Results, open_results
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import open_all, step_names
from lxmert_export.engines.gpus import Gpu
from lxmert_export.engines.profiles import make_profiles
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.random_models import SMALL, lively_model

ROOT = Path(__file__).parents[2]
QA = task_signature(SMALL, "question-answering")
SIZES = {"batch": 3, "text": 7, "objects": 5}


def setting_for(work: Path, **changes: Any) -> Setting:
    usual: dict[str, Any] = {
        "work": str(work), "task": "question-answering", "small": True, "device": "cpu", "target": "rtx",
        "precisions": ("fp32", "fp16"), "attentions": ("decomposed",), "batches": (1, 8), "rounds": 2, "calls": 3,
        "warm_seconds": 0.0, "failed": {},
    }  # fmt: skip
    return Setting(**{**usual, **changes})


# --- steps and results


def test_profiles_take_every_batch_and_are_best_at_those_that_are_timed(tmp_path: Path) -> None:
    for batches in ((1,), (8,), (1, 8), (1, 8, 32, 128), (4, 5)):
        ranges = setting_for(tmp_path, batches=batches).batch_ranges
        profiles = make_profiles(SMALL, QA, batch=ranges)
        assert tuple(profile.batch.opt for profile in profiles) == batches
        for rows in range(1, max(8, *batches) + 1):
            assert sum(rows in profile.batch for profile in profiles) == 1
    text = setting_for(tmp_path, failed={"build/fp16": "no"}).to_json()
    assert Setting.from_json(text) == setting_for(tmp_path, failed={"build/fp16": "no"})


def test_both_spellings_of_attention_are_built_and_timed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    setting = setting_for(tmp_path, precisions=("fp16",), attentions=("decomposed", "operator"), batches=(1,))
    assert step_names(setting) == [
        "device", "export/fp16", "build/fp16", "parity/fp16", "export/fp16-operator", "build/fp16-operator",
        "parity/fp16-operator", "timing/fp16/1",
    ]  # fmt: skip
    monkeypatch.setattr(steps, "checkpoint", lambda setting: tmp_path)
    monkeypatch.setattr(steps, "export", lambda *places, **options: asked.append({"to": places[2].name, **options}))
    for form in setting.forms("fp16"):
        steps.graph(setting, form)
    assert [(one["to"], one["precision"], one["attention"]) for one in asked] == [
        ("onnx-fp16", "fp16", "decomposed"), ("onnx-fp16-operator", "fp16", "operator"),
    ]  # fmt: skip
    with ExitStack() as opened:
        assert {name for form in setting.forms("fp16") for name in steps.engine_openers(setting, form, {}, opened)} == {
            ENGINE, ENGINE_GRAPH, OPERATOR, OPERATOR_GRAPH,
        }  # fmt: skip


def finished(name: str, setting: Setting) -> dict[str, Any]:
    """A step that does nothing, but fails where it rests on one that failed."""
    try:
        for needed in ("export", "build"):
            setting.need(name.replace("parity", needed))
    except ConversionError as error:
        return {"status": "failed", "seconds": 0.0, "reason": str(error)}
    return {"status": "done", "seconds": 0.0}


def test_a_failing_step_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def alone(name: str, setting: Setting) -> dict[str, Any]:
        ran.append(name)
        if name == "build/fp32":
            return {"status": "failed", "seconds": 0.0, "reason": "out of memory"}
        return finished(name, setting) if name.startswith("parity") else {"status": "done", "seconds": 0.0}

    monkeypatch.setattr(check, "run_alone", alone)
    setting = setting_for(tmp_path)
    results = Results(tmp_path / "r.json", facts())
    assert check.run_steps(setting, results) == []
    assert ran == step_names(setting) and len(ran) == 11
    assert results.failed == {"build/fp32": "out of memory", "parity/fp32": "build/fp32 failed: out of memory"}
    assert "parity/fp16" in results.steps
    ran.clear()
    again = open_results(tmp_path / "r.json", facts(), anew=False)
    assert again.steps == results.steps and check.run_steps(setting, again) == [] and ran == []


def test_a_check_that_is_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting, ran = setting_for(tmp_path), list[str]()

    def alone(name: str, setting: Setting) -> dict[str, Any]:
        if name == "timing/fp32/1" and not killed:
            killed.append(name)
            raise KeyboardInterrupt
        ran.append(name)
        return {"status": "done", "seconds": 0.0}

    killed: list[str] = []
    monkeypatch.setattr(check, "run_alone", alone)
    with pytest.raises(KeyboardInterrupt):
        check.run_steps(setting, open_results(tmp_path / "r.json", facts(), anew=False))
    assert list(json.loads((tmp_path / "r.json").read_text())["steps"]) == ran == step_names(setting)[:4]
    results = open_results(tmp_path / "r.json", facts(), anew=False)
    assert check.run_steps(setting, results, minutes=-1) == step_names(setting)[4:]  # no time is left
    check.run_steps(setting, results)
    assert ran == step_names(setting)


def test_steps_are_forgotten_with_what_they_made_and_no_others(tmp_path: Path) -> None:
    setting = setting_for(tmp_path / "work", attentions=("decomposed", "operator"), batches=(1, 16))
    names = step_names(setting)
    results = Results(tmp_path / "r.json", facts(), {name: {"status": "done"} for name in names})
    made = [setting.path(name) for name in ("onnx-fp16", "onnx-fp16-operator", "engine-fp16", "checkpoint")]
    for place in made:
        place.mkdir(parents=True)
    asked = ["export/fp16", "timing/fp32/1", "device"]
    check.forget(asked, setting, results)
    assert list(results.steps) == [name for name in names if name not in asked]
    assert [place.name for place in made if place.exists()] == ["onnx-fp16-operator", "engine-fp16", "checkpoint"]
    check.forget(["build/fp16", "parity/fp16"], setting, results)
    assert [place.name for place in made if place.exists()] == ["onnx-fp16-operator", "checkpoint"]
    with pytest.raises(SystemExit, match="--again export/fp: no such step; the steps are device, export/fp32, "):
        check.forget(["export/fp"], setting, results)


def facts(**changes: Any) -> dict[str, Any]:
    usual = {
        "gpu": "Some GPU", "machine": "a machine", "network": "Small", "task": "question-answering", "target": "rtx",
        "batch_profiles": ["1:1:1", "2:8:8"],
    }  # fmt: skip
    return {**usual, **changes}


def test_results_of_something_else_are_not_added_to(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    Results(file, facts(), {"device": {"status": "failed", "seconds": 1.0, "reason": "x"}}).write()
    with pytest.raises(SystemExit, match="machine was a machine.*--anew"):
        open_results(file, facts(machine="another"), anew=False)
    with pytest.raises(SystemExit, match="batch_profiles was "):
        open_results(file, facts(batch_profiles=["1:1:8"]), anew=False)
    assert open_results(file, facts(machine="another"), anew=True).steps == {}
    assert {path.name for path in tmp_path.iterdir()} == {"r.json", "r.md"}


def test_how_a_step_ended_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = setting_for(tmp_path / "work", failed={"export/fp32": f"{tmp_path / 'work'}/checkpoint: no space"})
    step = check.run_alone("build/fp32", setting)
    assert step["status"] == "failed" and step["reason"] == "export/fp32 failed: checkpoint: no space"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=-11))
    assert check.run_alone("build/fp32", setting)["reason"] == "ended by signal 11"


def test_contestants_that_fail_or_compute_something_else_are_left_out(tmp_path: Path) -> None:
    right = torch.ones(2, 3)

    def fails() -> Any:
        raise RuntimeError("no kernel\nfor this GPU")

    def refuses() -> Any:
        raise ArtifactError(f"{tmp_path}/engine: this runtime does not support this GPU")

    openers: dict[str, Callable[[], Any]] = {
        EAGER: lambda: lambda: (right,), "near": lambda: lambda: (right * 1.01,), "far": lambda: lambda: (right * 1.1,),
        "nan": lambda: lambda: (right * float("nan"),), "broken": fails, ENGINE: refuses, "late": lambda: fails,
    }  # fmt: skip
    calls, differences, failed = open_all(openers, setting_for(tmp_path))
    assert set(calls) == set(differences) == {EAGER, "near"} and differences["near"] == pytest.approx(0.01)
    assert failed == {
        "far": f"differs from {EAGER} by 0.1 of the output's size", "nan": f"differs from {EAGER} by nan of the output's size",
        "broken": "no kernel", "late": "no kernel", ENGINE: "engine: this runtime does not support this GPU",
    }  # fmt: skip


def test_pytorch_runs_in_the_precision_that_is_asked_for() -> None:
    inputs = draw_inputs(QA, SIZES, SMALL.vocab_size, "cpu")
    assert {name: tuple(tensor.shape) for name, tensor in inputs.items()} == {
        spec.name: spec.shape(SIZES) for spec in QA.inputs
    }
    outputs = {}
    for precision in ("fp32", "fp16", "bf16"):
        openers = torch_openers(lively_model("question-answering"), QA, precision, inputs, "cpu")
        with torch.inference_mode():
            outputs[precision] = openers[EAGER]()()
    assert set(openers) == {EAGER} and all(output[0].dtype == torch.float32 for output in outputs.values())
    assert 1e-4 < difference(outputs["fp16"], outputs["fp32"]) < 2e-3 < difference(outputs["bf16"], outputs["fp32"])


def test_an_engine_is_given_every_tensor_and_called_on_the_current_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"shapes": {}, "addresses": {}, "streams": [], "profile": None}
    context = SimpleNamespace(
        set_input_shape=lambda name, shape: asked["shapes"].update({name: shape}) is None,
        set_tensor_address=lambda name, address: asked["addresses"].update({name: address}),
        execute_async_v3=lambda stream: not asked["streams"].append(stream) and len(asked["streams"]) < 2,
    )

    def opened(number: int) -> Any:
        asked["profile"] = number
        return SimpleNamespace(context=context)

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=7))
    runner: Any = SimpleNamespace(
        name="engine", signature=QA, profiles=make_profiles(SMALL, QA, batch=["1", "2:4:8"]), context=opened
    )
    inputs = draw_inputs(QA, SIZES, SMALL.vocab_size, "cpu")
    call = EngineCall(runner, inputs)
    (output,) = call()
    assert (asked["profile"], asked["streams"]) == (1, [7])
    assert asked["shapes"] == {name: tuple(tensor.shape) for name, tensor in inputs.items()}
    named = {**inputs, QA.outputs[0].name: output}
    assert asked["addresses"] == {name: tensor.data_ptr() for name, tensor in named.items()}
    with pytest.raises(ArtifactError, match="failed while it ran"):
        call()


# --- the page, and the whole


def timed(p50: float) -> dict[str, Any]:
    return {
        "calls": 6, "p50_ms": p50, "p99_ms": 2 * p50, "round_medians_ms": [p50, 1.5 * p50],
        "samples_per_second": [1000 / p50, 900 / p50],
    }  # fmt: skip


def test_the_page_says_what_the_results_hold() -> None:
    names = {EAGER: 8.0, "PyTorch, compiled": 6.0, ENGINE: 4.0, ENGINE_GRAPH: 2.0}
    found = {
        "device": {"status": "done", "seconds": 3.0,
                   "result": {"bytes_per_second": 2e12, "flops_per_second": {"fp16": 4e14}}},
        "build/fp16": {"status": "done", "seconds": 9.0,
                       "result": {"seconds": 8.0, "engine_bytes": 1100, "weight_bytes": 1000}},
        "parity/fp16": {"status": "done", "seconds": 5.0, "result": {
            "passed": True, "not_run": ["scenes"], "worst": [
                {"output": "logits", "family": "ragged", "score": 1.25, "error_rms": 2e-3},
                {"output": "other", "family": "plain", "score": None, "error_rms": None}],
            "beside_prediction": {"logits": {"foretold_rms": 1e-3, "measured_rms": 2e-3, "measured_over_foretold": 2.0,
                                             "status": "validated"}},
            "seconds_to_first_call": {"without kept kernels": 9.0, "with kept kernels": 1.5}}},
        "timing/fp16/1": {"status": "done", "seconds": 7.0, "result": {
            "cost": {"bytes": 2 * 10**9, "flops": 10**9}, "contestants": {name: timed(ms) for name, ms in names.items()},
            "failed": {"PyTorch, compiled, CUDA graph": "no | triton"}}},
        "build/fp32": {"status": "failed", "seconds": 1.0, "reason": "this runtime does not support this GPU"},
    }  # fmt: skip
    text = page({**facts(), "steps": found})
    for line in (
        "# Engines on Some GPU",
        "| build/fp32 | failed | 1 | this runtime does not support this GPU |",
        "| fp16 | passed | logits | ragged | 1.25 | 2.00e-03 | scenes |",
        "| fp16 | passed | other | plain | - | - | scenes |",
        "| fp16 | logits | 1.00e-03 | 2.00e-03 | 2.00 | validated |",
        "| fp16 | 8.0 | 1,100 | 1.100× | 9.00 | 1.50 |",
        "| fp16 | 1 | engine | 4.000 (4.000 to 6.000) | 8.000 | 238 (225 to 250) | 25 % (bytes) | 1.50× |",
        "| fp16 | 1 | engine, CUDA graph | 2.000 (2.000 to 3.000) | 4.000 | 475 (450 to 500) | 50 % (bytes) | - |",
        "| fp16 | 1 | PyTorch, compiled, CUDA graph | not timed: no / triton | | | | |",
    ):
        assert line in text.splitlines(), line
    assert "No engine has been run" not in text and "No engine has been run" in page({**facts(), "steps": {}})


def test_networks_and_targets_have_files_of_their_own(tmp_path: Path) -> None:
    """Results and work both: an engine of another network must not be taken for this one's."""
    stems = {
        check.file_stem("NVIDIA H100 80GB HBM3", setting_for(tmp_path, **changes))
        for changes in ({"small": False}, {"small": True}, {"task": "nlvr2"}, {"target": "datacenter"})
    }
    assert len(stems) == 4 and "nvidia-h100-80gb-hbm3" in stems and all(stem == stem.lower() for stem in stems)


def check_process(tmp_path: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if path is not None:
        environment["PATH"] = path
    command = [sys.executable, "-m", "benchmarks.gpu.check", "--output", str(tmp_path / "results"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = check_process(tmp_path, path=str(tmp_path / "empty"))
    assert found.returncode == 1 and found.stdout == ""
    assert found.stderr == (
        "no NVIDIA GPU found here (there is no nvidia-smi): nothing was measured, and nothing written\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_pytorch_without_cuda_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "find_gpus", lambda: (Gpu((8, 9), "Some GPU", "1"),))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="cannot use the GPU of this machine: .*nothing written"):
        check.check_gpu()


START = subprocess.run


def start_few(command: Sequence[str], **options: Any) -> Any:
    """Starts a process for the first step, as for all steps on a GPU; the others run in this one, where all is imported."""
    if command[1:3] != ["-m", "benchmarks.gpu.steps"]:
        return START(command, **options)
    if command[3] == "device":
        return START(command, **options, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    with mock.patch.object(sys, "argv", command[2:]):
        try:
            steps.main()
        except SystemExit as end:
            options["stdout"].write(f"{end.code}\n")
            return SimpleNamespace(returncode=1)
    return SimpleNamespace(returncode=0)


def test_the_whole_check_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps, as on a GPU, but that no engine can be run: that is told of each, and PyTorch is timed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", start_few)
    check.main([
        "--output", "results", "--device", "cpu", "--small", "--precisions", "fp32", "--batches", "2", "--rounds", "2",
        "--calls", "2", "--warm-seconds", "0", "--work", "work", "--attentions", "decomposed",
    ])  # fmt: skip
    results = json.loads((tmp_path / "results" / "no-gpu-on-the-cpu-small.json").read_text())
    done = results["steps"]
    assert {name: step["status"] for name, step in done.items()} == {
        "device": "done", "export/fp32": "done", "build/fp32": "done", "parity/fp32": "failed", "timing/fp32/2": "done",
    }  # fmt: skip
    reason = "engine-fp32: built, not run (no GPU); verify it on a device of --target rtx"
    assert done["parity/fp32"]["reason"] == reason
    timing = done["timing/fp32/2"]["result"]
    assert timing["failed"] == {ENGINE: reason, ENGINE_GRAPH: reason} and set(timing["contestants"]) == {EAGER}
    assert timing["contestants"][EAGER]["calls"] == 4 and timing["cost"]["flops"] > 0
    assert done["build/fp32"]["result"]["matmuls"] and done["export/fp32"]["result"]["passed"]
    assert {path.name for path in (tmp_path / "work" / "no-gpu-on-the-cpu-small").iterdir()} == {
        "checkpoint", "engine-fp32", "logs", "onnx-fp32",
    }  # fmt: skip
    written = (tmp_path / "results" / "no-gpu-on-the-cpu-small.md").read_text()
    assert reason in written and "No engine has been run" in written and str(tmp_path) not in written
