"""`make parity` on a small network: what was finished is not done again, what failed is told, limits are checked."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import lxmert_export as lx
from benchmarks import full_size_parity
from benchmarks.full_size_page import missed_limits, page
from benchmarks.full_size_parity import FullSize, Shown, worst_score
from benchmarks.full_size_plan import EXPORTS, PLAN, Export, kinds_named, targets_that_must_pass
from benchmarks.measuring import Run, run_process
from benchmarks.resumable import Steps, source_key
from lxmert_export.artifact.targets import TARGETS
from lxmert_export.spec.signature import TASKS
from parity_tests.fixtures import command
from parity_tests.fixtures.random_models import TINY, lively_model

RUN = Run(seconds=60.0, peak_mib=1500.0, cpu_seconds=45.0, together_mib=2000.0, others_cpu_seconds=6.0)


def test_a_stopped_run_goes_on_and_judges_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Sequence[str]] = []

    def recorded(arguments: Sequence[str], *, accepted: Sequence[int] = (0,)) -> Run:
        """Runs a command in this process; what ``run_process`` does is tested below."""
        assert arguments[:2] == ["-m", "lxmert_export.cli"]
        commands.append(arguments)
        done = command.run(*arguments[2:], cwd=tmp_path)
        if done.returncode not in accepted:
            sys.exit(done.stderr)
        return RUN

    monkeypatch.setattr(full_size_parity, "run_process", recorded)
    steps = small_checkpoint(tmp_path)
    unwritable = Export("onnx-bf16", "onnx", ("--no-such-option",))
    with Shown(4) as shown, pytest.raises(SystemExit, match="no-such-option"):
        FullSize("question-answering", (*kinds_named("onnx-fp32"), unwritable), steps, shown).outcome()
    assert [arguments[2] for arguments in commands] == ["onnx", "onnx"]

    commands.clear()
    again = Steps(tmp_path, "a-key")
    with Shown(4) as shown:
        outcome = FullSize("question-answering", kinds_named("onnx-fp32", "onnx-bf16"), again, shown).outcome()
    assert [(arguments[2], "--bf16" in arguments) for arguments in commands] == [("onnx", True), ("parity", False)]
    assert outcome["passed"], outcome["summary"]
    assert [(row["name"], row["status"]) for row in outcome["artifacts"]] == [
        ("onnx-fp32", "pass"),
        ("onnx-bf16", "pass"),
    ]
    assert all(0 < row["worst_score"] < 8 and 0 < row["worst_pair_score"] < 8 for row in outcome["artifacts"])
    assert list(again.place.iterdir()) == [again.place / "question-answering.json"]  # artifacts are gone once judged

    commands.clear()
    with Shown(3) as shown:
        assert FullSize("question-answering", kinds_named("onnx-fp32"), again, shown).outcome() == outcome
    assert not commands


def test_an_artifact_of_other_weights_fails_the_run(tmp_path: Path) -> None:
    steps = small_checkpoint(tmp_path)
    place = steps.place / "question-answering"
    # of a module in memory, an artifact names no checkpoint that it could be seen to differ from
    lx.export("onnx", lively_model("question-answering", TINY, seed=1), place / "onnx-fp32", parity=False)
    steps.once("question-answering/onnx-fp32", lambda: asdict(RUN))
    with Shown(3) as shown:
        outcome = FullSize("question-answering", kinds_named("onnx-fp32"), steps, shown).outcome()
    assert not outcome["passed"]
    assert [row["status"] for row in outcome["artifacts"]] == ["FAIL"]
    assert "| FAIL |" in page({"machine": "m", "tasks": [outcome], "published": {"detail": "d"}})


def test_what_other_sources_found_is_removed(tmp_path: Path) -> None:
    old = Steps(tmp_path, "old")
    old.once("task/step", lambda: {"seconds": 1})
    assert old.once("task/step", lambda: {"seconds": 2}) == {"seconds": 1}
    new = Steps(tmp_path, "new")
    assert list(tmp_path.iterdir()) == [new.place]
    assert new.once("task/step", lambda: {"seconds": 3}) == {"seconds": 3}


def test_an_unfinished_step_leaves_nothing(tmp_path: Path) -> None:
    steps = Steps(tmp_path, "key")
    with pytest.raises(ZeroDivisionError):
        steps.once("task/step", lambda: {"seconds": 1 // 0})
    assert not steps.is_finished("task/step")
    assert not list((steps.place / "task").iterdir())


def test_the_key_is_of_every_source_file(tmp_path: Path) -> None:
    for name in ("package/a.py", "package/data.json", "package/__pycache__/a.pyc", "beside.py", "elsewhere.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")

    def key() -> str:
        return source_key(tmp_path, ("package", "beside.py"), ("numpy",))

    first = key()
    counted = {"elsewhere.py": False, "package/__pycache__/a.pyc": False, "beside.py": True, "package/data.json": True}
    for name, counts in counted.items():
        before = key()
        (tmp_path / name).write_text("2")
        assert (key() != before) == counts, name
    (tmp_path / "package" / "a.py").rename(tmp_path / "package" / "b.py")
    assert len({first, key(), source_key(tmp_path, ("package", "beside.py"), ("torch",))}) == 3


def test_every_precision_of_every_target_is_planned() -> None:
    planned = {(kind.command, precision_of(kind)) for kind in PLAN["question-answering"]}
    # int8 of ONNX and of an engine, as full-integer TFLite, is accurate for real inputs only; a random network has none.
    rows = {(row.name, precision) for row in TARGETS.values() for precision in row.precisions}
    assert planned == rows - {("onnx", "int8"), ("tensorrt", "int8")}
    for task, kinds in PLAN.items():
        assert {"onnx"} < set(targets_that_must_pass(kinds)) <= {"onnx", "tensorflow", "tflite"}, task
        origins = [kind.origin for kind in kinds if kind.origin]
        assert set(origins) <= {kind.name for kind in kinds}


def test_the_page_tells_what_failed_and_what_was_not_run() -> None:
    results = small_results()
    assert "| nlvr2 | tensorrt-fp32 | built-not-run | - | - | 2,000 | 60 | 45 | 1500 |" in page(results)
    assert "| nlvr2 | onnx-fp32 | FAIL | 11.00 | 0.50 | 1,000 | 60 | 45 | 1500 |" in page(results)
    assert "The run took 4.0 minutes of wall time and 3.0 CPU minutes." in page(results)
    assert "took 0.4 CPU minutes meanwhile. Limits" in page(results)
    assert "Not finished yet: model, pretraining, question-answering." in page(results)


def test_limits_are_kept_once_all_is_finished() -> None:
    results = small_results()
    results["tasks"] = [results["tasks"][0] | {"task": task} for task in TASKS]
    assert "Both limits were kept." in page(results) and not missed_limits(results)


def test_limits_that_were_missed_are_told() -> None:
    results = small_results()
    results["tasks"][0]["judging"] |= {"together_mib": 6000.0, "seconds": 1200.0}
    assert missed_limits(results) == ["23.0 minutes instead of 20", "nlvr2: judging took 6000 MiB instead of 5722"]
    assert "Missed: 23.0 minutes instead of 20." in page(results) and "Both limits were kept." not in page(results)
    results = small_results()
    results["tasks"][0]["artifacts"][0]["export"] |= {"together_mib": 9000.0, "peak_mib": 9000.0}
    assert missed_limits(results) == ["nlvr2: onnx-fp32 took 9000 MiB instead of 5722"]


def test_the_committed_page_is_of_the_committed_figures() -> None:
    figures = json.loads((full_size_parity.HERE / "full_size_parity.json").read_text(encoding="utf-8"))
    assert (full_size_parity.HERE / "full_size_parity.md").read_text(encoding="utf-8") == page(figures)
    assert all(task["passed"] for task in figures["tasks"])


def test_the_worst_score_is_of_the_runner_on_either_side() -> None:
    def cell(runner: str, against: str, kind: str, score: float | None) -> dict[str, Any]:
        return {"runner": runner, "against": against, "kind": kind, "score": score}

    cells = [
        cell("a", "float64", "reference", 1.0), cell("b", "float64", "reference", 3.0), cell("a", "b", "pair", 2.0),
        cell("c", "float64", "reference", None),
    ]  # fmt: skip
    assert worst_score(cells, "a", "reference") == 1.0
    assert worst_score(cells, "b", "pair") == 2.0
    assert worst_score(cells, "c", "reference") is None


def test_a_process_is_measured_with_those_it_started() -> None:
    hold = "held = bytearray(b'x') * ({mebibytes} * 2**20); import time; time.sleep(1.5)"
    child = ["-c", hold.format(mebibytes=200)]
    started = f"import subprocess, sys; child = subprocess.Popen([sys.executable, *{child!r}]);"
    held = bytearray(b"x") * (500 * 2**20)  # by this process: none of the one that is measured
    run = run_process(["-c", f"{started} {hold.format(mebibytes=100)}; child.wait()"])
    del held
    assert 200 < run.peak_mib < 280  # of the larger one
    assert 300 < run.together_mib < 380
    assert run.seconds > 1.5 and run.cpu_seconds > 0
    with pytest.raises(SystemExit, match="boom"):
        run_process(["-c", "import sys; print('boom'); sys.exit(3)"])
    run_process(["-c", "import sys; sys.exit(3)"], accepted=(0, 3))


def small_checkpoint(directory: Path) -> Steps:
    """A state in which the checkpoint is finished: a small one."""
    steps = Steps(directory, "a-key")
    lx.save_checkpoint(lively_model("question-answering", TINY), steps.place / "question-answering" / "checkpoint")
    steps.once("question-answering/checkpoint", lambda: asdict(RUN))
    return steps


def precision_of(kind: Export) -> str:
    """By the options of what it is made of, and by its name."""
    options = next(made.options for made in EXPORTS if made.name == (kind.origin or kind.name))
    precision = next((option[2:] for option in options if option in ("--fp16", "--bf16", "--int8")), "fp32")
    assert kind.name.endswith(f"-{precision}")
    return precision


def small_results() -> dict[str, Any]:
    def artifact(name: str, status: str, worst: float | None, pair: float | None, size: int) -> dict[str, Any]:
        return {
            "name": name, "status": status, "worst_score": worst, "worst_pair_score": pair, "bytes": size, "export": asdict(RUN),
        }  # fmt: skip

    task = {
        "task": "nlvr2", "passed": False, "summary": "parity FAILED: …", "checkpoint": asdict(RUN), "judging": asdict(RUN),
        "cells": 6,
        "artifacts": [
            artifact("onnx-fp32", "FAIL", 11.0, 0.5, 1000), artifact("tensorrt-fp32", "built-not-run", None, None, 2000),
        ],
    }  # fmt: skip
    return {
        "machine": "a machine",
        "tasks": [task],
        "published": {"agrees": True, "reached": False, "detail": "not checked"},
    }
