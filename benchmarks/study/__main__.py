"""Runs all trials, one architecture after the other, each in its own process, and writes the page.

A run that was stopped continues where it stopped: build/study/ holds a line for each finished trial. After a change of
what is judged, remove build/study/ first. Run: make study
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.study.curve import curves
from benchmarks.study.page import page, scores_of
from benchmarks.study.results import read_rows, summarise
from parity_tests.fixtures.architectures import ARCHITECTURES

HERE = Path(__file__).parent.parent
TRIALS = Path("build/study")
# It has two cross layers, so that a fault in the vision side of the first reaches the answers through the second.
WITH_GRAPH_FAULTS = next(architecture for architecture in ARCHITECTURES if architecture.name == "small answers")
GRAPH, BESIDE_SIMULATION = len(ARCHITECTURES), len(ARCHITECTURES) + 1  # the jobs after the architectures'
LAST = BESIDE_SIMULATION
INT8_NAME, MOST_INT8_ALARMS = "tflite int8", 0.005


def main() -> None:
    """Runs the missing trials and writes the results; exits with an error if they do not support the thresholds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", type=int, metavar="N", help=f"run only job N, 0 to {LAST}, print its scores, and write no page"
    )
    parser.add_argument("--page", action="store_true", help="run nothing; write the page of the finished trials")
    arguments = parser.parse_args()
    if arguments.only is not None:
        run_job(arguments.only)
        if arguments.only < GRAPH:
            name = ARCHITECTURES[arguments.only].name
            print(*scores_of([row for row in read_rows(TRIALS) if row.get("architecture") == name]), sep="\n")
        return
    lost = [] if arguments.page else [number for number in range(LAST + 1) if not run_apart(number)]
    results = summarise(read_rows(TRIALS))
    written = {"study.json": one_line_each(results) + "\n", "study.md": page(results), "study.svg": curves(results)}
    for name, text in written.items():
        (HERE / name).write_text(text, encoding="utf-8")
    subjects = results["subjects"].items()
    # int8 may alarm at a low rate: its choices are counted, and of a few dozen choices some may change by chance.
    judged = {**results["subjects"], **results["pairs"]}
    alarms = {name: row["alarms"] for name, row in judged.items() if row["alarms"] and INT8_NAME not in name}
    if (bound := results["int8"]["kept"]["false_alarm_bound"]) > MOST_INT8_ALARMS:
        alarms[f"{INT8_NAME}, kept"] = f"a rate below {bound:.2%}"
    missed = {name: row["detectable"] - row["detectable_caught"] for name, row in subjects}
    if lost or alarms or any(missed.values()):
        sys.exit(
            f"jobs that failed: {lost}; alarms on correct checkpoints: {alarms}; detectable faults missed: {missed}"
        )


def one_line_each(results: dict[str, Any]) -> str:
    """JSON with a line for each architecture, subject, pair and fault."""
    lines = []
    for name, value in results.items():
        parts, ends = [json.dumps(value)], ("", "")
        if isinstance(value, dict):
            parts, ends = [f"{json.dumps(key)}: {json.dumps(part)}" for key, part in value.items()], ("{\n", "\n }")
        elif isinstance(value, list):
            parts, ends = [json.dumps(part) for part in value], ("[\n", "\n ]")
        indent = "  " if ends[0] else ""
        lines.append(f" {json.dumps(name)}: {ends[0]}" + ",\n".join(indent + part for part in parts) + ends[1])
    return "{\n" + ",\n".join(lines) + "\n}"


def run_apart(number: int) -> bool:
    """Runs a job in its own process; returns whether it finished."""
    print(f"job {number} of {LAST}", flush=True)
    return (
        subprocess.run([sys.executable, "-m", "benchmarks.study", "--only", str(number)], check=False).returncode == 0
    )


def run_job(number: int) -> None:
    """Runs one architecture, the faults of the graph, or int8 beside its simulation, in this process."""
    from benchmarks.study.judging import use_one_core
    from benchmarks.study.trials import run_architecture, run_graph_faults, run_int8

    use_one_core()
    if number == GRAPH:
        run_graph_faults(WITH_GRAPH_FAULTS, TRIALS)
    elif number == BESIDE_SIMULATION:
        run_int8(TRIALS)
    else:
        run_architecture(ARCHITECTURES[number], TRIALS)


if __name__ == "__main__":
    main()
