"""Measures our files beside every peer, at full size, and on the workload: latency, throughput, start-up, memory.

Writes benchmarks/speed.json, .md and .svg. A run continues where it was stopped. Run on a quiet machine: make speed
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measuring import run_process
from benchmarks.resumable import Steps, source_key
from benchmarks.speed_page import page, plot
from lxmert_export.api.bench import bench
from lxmert_export.artifact.directory import open_named
from lxmert_export.artifact.manifest import TOOLS
from lxmert_export.benching.machine import ALSO_MEASURED
from lxmert_export.benching.peers import AGAINST
from lxmert_export.errors import BuiltNotRun
from lxmert_export.files.atomic_files import replace_files
from lxmert_export.runners.opening import check_runnable

HERE = Path(__file__).parent
SOURCES = (
    "lxmert_export",
    "converters",
    "benchmarks/full_size_checkpoint.py",
    "benchmarks/speed.py",
    "benchmarks/workload.json",
)
# Our artifacts: the folder's name, which is the contestant's, and the options of `lxmert-export onnx`. The first one is the
# yardstick.
ARTIFACTS: Mapping[str, tuple[str, ...]] = {"ours": ("--optimize-for", "cpu"), "ours-portable": ()}
# The same files in other runtimes; one that this machine cannot run is left out, and said.
RUNTIMES = ("ours@openvino", "ours@openvino-bf16")
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
    for name, flags in ARTIFACTS.items():
        export = (
            "lxmert_export.cli",
            "onnx",
            source,
            "--task",
            "question-answering",
            "--no-parity",
            "--overwrite",
            *flags,
        )
        steps.once(name, lambda export=export, name=name: _run(*export, "-o", str(place / name)))  # type: ignore[misc]
    return steps.once("bench", lambda: _bench(place, source, rounds, passes))


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
    return {**report, "notes": [*report["notes"], *left_out]}


def check_runs(name: Path) -> None:
    """``BuiltNotRun``: this machine cannot run it."""
    check_runnable(open_named(name))


def _said(step: str, done: int, total: int) -> None:
    print(f"{step}: {done} of {total}", flush=True)


if __name__ == "__main__":
    main()
