"""Measures our files beside every peer, at full size, and on the workload: latency, throughput, start-up, memory.

Writes benchmarks/speed.json, .md and .svg. A run continues where it was stopped. Run on a quiet machine: make speed
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import run_process
from benchmarks.resumable import Steps, source_key
from benchmarks.speed_page import page, plot
from lxmert_export.api.bench import bench
from lxmert_export.artifact.directory import open_named
from lxmert_export.artifact.manifest import TOOLS
from lxmert_export.benching.machine import ALSO_MEASURED
from lxmert_export.benching.peers import AGAINST
from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.errors import BuiltNotRun
from lxmert_export.files.atomic_files import replace_files
from lxmert_export.graphs.int8_saturation import WEIGHT_RANGES
from lxmert_export.runners.onnx.int8_kernels import is_exact
from lxmert_export.runners.opening import check_runnable
from lxmert_export.spec.sample_inputs import FamilyKind, draw_batch
from lxmert_export.spec.signature import task_signature

HERE = Path(__file__).parent
SOURCES = (
    "lxmert_export",
    "converters",
    "benchmarks/full_size_checkpoint.py",
    "benchmarks/speed.py",
    "benchmarks/workload.json",
)
# Our artifacts: the folder's name, which is the contestant's, and the options of `lxmert-export onnx`. The first one is the
# yardstick. int8 is calibrated on random inputs: only its speed is measured.
FOR_CPU, INT8 = ("--optimize-for", "cpu"), ("--int8", "--calibration", "{calibration}", "--int8-range", "{range}")
ARTIFACTS: Mapping[str, tuple[str, ...]] = {
    "ours": FOR_CPU,
    "ours-portable": (),
    "ours-split": (*FOR_CPU, "--split"),
    "ours-int8": (*FOR_CPU, *INT8),
    "ours-int8-split": (*FOR_CPU, *INT8, "--split"),
}
# The same files in other runtimes; one that this machine cannot run is left out, and said.
RUNTIMES = ("ours@openvino", "ours@openvino-bf16", "ours-int8@openvino", "ours-int8-split@openvino")
CALIBRATED_ON = 128  # inputs
INT8_NOTE = (
    f"ours-int8 and ours-int8-split: calibrated on {CALIBRATED_ON} random inputs, so what they differ by says nothing of int8 on "
    "real ones; with weights that this CPU multiplies exactly"
)
THREADS, TEXT, OBJECTS = 2, 20, 36


def main() -> None:
    """Runs the unfinished steps, and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="timed calls of each contestant at each setting")
    parser.add_argument("--passes", type=int, default=3, help="passes over the workload")
    parser.add_argument("--checkpoint", help="another checkpoint than the full-size one, such as demo, to try this out")
    parser.add_argument("--output", type=Path, default=HERE, help="where speed.json, .md and .svg are written")
    parser.add_argument("--state", type=Path, default=HERE.parent / "build" / "speed", help="where a run continues")
    parser.add_argument("--page", action="store_true", help="only write speed.md and .svg again from speed.json")
    arguments = parser.parse_args()
    if arguments.page:
        _write(arguments.output, json.loads((arguments.output / "speed.json").read_text(encoding="utf-8")))
        return
    asked = f"{arguments.checkpoint} {arguments.rounds} {arguments.passes}".replace("/", "-").replace(" ", "_")
    steps = Steps(arguments.state, f"{source_key(HERE.parent, SOURCES, (*TOOLS, *ALSO_MEASURED))}-{asked}")
    report = measure(steps, arguments.checkpoint, arguments.rounds, arguments.passes)
    _write(arguments.output, report)
    steps.forget()
    print(page(report))


def _write(place: Path, report: dict[str, Any]) -> None:
    texts = {"speed.json": json.dumps(report, indent=1) + "\n", "speed.md": page(report), "speed.svg": plot(report)}
    replace_files(place, {name: text.encode() for name, text in texts.items()})


def measure(steps: Steps, checkpoint: str | None, rounds: int, passes: int) -> dict[str, Any]:
    """Returns the report of the bench, as JSON values."""
    place = steps.place
    source = checkpoint or str(place / "full-size")
    if checkpoint is None:
        steps.once("checkpoint", lambda: _run("benchmarks.full_size_checkpoint", source))
    given = {
        "calibration": str(place / "calibration.npz"),
        "range": "8bit" if is_exact(WEIGHT_RANGES["8bit"]) else "7bit",
    }
    steps.once("calibration", lambda: write_calibration(source, Path(given["calibration"])))
    common = ("onnx", source, "--task", "question-answering", "--no-parity", "--overwrite")
    for name, options in ARTIFACTS.items():
        flags = [option.format(**given) for option in options]
        step = partial(_run, "lxmert_export.cli", *common, *flags, "-o", str(place / name))
        took = steps.once(name, step)
        print(f"{name}: {took}", flush=True)
    return steps.once("bench", lambda: _bench(place, source, rounds, passes))


def write_calibration(source: str, file: Path) -> dict[str, Any]:
    """Draws random inputs of the checkpoint's sizes, for int8 to measure ranges on."""
    config = read_checkpoint(source).config
    signature = task_signature(config, "question-answering")
    sizes = {"batch": CALIBRATED_ON, "text": TEXT, "objects": OBJECTS}
    inputs = draw_batch(FamilyKind(ragged=True), signature, config, sizes, np.random.default_rng(0))
    np.savez(file, **inputs)  # type: ignore[arg-type]  # every keyword is an array
    return {"rows": CALIBRATED_ON}


def _run(module: str, *arguments: str) -> dict[str, Any]:
    """Runs a module in a process of its own."""
    print(f"running {module} {' '.join(arguments)}", flush=True)
    return vars(run_process(["-m", module, *arguments]))


def _bench(place: Path, source: str, rounds: int, passes: int) -> dict[str, Any]:
    runnable, left_out = [str(place / name) for name in ARTIFACTS], []
    for name in RUNTIMES:
        try:
            check_runs(place / name)
        except BuiltNotRun as error:
            left_out.append(f"{name}: not run: {error}".replace(f"{place}/", ""))
        else:
            runnable.append(str(place / name))
    report = bench(
        runnable, batch=(1, 8), text=(TEXT,), objects=(OBJECTS,), against=AGAINST, checkpoint=source,
        workload=HERE / "workload.json", rounds=rounds, passes=passes, threads=THREADS, progress=_said,
    ).to_dict()  # fmt: skip
    return {**report, "notes": [*report["notes"], INT8_NOTE, *left_out]}


def check_runs(name: Path) -> None:
    """``BuiltNotRun``: this machine cannot run it."""
    check_runnable(open_named(name))


def _said(step: str, done: int, total: int) -> None:
    print(f"{step}: {done} of {total}", flush=True)


if __name__ == "__main__":
    main()
