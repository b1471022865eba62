"""Exports every target, precision and task at full size, and judges the artifacts of each task in one matrix.

Also compares the published numbers, if the published checkpoint can be reached. A run continues where it was stopped.
Writes benchmarks/full_size_parity.json and .md. Run: make parity
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.full_size_page import missed_limits, page
from benchmarks.full_size_plan import PLAN, Export, targets_that_must_pass
from benchmarks.measuring import machine, run_process
from benchmarks.resumable import Steps, source_key
from lxmert_export.api.checkpoint import load_checkpoint
from lxmert_export.cli.printing import PARITY_FAILED
from lxmert_export.errors import CheckpointError
from lxmert_export.spec.signature import Task

HERE = Path(__file__).parent
SOURCES = ("lxmert_export", "converters", *(f"benchmarks/{name}.py" for name in (
    "full_size_checkpoint", "full_size_parity", "full_size_plan", "launching", "measuring", "process_memory", "resumable"
)))  # fmt: skip
DISTRIBUTIONS = (
    "torch", "onnx", "onnxruntime", "tensorflow-cpu", "tensorflow", "ai-edge-litert", "tensorrt-rtx", "numpy"
)  # fmt: skip
# From the tests of the transformers library: unc-nlp/lxmert-base-uncased, no masks, numpy seed 0 before each draw.
PUBLISHED_NAME = "unc-nlp/lxmert-base-uncased"
PUBLISHED_IDS = [[101, 345, 232, 328, 740, 140, 1695, 69, 6078, 1588, 102]]
PUBLISHED_SLICE = [
    [0.24170142, -0.98075, 0.14797261],
    [1.2540525, -0.83198136, 0.5112344],
    [1.4070463, -1.1051831, 0.6990401],
]
PUBLISHED_TOLERANCE = 1e-4


def main() -> None:
    """Runs the unfinished steps, shows progress, and writes both files; exits with an error if anything fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=HERE.parent / "build" / "full-size-parity")
    state = parser.parse_args().state
    steps = Steps(state, source_key(HERE.parent, SOURCES, DISTRIBUTIONS))
    tasks: list[dict[str, Any]] = []
    unknown = {"agrees": True, "reached": False, "detail": "not checked yet"}
    results: dict[str, Any] = {"machine": machine(DISTRIBUTIONS), "tasks": tasks, "published": unknown}
    with Shown(sum(len(kinds) + 2 for kinds in PLAN.values())) as shown:
        for task, kinds in PLAN.items():
            tasks.append(FullSize(task, kinds, steps, shown).outcome())
            write(results)
    results["published"] = published()
    write(results)
    print(page(results))
    steps.forget()
    for line in missed_limits(results):
        print(f"limit missed: {line}", file=sys.stderr)
    if failed := [f"{task['task']}: {task['summary']}" for task in tasks if not task["passed"]]:
        sys.exit("\n".join(failed))
    if not results["published"]["agrees"]:
        sys.exit("the published numbers are not reproduced")


def write(results: Mapping[str, Any]) -> None:
    """Writes both files; during a run, with the results so far."""
    (HERE / "full_size_parity.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (HERE / "full_size_parity.md").write_text(page(results), encoding="utf-8")


class Shown(Progress):
    """Shows a bar on a terminal, and prints a line for each finished step everywhere."""

    def __init__(self, total: int) -> None:
        console = Console(soft_wrap=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*columns, console=console, disable=not console.is_terminal)
        self._bar = self.add_task("", total=total)

    def begin(self, step: str) -> None:
        """Shows the step that runs now."""
        self.update(self._bar, description=step)

    def end(self, line: str, *, steps: int = 1) -> None:
        """Prints the result of one step, or of several that an earlier run finished."""
        self.console.print(line, markup=False)
        self.advance(self._bar, steps)


class FullSize:
    """One task at full size: its checkpoint, its artifacts, and their matrix, in its own directory."""

    def __init__(self, task: Task, kinds: Sequence[Export], steps: Steps, shown: Shown) -> None:
        self.task, self.kinds, self.shown, self._steps = task, kinds, shown, steps
        self.directory = steps.place / task

    def outcome(self) -> dict[str, Any]:
        """Returns the result of the task, and removes its checkpoint and artifacts."""
        known = self._steps.is_finished(self.task)
        outcome = self._steps.once(self.task, self._run)
        shutil.rmtree(self.directory, ignore_errors=True)
        if known:
            self.shown.end(f"{self.task}: finished in an earlier run", steps=len(self.kinds) + 2)
        return outcome

    def _run(self) -> dict[str, Any]:
        checkpoint = self.directory / "checkpoint"
        write = ["-m", "benchmarks.full_size_checkpoint", str(checkpoint), "--task", self.task]
        written = self._step("checkpoint", write)
        exports = {kind.name: self._step(kind.name, kind.arguments(self.directory, checkpoint)) for kind in self.kinds}
        report = self.directory / "report.json"
        artifacts = [str(self.directory / kind.name) for kind in self.kinds]
        required = ",".join(targets_that_must_pass(self.kinds))
        judge = ["-m", "lxmert_export.cli", "parity", *artifacts, "--checkpoint", str(checkpoint)]
        # Laws are judged on small networks: benchmarks/laws.md.
        judge += ["--require", required, "--json", str(report), "--no-laws"]
        judged = self._step("judging", judge, accepted=(0, PARITY_FAILED))
        return outcome_of(self.task, json.loads(report.read_text(encoding="utf-8")), written, exports, judged)

    def _step(self, name: str, arguments: Sequence[str], *, accepted: Sequence[int] = (0,)) -> dict[str, Any]:
        """Runs one process, unless an earlier run did; returns its time and memory."""
        self.shown.begin(f"{self.task}: {name}")
        took = self._steps.once(f"{self.task}/{name}", lambda: asdict(run_process(arguments, accepted=accepted)))
        self.shown.end(f"{self.task}: {name}: {took['seconds']:.0f} s, {took['peak_mib']:.0f} MiB")
        return took


def outcome_of(
    task: str,
    report: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    exports: Mapping[str, Mapping[str, Any]],
    judging: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the result of a task: its verdict, a row for each artifact, and time and memory of each step."""
    return {
        "task": task,
        "passed": report["passed"],
        "summary": report["summary"],
        "checkpoint": checkpoint,
        "judging": judging,
        "cells": len(report["cells"]),
        "artifacts": [
            {
                "name": runner["name"],
                "status": runner["status"],
                "worst_score": worst_score(report["cells"], runner["name"], "reference"),
                "worst_pair_score": worst_score(report["cells"], runner["name"], "pair"),
                "bytes": runner["bytes"],
                "export": exports[runner["name"]],
            }
            for runner in sorted(report["runners"], key=lambda runner: list(exports).index(runner["name"]))
        ],
    }


def worst_score(cells: Sequence[Mapping[str, Any]], runner: str, kind: str) -> float | None:
    """Returns the largest score of a runner's cells of one kind; None if nothing was compared."""
    scores = [
        cell["score"]
        for cell in cells
        if runner in (cell["runner"], cell["against"]) and cell["kind"] == kind and cell["score"] is not None
    ]
    return max(scores, default=None)


def published() -> dict[str, Any]:
    """Compares the published 3 x 3 slice of the base checkpoint's language output.

    If the checkpoint cannot be reached, ``reached`` is False and ``detail`` has the reason.
    """
    try:
        model = load_checkpoint(PUBLISHED_NAME, task="model", dtype=torch.float32)
    except CheckpointError as error:
        return {"agrees": True, "reached": False, "detail": f"not checked: {error}"}
    np.random.seed(0)
    features = torch.from_numpy(np.random.rand(1, 10, 2048).astype(np.float32))
    np.random.seed(0)
    boxes = torch.from_numpy(np.random.rand(1, 10, 4).astype(np.float32))
    with torch.inference_mode():
        found = model(torch.tensor(PUBLISHED_IDS), features, boxes).language_output[0, :3, :3].numpy()
    difference = float(np.abs(found - np.array(PUBLISHED_SLICE)).max())
    return {
        "agrees": difference <= PUBLISHED_TOLERANCE,
        "reached": True,
        "detail": f"largest difference {difference:.1e}",
    }


if __name__ == "__main__":
    main()
