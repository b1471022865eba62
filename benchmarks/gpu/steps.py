"""Runs one step of the check in its own process, so that even a crash of a native library ends only this step.

Run by benchmarks.gpu.check: python -m benchmarks.gpu.steps STEP SETTING RESULT
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.full_size_checkpoint import lively_weights
from benchmarks.gpu.contestants import (
    ENGINE,
    ENGINE_GRAPH,
    GRAPH,
    OURS,
    TF32,
    Call,
    CudaCall,
    EngineCall,
    GraphCall,
    difference,
    draw_inputs,
    on_own_stream,
    torch_openers,
    waiting,
)
from benchmarks.gpu.floors import COPIED_BYTES, MATRIX, cost_of_call, measure_rates
from benchmarks.gpu.kernels import count_kernels
from benchmarks.gpu.page import WITH, WITHOUT
from benchmarks.gpu.setting import DYNAMIC, LEAN, OBJECTS, TEXT, Form, Setting
from benchmarks.gpu.timing import time_in_turn, warm_up
from lxmert_export.api.checkpoint import load_checkpoint
from lxmert_export.api.engine import build_engine
from lxmert_export.api.export import export
from lxmert_export.api.parity import check_parity
from lxmert_export.artifact.directory import Artifact, open_artifact
from lxmert_export.checkpoint.write import write_checkpoint
from lxmert_export.errors import LxmertExportError
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.parity.report import ParityReport
from lxmert_export.runners.onnx.cuda.gpu_thread import on_gpu_thread
from lxmert_export.runners.onnx.cuda.runner import CudaRunner
from lxmert_export.runners.opening import open_runner
from lxmert_export.runners.tensorrt.engine import TensorRtRunner
from lxmert_export.runners.tensorrt.runtime_cache import SETTING
from lxmert_export.spec.sample_inputs import sample_inputs
from lxmert_export.spec.signature import Precision, task_signature

ROOT = Path(__file__).parents[2]
LEAST_WARM_CALLS = 20
# The kinds of steps that make a directory, and the first part of its name.
MADE = {"export": "onnx", "build": "engine"}
# In half precision, two orders of the same sums differ by about a hundredth of an output's size. A contestant that
# differs by more than this computes something else.
LARGEST_DIFFERENCE = 0.05


def main() -> None:
    """Runs one step, and writes its result as JSON; exits with one line and code 1 if the step fails."""
    name, setting, result = sys.argv[1], Setting.from_json(sys.argv[2]), Path(sys.argv[3])
    torch.set_float32_matmul_precision("highest")  # no TF32 in PyTorch either
    try:
        found = run_step(name, setting)
    except LxmertExportError as error:
        sys.exit(str(error))
    except torch.OutOfMemoryError as error:
        sys.exit(f"out of memory: {str(error).splitlines()[0]}")
    result.write_text(json.dumps(found), encoding="utf-8")


def step_names(setting: Setting) -> list[str]:
    """Returns all steps, each after the steps that it needs; those of engines only where engines can be built and run."""
    names = ["device", "tests"]
    for precision in setting.precisions:
        for form in setting.judged_forms(precision):
            names += [f"export/{form}", f"parity/{form}"]
        names += [f"tf32/{Form(precision, DYNAMIC)}"] if precision == "fp32" else []
        if setting.no_engines is None:
            names += [f"{kind}/{Form(precision, DYNAMIC)}" for kind in ("build", "engine")]
        names += [f"timing/{precision}/{batch}" for batch in setting.batches]
    return names


def place_of(setting: Setting, name: str) -> Path | None:
    """Returns the directory that a step makes; None if it makes none."""
    kind, _, form = name.partition("/")
    return setting.path(f"{MADE[kind]}-{form}") if kind in MADE else None


def run_step(name: str, setting: Setting) -> dict[str, Any]:
    """Runs one step, and returns its result."""
    kind, *rest = name.split("/")
    if kind == "timing":
        precision, batch = cast(Precision, rest[0]), int(rest[1])
        # With onnxruntime's captured graphs, all contestants are on the one thread that may use the GPU.
        return on_gpu_thread(timing_of, setting, precision, batch)
    alone = {"device": rates_of_device, "tests": tests_on_gpu}
    work = {"export": export_of, "parity": parity_of, "tf32": tf32_of, "build": build_of, "engine": engine_of}
    return alone[kind](setting) if kind in alone else work[kind](setting, Form.named(rest[0]))


# --- artifacts, made unless they exist


def checkpoint(setting: Setting) -> Path:
    """Returns a checkpoint with lively random weights."""
    directory = setting.path("checkpoint")
    if not (directory / "config.json").is_file():
        config, task = setting.config, setting.task
        write_checkpoint(lively_weights(config, task, 0), config, task, directory, dialect="hf", overwrite=True)
    return directory


def graph(setting: Setting, form: Form, *, judged: bool = True) -> Artifact:
    """Returns the ONNX artifact of a form; those that are judged are exported with their gate, which writes their golden file."""
    setting.need(f"export/{form}")
    directory = setting.path(f"{MADE['export']}-{form}")
    if (directory / "manifest.json").is_file():
        return open_artifact(directory)
    return export(
        "onnx", checkpoint(setting), directory, precision=form.precision, task=setting.task, fixed=form.fixed,
        optimize_for="cuda" if form.kind == LEAN else None, parity=judged, overwrite=True,
    )  # fmt: skip


def engine(setting: Setting, form: Form) -> Artifact:
    """Returns the engine that is built from this ONNX artifact, with a profile for each timed batch."""
    setting.need(f"build/{form}")
    directory = setting.path(f"{MADE['build']}-{form}")
    if (directory / "manifest.json").is_file():
        return open_artifact(directory)
    onnx = graph(setting, form)
    return build_engine(onnx.path, directory, target=setting.target, batch=setting.batch_ranges, overwrite=True)


# --- the steps


def rates_of_device(setting: Setting) -> dict[str, Any]:
    """Measures how fast the device copies, and multiplies in each precision."""
    little = setting.small and setting.device == "cpu"
    rates = measure_rates(
        setting.device,
        setting.precisions,
        wait=waiting(setting.device),
        copied_bytes=1 << 20 if little else COPIED_BYTES,
        matrix=64 if little else MATRIX,
    )
    return rates.to_dict()


def tests_on_gpu(setting: Setting) -> dict[str, Any]:
    """Runs the tests that need a GPU, and returns pytest's last line. Where there is none they are skipped, by name."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "gpu", "parity_tests/cuda"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return {"passed": done.returncode == 0, "summary": (lines or ["pytest wrote nothing"])[-1].strip("= ")}


def export_of(setting: Setting, form: Form) -> dict[str, Any]:
    """Exports to ONNX, with the gate on the CPU."""
    began = time.perf_counter()
    manifest = graph(setting, form).manifest
    assert manifest.parity is not None
    return {
        "seconds": time.perf_counter() - began,
        "passed": manifest.parity["passed"],
        "launches": manifest.options.get("launches"),
    }


def build_of(setting: Setting, form: Form) -> dict[str, Any]:
    """Builds the engine, and returns what was counted in it."""
    graph(setting, form)
    began = time.perf_counter()
    options = engine(setting, form).manifest.options
    kept = ("runtime_version", "engine_bytes", "weight_bytes", "matmuls", "float32_matmuls")
    return {
        "seconds": time.perf_counter() - began,
        **{name: options["build"][name] for name in kept},
        "profiles": options["profiles"],
    }


def parity_of(setting: Setting, form: Form) -> dict[str, Any]:
    """Judges all families of inputs and all laws on the GPU, in our own runtime."""
    return judged(setting, f"{graph(setting, form).path}@{'cuda' if setting.device == 'cuda' else 'onnxruntime'}")


def tf32_of(setting: Setting, form: Form) -> dict[str, Any]:
    """Judges the fp32 file in TF32, by TF32's own floor."""
    return judged(setting, f"{graph(setting, form).path}@cuda-tf32", laws=False)


def engine_of(setting: Setting, form: Form) -> dict[str, Any]:
    """Judges an engine, and measures how much time kept kernels save when it is loaded."""
    found = engine(setting, form)
    return {"seconds_to_first_call": seconds_to_first_call(found), **judged(setting, str(found.path))}


def judged(setting: Setting, name: str, *, laws: bool = True) -> dict[str, Any]:
    """Returns the verdict on an artifact, the worst cell of each output, and errors beside their predictions."""
    report = check_parity([name], laws=laws and not setting.small, time_limit=None)
    outputs = dict.fromkeys(cell.output for cell in report.cells if cell.kind == "reference")
    return {
        "passed": report.passed,
        "summary": report.summary(),
        "not_run": list(report.families_not_run),
        "laws": sum(cell.kind == "law" for cell in report.cells),
        "worst": [worst_cell(report, output) for output in outputs],
        "predictions": [prediction.to_dict() for prediction in report.predictions],
    }


def seconds_to_first_call(artifact: Artifact) -> dict[str, float]:
    """Measures opening an engine to its first outputs, without and with kept kernels; hashing does not count."""
    manifest = artifact.manifest
    batch = sample_inputs(manifest.signature, manifest.config).families[0].batches[0]
    found = {}
    with tempfile.TemporaryDirectory(prefix="lxmert-export-kernels-") as place:
        os.environ[SETTING] = place
        for kept in (WITHOUT, WITH):
            began = time.perf_counter()
            with open_runner(artifact) as runner:
                runner.run_in_pieces(batch)
                found[kept] = time.perf_counter() - began
        del os.environ[SETTING]
    return found


def worst_cell(report: ParityReport, output: str) -> dict[str, Any]:
    """Returns the cell with an output's worst inputs."""
    cell = next(cell for cell in report.worst_cells() if cell.output == output and cell.kind == "reference")
    kept = ("output", "family", "status", "reason", "score", "threshold", "error_rms", "error_max", "floor")
    figures = {name: getattr(cell, name) for name in kept}
    # JSON has no infinity: such a value becomes None; the status is beside it.
    return {n: None if isinstance(value, float) and not math.isfinite(value) else value for n, value in figures.items()}


def timing_of(setting: Setting, precision: Precision, batch: int) -> dict[str, Any]:
    """Times all contestants in one batch size, in turn; of a contestant that fails, returns the reason."""
    config, task = setting.config, setting.task
    signature, sizes = task_signature(config, task), {"batch": batch, "text": TEXT, "objects": OBJECTS}
    module = load_checkpoint(checkpoint(setting), task=task)
    cost = cost_of_call(module, signature, sizes, precision)
    inputs = draw_inputs(signature, sizes, config.vocab_size, setting.device)
    wait = waiting(setting.device)
    with on_own_stream(setting.device), ExitStack() as opened:
        openers = torch_openers(module, signature, precision, inputs, setting.device)
        for form in setting.timed_forms(precision, batch):
            openers |= our_openers(setting, form, inputs, opened)
        if setting.no_engines is None:
            openers |= engine_openers(setting, Form(precision, DYNAMIC), inputs, opened)
        calls, differences, failed = open_all(openers, setting)
        kernels = {name: count_kernels(call, setting.device) for name, call in calls.items()}
        timed = time_in_turn(calls, rounds=setting.rounds, calls_each=setting.calls, wait=wait)
    return {
        "sizes": sizes,
        "cost": vars(cost),
        "contestants": {name: times.to_dict(batch) for name, times in timed.items()},
        "kernels": kernels,
        "difference_from_eager": differences,
        "failed": failed,
    }


def our_openers(
    setting: Setting, form: Form, inputs: Mapping[str, Tensor], opened: ExitStack
) -> dict[str, Callable[[], Call]]:
    """Returns the contestants of one of our files: launched one by one; with fixed axes, as a CUDA graph; of fp32, in TF32."""

    def opening(runtime: str, *, as_graph: bool) -> Callable[[], Call]:
        def open_call() -> Call:
            artifact = graph(setting, form, judged=False).in_runtime(runtime)
            runner = opened.enter_context(open_runner(artifact, cuda_graph=as_graph))
            assert isinstance(runner, CudaRunner)
            return CudaCall(runner, inputs)

        return open_call

    name, fixed = OURS[form.kind], form.batch is not None
    openers = {name: opening("cuda", as_graph=False)}
    openers |= {f"{name}{GRAPH}": opening("cuda", as_graph=True)} if fixed else {}
    if form.precision == "fp32" and fixed:
        openers[f"{name}{GRAPH}{TF32}"] = opening("cuda-tf32", as_graph=True)
    return openers


def engine_openers(
    setting: Setting, form: Form, inputs: Mapping[str, Tensor], opened: ExitStack
) -> dict[str, Callable[[], Call]]:
    """Returns the contestants of one engine; they share one context, which ``opened`` closes."""

    @cache
    def open_engine() -> EngineCall:
        runner = opened.enter_context(open_runner(engine(setting, form)))
        assert isinstance(runner, TensorRtRunner)
        return EngineCall(runner, inputs)

    return {ENGINE: open_engine, ENGINE_GRAPH: lambda: GraphCall(open_engine())}


def open_all(
    openers: Mapping[str, Callable[[], Call]], setting: Setting
) -> tuple[dict[str, Call], dict[str, float], dict[str, str]]:
    """Opens and warms up all contestants, and compares their outputs with those of the first, eager PyTorch.

    Returns the contestants that can be timed, how much they differ from the first, and why the others cannot be timed.
    """
    wait = waiting(setting.device)
    calls: dict[str, Call] = {}
    differences: dict[str, float] = {}
    failed: dict[str, str] = {}
    first, wanted = "", tuple[Tensor, ...]()
    for name, opener in openers.items():
        try:
            with quiet_native_logs():
                call = opener()
                warm_up(call, wait=wait, seconds=setting.warm_seconds, least=LEAST_WARM_CALLS)
                found = call.outputs()
                wait()
        except (LxmertExportError, RuntimeError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            failed[name] = setting.without_places(reason)
            continue
        first, wanted = first or name, wanted or found
        far = difference(found, wanted)
        if not far <= LARGEST_DIFFERENCE:
            failed[name] = f"differs from {first} by {far:.2g} of the output's size"
            continue
        calls[name], differences[name] = call, far
    return calls, differences, failed


if __name__ == "__main__":
    main()
