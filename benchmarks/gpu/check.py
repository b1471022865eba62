"""Runs our files on this machine's NVIDIA GPU, compares them with float64, and times them beside PyTorch and TensorRT.

Its first lines say what is missing here, and how to bring it where there is no network. It writes benchmarks/gpu/<the GPU's
name>.json and .md after every step, begins no step after six and a half minutes, and continues where it stopped when it is run
again. Without a GPU it says so, writes nothing and exits 1. Run: make gpu, or python -m benchmarks.gpu.check
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.missing import OFFLINE, Missing, what_is_missing, why_no_engines
from benchmarks.gpu.results import DONE, FAILED, Results, open_results
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import place_of, step_names
from benchmarks.measuring import machine
from lxmert_export.engines.gpus import find_gpus
from lxmert_export.spec.signature import TASKS

HERE = Path(__file__).parent
PRECISIONS = ("fp16", "bf16", "fp32")
# A machine that is lent ends a command after some minutes; the longest step takes one and a half of them on an H200.
MINUTES = 6.5
DISTRIBUTIONS = (
    "torch",
    "triton",
    "tensorrt-rtx",
    "tensorrt",
    "polygraphy",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the steps that are not done yet."""
    options = parse(arguments)
    lacking = [] if options.device == "cpu" else what_is_missing()
    gpu = "no GPU, on the CPU" if options.device == "cpu" else check_gpu(lacking)
    no_engines = "it is no GPU" if options.device == "cpu" else why_no_engines(options.target)
    setting = Setting(
        work="", task=options.task, small=options.small, device=options.device, target=options.target,
        precisions=tuple(options.precisions), no_engines=no_engines,
        batches=tuple(sorted(set(options.batches))), rounds=options.rounds, calls=options.calls,
        warm_seconds=options.warm_seconds, failed={},
    )  # fmt: skip
    stem = file_stem(gpu, setting)
    path, work = options.output / f"{stem}.json", options.work.absolute() / stem
    results = open_results(path, facts_of(setting, gpu, lacking), anew=options.anew)
    if options.anew:
        shutil.rmtree(work, ignore_errors=True)
    setting = replace(setting, work=str(work))
    forget(options.again, setting, results)
    left = run_steps(setting, results, minutes=options.minutes)
    print(f"{path.with_suffix('.md')}: {len(results.steps)} steps, {len(results.failed)} of them failed")
    if left:
        print(f"not done yet: {', '.join(left)}; run this command again to continue")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--task", choices=TASKS, default="question-answering")
    parser.add_argument("--target", default="rtx", help="as for `lxmert-export tensorrt`")
    parser.add_argument("--small", action="store_true", help="use a small network, to try this command")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; in each, all contestants take turns")
    parser.add_argument("--calls", type=int, default=40, help="timed calls of each contestant in a round")
    parser.add_argument("--warm-seconds", type=float, default=1.0, help="untimed calls before, at least this long")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="begin no step after so many; run again to go on"
    )
    parser.add_argument("--again", nargs="+", default=[], metavar="STEP", help="steps to forget and run again")
    parser.add_argument("--anew", action="store_true", help="forget all results, and remove what was built")
    parser.add_argument("--work", type=Path, default=Path("build/gpu"), help="folder for checkpoints and engines")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)  # cpu: for tests
    options = parser.parse_args(arguments)
    if min(options.batches) < 1:
        parser.error("--batches: at least 1")
    return options


def check_gpu(lacking: Sequence[Missing]) -> str:
    """Returns the name of the GPU that PyTorch uses. Prints what is missing; exits with one line if nothing can be measured."""
    if fatal := [one for one in lacking if one.without is None]:
        told = f"{fatal[0].what}: {fatal[0].package}" if fatal[0].package else fatal[0].what
        sys.exit(f"{told}; nothing was measured, and nothing written")
    for one in lacking:
        print(one, flush=True)
    if lacking:
        print(OFFLINE, flush=True)
    return torch.cuda.get_device_name()


def forget(names: Sequence[str], setting: Setting, results: Results) -> None:
    """Removes steps from the results, and what they made; exits with one line if a name is no step of this check."""
    known = step_names(setting)
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"--again {unknown[0]}: no such step; the steps are {', '.join(known)}")
    for name in names:
        results.steps.pop(name, None)
        if (place := place_of(setting, name)) is not None:
            shutil.rmtree(place, ignore_errors=True)


def run_steps(setting: Setting, results: Results, *, minutes: float | None = None) -> list[str]:
    """Runs and records the steps that have no result; returns the names of those for which there was no time."""
    began = time.monotonic()
    names = [name for name in step_names(setting) if name not in results.steps]
    for number, name in enumerate(names):
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            return names[number:]
        print(f"{name} …", flush=True)
        step = run_alone(name, setting.without(results.failed))
        results.record(name, step)
        print(f"{name}: {step['status']} ({step['seconds']:.0f} s) {step.get('reason', '')}", flush=True)
    return []


def run_alone(name: str, setting: Setting) -> dict[str, Any]:
    """Runs one step in its own process, and returns its result; its output is in logs/ of the work directory."""
    log = setting.path("logs", f"{name.replace('/', '-')}.txt")
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lxmert-export-gpu-") as place, log.open("w", encoding="utf-8") as output:
        result = Path(place) / "result.json"
        command = [sys.executable, "-m", "benchmarks.gpu.steps", name, setting.to_json(), str(result)]
        code = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
        seconds = round(time.monotonic() - began, 1)
        if result.is_file():
            return {"status": DONE, "seconds": seconds, "result": json.loads(result.read_text(encoding="utf-8"))}
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    reason = f"ended by signal {-code}" if code < 0 else (lines or [f"exit code {code}"])[-1]
    return {"status": FAILED, "seconds": seconds, "reason": setting.without_places(reason)}


def facts_of(setting: Setting, gpu: str, lacking: Sequence[Missing] = ()) -> dict[str, Any]:
    """Returns what all results of one file have in common."""
    config = setting.config
    layers = f"{config.l_layers}/{config.x_layers}/{config.r_layers} layers, {config.hidden_size} wide"
    driver = "; ".join(map(str, find_gpus())) if setting.device == "cuda" else gpu
    return {
        "gpu": gpu,
        "machine": f"{driver}; {machine(DISTRIBUTIONS)}; CUDA {torch.version.cuda}",
        "network": f"{'Small' if setting.small else 'Full size'}: {layers}, {config.num_qa_labels} answers",
        "task": setting.task,
        "target": setting.target,
        "missing": [str(one) for one in lacking],
        "no_engines": setting.no_engines,
        "batch_profiles": setting.batch_ranges,
    }


def file_stem(gpu: str, setting: Setting) -> str:
    """Returns the name of the results' file: the GPU, and task, target and size where they are not the defaults."""
    others: list[str] = [setting.task] if setting.task != "question-answering" else []
    others += [setting.target] if setting.target != "rtx" else []
    others += ["small"] if setting.small else []
    return "-".join(re.sub("[^a-z0-9]+", "-", word.lower()).strip("-") for word in (gpu, *others))


if __name__ == "__main__":
    main()
