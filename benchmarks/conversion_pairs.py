"""Converts a full-size checkpoint to every target with the code here and with another checkout of it, in turn: is one slower?

Writes benchmarks/conversion_pairs.json and .md. Run: python -m benchmarks.conversion_pairs ../earlier-checkout [--runs 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.full_size_plan import EXPORTS, Export
from benchmarks.measuring import Run, in_turn, machine, run_process, spread

RESULTS = Path(__file__).with_suffix(".json")
PAGE = RESULTS.with_suffix(".md")
HERE = RESULTS.parent.parent
NOW, BEFORE = "now", "before"
# Engines are left out: they are built from an ONNX artifact.
KINDS = {kind.name: kind for kind in EXPORTS if kind.origin is None}
CHOSEN = ("onnx-fp32", "onnx-fp16", "saved-model-fp32", "keras-fp32", "tflite-fp32")
# Runs a module of the checkout at a place, whichever one is installed.
FROM = "import runpy, sys; sys.path.insert(0, {place!r}); runpy.run_module('lxmert_export.cli', None, '__main__', True)"


def main() -> None:
    """Measures the pairs, and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("earlier", type=Path, help="a checkout of earlier code")
    parser.add_argument("--runs", type=int, default=3, help="conversions of each kind with each of the two")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=CHOSEN)
    arguments = parser.parse_args()
    checkouts = {NOW: HERE, BEFORE: arguments.earlier.resolve()}
    results: dict[str, Any] = {
        "machine": machine(("torch", "onnx", "tensorflow-cpu")),
        "commits": {name: _commit(place) for name, place in checkouts.items()},
        "runs": {},
    }
    with tempfile.TemporaryDirectory(prefix="lxmert-export-pairs-") as place:
        checkpoint = Path(place) / "checkpoint"
        run_process(["-m", "benchmarks.full_size_checkpoint", str(checkpoint), "--task", "question-answering"])
        for name in arguments.kinds:
            commands = {side: _command(KINDS[name], root, Path(place), checkpoint) for side, root in checkouts.items()}
            print(name, flush=True)
            found = in_turn(commands, arguments.runs)
            results["runs"][name] = {side: [vars(run) for run in runs] for side, runs in found.items()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")
    print(page(results))


def _command(kind: Export, root: Path, place: Path, checkpoint: Path) -> list[str]:
    return ["-c", FROM.format(place=str(root)), *kind.arguments(place, checkpoint)[2:]]


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def page(results: dict[str, Any]) -> str:
    """Returns the page: medians, spreads, and ratios of the medians."""
    runs = {
        kind: {side: [Run(**run) for run in found] for side, found in sides.items()}
        for kind, sides in results["runs"].items()
    }
    count = len(next(iter(runs.values()))[NOW])
    return "\n".join(
        [
            "# Conversions, now and before",
            "",
            f"Measured by `python -m benchmarks.conversion_pairs` on {results['machine']}: now {results['commits'][NOW]}, before",
            f"{results['commits'][BEFORE]}, {count} runs each, made in turn. A full-size question-answering checkpoint,",
            "`--no-parity`, from the start of Python to its end. Medians (least to largest); ratios of medians, now ÷ before.",
            "",
            "| conversion | wall s now | wall s before | ratio | CPU s, ratio | peak MiB now | ratio |",
            "|---|---|---|---|---|---|---|",
            *(_row(kind, sides) for kind, sides in runs.items()),
            "",
        ]
    )


def _row(kind: str, sides: dict[str, list[Run]]) -> str:
    seconds, cpu, peak = (
        {side: [getattr(run, field) for run in found] for side, found in sides.items()}
        for field in ("seconds", "cpu_seconds", "peak_mib")
    )
    return (
        f"| {kind} | {spread(seconds[NOW])} | {spread(seconds[BEFORE])} | {_ratio(seconds)} | {_ratio(cpu)} | "
        f"{spread(peak[NOW], 0)} | {_ratio(peak)} |"
    )


def _ratio(found: dict[str, list[float]]) -> str:
    return f"{statistics.median(found[NOW]) / statistics.median(found[BEFORE]):.2f}"


if __name__ == "__main__":
    main()
