"""`make gpu` without a GPU: its harness on a clock of its own, its arithmetic by hand."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu import check, steps
from benchmarks.gpu.contestants import (
    EAGER,
    ENGINE,
    CudaCall,
    EngineCall,
    difference,
    draw_inputs,
    torch_openers,
)
from benchmarks.gpu.results import Results, open_results
from benchmarks.gpu.setting import Form, Setting
from benchmarks.gpu.steps import open_all, step_names
from lxmert_export.engines.profiles import make_profiles
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.runners.onnx.cuda.gpu_thread import on_gpu_thread
from lxmert_export.runners.onnx.cuda.runner import CudaRunner
from lxmert_export.runners.opening import open_runner
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import SMALL, TINY, lively_model
from parity_tests.fixtures.stand_in_gpu import put_gpu

ROOT = Path(__file__).parents[2]
QA = task_signature(SMALL, "question-answering")
SIZES = {"batch": 3, "text": 7, "objects": 5}


def setting_for(work: Path, **changes: Any) -> Setting:
    usual: dict[str, Any] = {
        "work": str(work), "task": "question-answering", "small": True, "device": "cpu", "target": "rtx",
        "precisions": ("fp32", "fp16"), "no_engines": None, "batches": (1, 8), "rounds": 2, "calls": 3,
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


def test_every_form_is_exported_judged_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    setting = setting_for(tmp_path, precisions=("fp16",), batches=(1, 8))
    forms = ["fp16-dynamic", "fp16-fixed-1", "fp16-lean-1"]
    timings = ["timing/fp16/1", "timing/fp16/8"]
    judged = [f"{kind}/{form}" for form in forms for kind in ("export", "parity")]
    assert step_names(setting) == [
        "device", "tests", *judged, "build/fp16-dynamic", "engine/fp16-dynamic", *timings,
    ]  # fmt: skip
    without = setting_for(tmp_path, precisions=("fp16",), no_engines="it is not installed")
    assert step_names(without) == ["device", "tests", *judged, *timings]
    assert "tf32/fp32-dynamic" in step_names(setting_for(tmp_path))
    monkeypatch.setattr(steps, "checkpoint", lambda setting: tmp_path)
    monkeypatch.setattr(steps, "export", lambda *places, **options: asked.append({"to": places[2].name, **options}))
    for form in setting.timed_forms("fp16", 8):
        assert Form.named(str(form)) == form
        steps.graph(setting, form, judged=False)
    sizes = {"batch": 8, "text": 20, "objects": 36}
    assert [(one["to"], one["fixed"], one["optimize_for"], one["parity"]) for one in asked] == [
        ("onnx-fp16-dynamic", None, None, False), ("onnx-fp16-fixed-8", sizes, None, False),
        ("onnx-fp16-lean-8", sizes, "cuda", False),
    ]  # fmt: skip


def test_a_failing_step_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def alone(name: str, setting: Setting) -> dict[str, Any]:
        ran.append(name)
        if name == "export/fp32-lean-1":
            return {"status": "failed", "seconds": 0.0, "reason": "out of memory"}
        try:
            setting.need(name.replace("parity", "export"))
        except ConversionError as error:
            return {"status": "failed", "seconds": 0.0, "reason": str(error)}
        return {"status": "done", "seconds": 0.0}

    monkeypatch.setattr(check, "run_alone", alone)
    setting = setting_for(tmp_path)
    results = Results(tmp_path / "r.json", facts())
    assert check.run_steps(setting, results) == []
    assert ran == step_names(setting) and len(ran) == 23
    assert results.failed == {
        "export/fp32-lean-1": "out of memory", "parity/fp32-lean-1": "export/fp32-lean-1 failed: out of memory",
    }  # fmt: skip
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
    assert list(json.loads((tmp_path / "r.json").read_text())["steps"]) == ran == step_names(setting)[:11]
    results = open_results(tmp_path / "r.json", facts(), anew=False)
    assert check.run_steps(setting, results, minutes=-1) == step_names(setting)[11:]  # no time is left
    check.run_steps(setting, results)
    assert ran == step_names(setting)


def test_steps_are_forgotten_with_what_they_made_and_no_others(tmp_path: Path) -> None:
    setting = setting_for(tmp_path / "work", batches=(1, 16))
    names = step_names(setting)
    results = Results(tmp_path / "r.json", facts(), {name: {"status": "done"} for name in names})
    places = ("onnx-fp16-dynamic", "onnx-fp16-lean-1", "engine-fp16-dynamic", "checkpoint")
    made = [setting.path(name) for name in places]
    for place in made:
        place.mkdir(parents=True)
    asked = ["export/fp16-dynamic", "timing/fp32/1", "device"]
    check.forget(asked, setting, results)
    assert list(results.steps) == [name for name in names if name not in asked]
    assert [place.name for place in made if place.exists()] == list(places[1:])
    check.forget(["build/fp16-dynamic", "parity/fp16-dynamic"], setting, results)
    assert [place.name for place in made if place.exists()] == ["onnx-fp16-lean-1", "checkpoint"]
    with pytest.raises(SystemExit, match="--again export/fp: no such step; the steps are device, tests, export/fp32-"):
        check.forget(["export/fp"], setting, results)


def facts(**changes: Any) -> dict[str, Any]:
    usual = {
        "gpu": "Some GPU", "machine": "a machine", "network": "Small", "task": "question-answering", "target": "rtx",
        "batch_profiles": ["1:1:1", "2:8:8"], "missing": [], "no_engines": None,
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
    setting = setting_for(
        tmp_path / "work", failed={"export/fp32-dynamic": f"{tmp_path / 'work'}/checkpoint: no space"}
    )
    step = check.run_alone("build/fp32-dynamic", setting)
    assert step["status"] == "failed" and step["reason"] == "export/fp32-dynamic failed: checkpoint: no space"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=-11))
    assert check.run_alone("build/fp32-dynamic", setting)["reason"] == "ended by signal 11"


class Answers:
    def __init__(self, output: torch.Tensor) -> None:
        self.output = output

    def __call__(self) -> None:
        pass

    def outputs(self) -> tuple[torch.Tensor, ...]:
        return (self.output,)


def test_contestants_that_fail_or_compute_something_else_are_left_out(tmp_path: Path) -> None:
    right = torch.ones(2, 3)

    def fails() -> Any:
        raise RuntimeError("no kernel\nfor this GPU")

    def refuses() -> Any:
        raise ArtifactError(f"{tmp_path}/engine: this runtime does not support this GPU")

    openers: dict[str, Callable[[], Any]] = {
        EAGER: lambda: Answers(right), "near": lambda: Answers(right * 1.01), "far": lambda: Answers(right * 1.1),
        "nan": lambda: Answers(right * float("nan")), "broken": fails, ENGINE: refuses, "late": lambda: fails,
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
            outputs[precision] = openers[EAGER]().outputs()
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
    call()
    (output,) = call.buffers
    assert (asked["profile"], asked["streams"]) == (1, [7])
    assert asked["shapes"] == {name: tuple(tensor.shape) for name, tensor in inputs.items()}
    named = {**inputs, QA.outputs[0].name: output}
    assert asked["addresses"] == {name: tensor.data_ptr() for name, tensor in named.items()}
    with pytest.raises(ArtifactError, match="failed while it ran"):
        call()


def test_our_file_is_called_on_its_buffers_and_its_outputs_are_read(
    exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, sizes = put_gpu(monkeypatch), {"batch": 2, "text": 5, "objects": 3}
    made = exports.lively("onnx", "question-answering", TINY, fixed=sizes)
    signature = task_signature(TINY, "question-answering")
    inputs = draw_inputs(signature, sizes, TINY.vocab_size, "cpu")
    with open_runner(made.in_runtime("cuda")) as runner, torch.inference_mode():
        assert isinstance(runner, CudaRunner)
        call = on_gpu_thread(CudaCall, runner, inputs)
        buffers, runs = gpu.buffers, gpu.runs
        for _ in range(3):
            on_gpu_thread(call)
        assert (gpu.buffers, gpu.runs) == (buffers, runs + 3) and list(gpu.captures.values()) == [1]
        openers = torch_openers(lively_model("question-answering", TINY), signature, "fp32", inputs, "cpu")
        assert difference(on_gpu_thread(call.outputs), openers[EAGER]().outputs()) < 1e-5
    assert len(gpu.threads) == 1 and not gpu.overlapped
