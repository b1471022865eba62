"""`make gpu` without a GPU: its page, what it says first, and the whole check on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from benchmarks.gpu import check, missing, setting, steps
from benchmarks.gpu.contestants import EAGER
from benchmarks.gpu.page import page
from lxmert_export.engines.gpus import Gpu
from parity_tests.benchmarks.test_gpu_check import facts, setting_for
from parity_tests.fixtures.random_models import TINY
from parity_tests.fixtures.stand_in_gpu import H200

ROOT = Path(__file__).parents[2]


def timed(p50: float) -> dict[str, Any]:
    return {
        "calls": 6, "p50_ms": p50, "p99_ms": 2 * p50, "round_medians_ms": [p50, 1.5 * p50],
        "samples_per_second": [1000 / p50, 900 / p50],
    }  # fmt: skip


def test_the_page_says_what_the_results_hold() -> None:
    names = {EAGER: 8.0, "PyTorch, compiled": 6.0, "ours, fixed axes, CUDA graph": 2.0}
    judged = {
        "passed": True, "not_run": ["scenes"], "laws": 12, "worst": [
            {"output": "logits", "family": "ragged", "score": 1.25, "error_rms": 2e-3},
            {"output": "other", "family": "plain", "score": None, "error_rms": None}],
        "predictions": [{"output": "logits", "family": "plain", "predicted": 1e-3, "measured": 2e-3, "ratio": 2.0,
                         "status": "validated"}],
    }  # fmt: skip
    found = {
        "device": {"status": "done", "seconds": 3.0,
                   "result": {"bytes_per_second": 2e12, "flops_per_second": {"fp16": 4e14}}},
        "tests": {"status": "done", "seconds": 9.0, "result": {"passed": True, "summary": "9 passed in 8.00s"}},
        "parity/fp16-fixed-1": {"status": "done", "seconds": 5.0, "result": judged},
        "tf32/fp32-dynamic": {"status": "done", "seconds": 5.0, "result": {**judged, "predictions": [], "passed": False}},
        "timing/fp16/1": {"status": "done", "seconds": 7.0, "result": {
            "cost": {"bytes": 2 * 10**9, "flops": 10**11}, "contestants": {name: timed(ms) for name, ms in names.items()},
            "kernels": {EAGER: {"kernels": 700, "copies": 2}},
            "failed": {"PyTorch, compiled, CUDA graph": "no | triton"}}},
        "export/fp32-lean-1": {"status": "failed", "seconds": 1.0, "reason": "no such option"},
    }  # fmt: skip
    text = page(
        {**facts(no_engines="TensorRT-RTX does not run on Some GPU", missing=["missing: triton"]), "steps": found}
    )
    for line in (
        "# Some GPU",
        "missing: triton.",
        "| export/fp32-lean-1 | failed | 1 | no such option |",
        "Tests that need a GPU (`pytest -m gpu`): 9 passed in 8.00s.",
        "| fp16-fixed-1 | passed | logits | ragged | 1.25 | 2.00e-03 | 12 | scenes |",
        "| fp16-fixed-1 | passed | other | plain | - | - | 12 | scenes |",
        "| fp32-dynamic in TF32 | FAILED | logits | ragged | 1.25 | 2.00e-03 | 12 | scenes |",
        "| fp16-fixed-1 | logits | plain | 1.00e-03 | 2.00e-03 | 2.00 | validated |",
        "No engine was built or run: TensorRT-RTX does not run on Some GPU.",
        "| fp16 | 1 | PyTorch, eager | 8.000 (8.000 to 12.000) | 16.000 | 119 (112 to 125) | 12 % | 3 % "
        "| 1.00, 0.75, - | 700 + 2 |",
        "| fp16 | 1 | ours, fixed axes, CUDA graph | 2.000 (2.000 to 3.000) | 4.000 | 475 (450 to 500) | 50 % | 12 % "
        "| 4.00, 3.00, - | - |",
        "| fp16 | 1 | PyTorch, compiled, CUDA graph | not timed: no / triton | | | | | | |",
    ):
        assert line in text.splitlines(), line
    assert "Nothing has been judged" not in text and "Nothing has been judged" in page({**facts(), "steps": {}})


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
        "no NVIDIA GPU found here (there is no nvidia-smi); nothing was measured, and nothing written\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_the_first_lines_say_what_is_missing_and_how_to_bring_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(missing, "find_gpus", lambda: (H200,))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        SystemExit, match=r"a PyTorch that can use this GPU \(PyTorch .* cannot\): .*; nothing was measured"
    ):
        check.check_gpu(missing.what_is_missing())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(missing, "find_spec", lambda name: None)
    assert check.check_gpu(missing.what_is_missing()) == "NVIDIA H200"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("is the build for CPUs: our files are not run; pip uninstall --yes onnxruntime && pip install "
                             "'lxmert-export[cuda]'")  # fmt: skip
    assert lines[1] == "missing: triton: compiled PyTorch is not timed; pip install triton"
    assert lines[-1].startswith("without a network: ") and "pip download" in lines[-1]
    assert check.check_gpu([]) == "NVIDIA H200" and capsys.readouterr().out == ""


def test_a_card_or_an_installation_without_tensorrt_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing, "find_gpus", lambda: (H200,))
    assert missing.why_no_engines("datacenter") == "tensorrt is not installed"
    told = missing.why_no_engines("rtx")
    assert told is not None and told.startswith(
        "TensorRT-RTX does not run on NVIDIA H200, compute capability 9.0; it runs on 7.5,"
    )
    monkeypatch.setattr(missing, "find_gpus", lambda: (Gpu((12, 0), "RTX 5090", "1"),))
    assert missing.why_no_engines("rtx") is None


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
    """All steps, as on a GPU, but that our files are judged in onnxruntime on the CPU, and PyTorch is timed alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", start_few)
    monkeypatch.setattr(setting, "full_size_config", lambda task: TINY)
    monkeypatch.setattr(setting, "SMALL", {})
    monkeypatch.setattr(steps, "tests_on_gpu", lambda setting: {"passed": True, "summary": "3 skipped"})
    check.main([
        "--output", "results", "--device", "cpu", "--small", "--precisions", "fp16", "--batches", "2", "--rounds", "2",
        "--calls", "2", "--warm-seconds", "0", "--work", "work",
    ])  # fmt: skip
    results = json.loads((tmp_path / "results" / "no-gpu-on-the-cpu-small.json").read_text())
    done = {name: step["status"] for name, step in results["steps"].items() if "lean" not in name}
    assert done == dict.fromkeys(
        ["device", "tests", "export/fp16-dynamic", "parity/fp16-dynamic", "export/fp16-fixed-2", "parity/fp16-fixed-2",
         "timing/fp16/2"], "done",
    )  # fmt: skip
    assert results["no_engines"] == "it is no GPU" and results["missing"] == []
    timing = results["steps"]["timing/fp16/2"]["result"]
    assert set(timing["contestants"]) == {EAGER} and timing["contestants"][EAGER]["calls"] == 4
    assert "no NVIDIA GPU found here" in timing["failed"]["ours, fixed axes, CUDA graph"]
    assert results["steps"]["parity/fp16-fixed-2"]["result"]["passed"]
    written = (tmp_path / "results" / "no-gpu-on-the-cpu-small.md").read_text()
    assert "not timed: onnx-fp16-fixed-2@cuda: no NVIDIA GPU" in written and str(tmp_path) not in written
