"""Runs all trials, one architecture after the other, each in a process of its own, and writes the page.

A run that was stopped goes on where it was: build/study/ holds a line for each trial. Run: make study
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.study.architectures import ARCHITECTURES
from benchmarks.study.curve import curves
from benchmarks.study.page import page
from benchmarks.study.results import read_rows, summarise

HERE = Path(__file__).parent
TRIALS = Path("build/study")
WITH_GRAPH_FAULTS = 1  # the first architectures: an export anew for every fault and target takes long


def main() -> None:
    """Runs what is missing and writes the results; fails where the evidence does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, help="run this architecture alone, by its number, and write no page")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page of what is there")
    parser.add_argument(
        "--fault-seeds", type=int, default=1, help="sound checkpoints of each architecture that faults are planted into"
    )
    arguments = parser.parse_args()
    if arguments.only is not None:
        run_one(arguments.only, arguments.fault_seeds)
        return
    lost = (
        []
        if arguments.page
        else [name for number, name in enumerate(names()) if not run_apart(number, arguments.fault_seeds)]
    )
    results = summarise(read_rows(TRIALS))
    (HERE.parent / "study.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (HERE.parent / "study.md").write_text(page(results), encoding="utf-8")
    (HERE.parent / "study.svg").write_text(curves(results), encoding="utf-8")
    subjects = results["subjects"].items()
    alarmed = {name: row["alarms"] for name, row in subjects if row["alarms"]}
    missed = {name: row["detectable"] - row["detectable_caught"] for name, row in subjects}
    if lost or alarmed or any(missed.values()):
        sys.exit(f"not finished: {lost}; alarms on correct checkpoints: {alarmed}; detectable faults missed: {missed}")


def names() -> list[str]:
    """The architectures' names, in order."""
    return [architecture.name for architecture in ARCHITECTURES]


def run_apart(number: int, fault_seeds: int) -> bool:
    """One architecture in a process of its own: whether it came to its end."""
    print(f"{number + 1} of {len(ARCHITECTURES)}: {ARCHITECTURES[number].name}", flush=True)
    command = [sys.executable, "-m", "benchmarks.study", "--only", str(number), "--fault-seeds", str(fault_seeds)]
    return subprocess.run(command, check=False).returncode == 0


def run_one(number: int, fault_seeds: int) -> None:
    """One architecture, in this process."""
    from benchmarks.study.judging import use_one_core
    from benchmarks.study.trials import run_architecture

    use_one_core()
    run_architecture(ARCHITECTURES[number], TRIALS, fault_seeds=fault_seeds, graph_faults=number < WITH_GRAPH_FAULTS)


if __name__ == "__main__":
    main()
