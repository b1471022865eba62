"""Runs one step of the check in its own process, so that even a crash of a native library ends only this step.

Run by benchmarks.gpu.check: python -m benchmarks.gpu.steps STEP SETTING RESULT
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.full_size_checkpoint import lively_weights
from benchmarks.gpu.beside_prediction import beside_prediction
from benchmarks.gpu.contestants import (
    ENGINES,
    Call,
    EngineCall,
    GraphCall,
    difference,
    draw_inputs,
    on_own_stream,
    outputs_of,
    torch_openers,
    waiting,
)
from benchmarks.gpu.floors import COPIED_BYTES, MATRIX, cost_of_call, measure_rates
from benchmarks.gpu.page import WITH, WITHOUT
from benchmarks.gpu.setting import OBJECTS, TEXT, Setting, attention_of, precision_of
from benchmarks.gpu.timing import time_in_turn, warm_up
from lxmert_export.api.checkpoint import load_checkpoint
from lxmert_export.api.engine import build_engine
from lxmert_export.api.export import export
from lxmert_export.api.parity import verify
from lxmert_export.artifact.directory import Artifact, open_artifact
from lxmert_export.checkpoint.write import write_checkpoint
from lxmert_export.errors import LxmertExportError
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.parity.report import ParityReport
from lxmert_export.runners.opening import open_runner
from lxmert_export.runners.tensorrt.engine import TensorRtRunner
from lxmert_export.runners.tensorrt.runtime_cache import SETTING
from lxmert_export.spec.sample_inputs import sample_inputs
from lxmert_export.spec.signature import Precision, task_signature

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
    """Returns all steps, each after the steps that it needs."""
    names = ["device"]
    for precision in setting.precisions:
        names += [f"{kind}/{form}" for form in setting.forms(precision) for kind in ("export", "build", "parity")]
        names += [f"timing/{precision}/{batch}" for batch in setting.batches]
    return names


def place_of(setting: Setting, name: str) -> Path | None:
    """Returns the directory that a step makes; None if it makes none."""
    kind, _, form = name.partition("/")
    return setting.path(f"{MADE[kind]}-{form}") if kind in MADE else None


def run_step(name: str, setting: Setting) -> dict[str, Any]:
    """Runs one step, and returns its result."""
    kind, *rest = name.split("/")
    if kind == "device":
        return rates_of_device(setting)
    if kind == "timing":
        return timing_of(setting, precision_of(rest[0]), int(rest[1]))
    work = {"export": export_of, "build": build_of, "parity": parity_of}
    return work[kind](setting, rest[0])


# --- artifacts, made unless they exist


def checkpoint(setting: Setting) -> Path:
    """Returns a checkpoint with lively random weights."""
    directory = setting.path("checkpoint")
    if not (directory / "config.json").is_file():
        config, task = setting.config, setting.task
        write_checkpoint(lively_weights(config, task, 0), config, task, directory, dialect="hf", overwrite=True)
    return directory


def graph(setting: Setting, form: str) -> Artifact:
    """Returns the ONNX artifact of a form, exported with its gate."""
    setting.need(f"export/{form}")
    directory = setting.path(f"{MADE['export']}-{form}")
    if (directory / "manifest.json").is_file():
        return open_artifact(directory)
    return export(
        "onnx", checkpoint(setting), directory, precision=precision_of(form), task=setting.task,
        attention=attention_of(form), overwrite=True,
    )  # fmt: skip


def engine(setting: Setting, form: str) -> Artifact:
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


def export_of(setting: Setting, form: str) -> dict[str, Any]:
    """Exports to ONNX, with the gate on the CPU."""
    began = time.perf_counter()
    parity = graph(setting, form).manifest.parity
    assert parity is not None
    return {"seconds": time.perf_counter() - began, "passed": parity["passed"]}


def build_of(setting: Setting, form: str) -> dict[str, Any]:
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


def parity_of(setting: Setting, form: str) -> dict[str, Any]:
    """Judges all families of inputs on the GPU, and compares the errors with the emulator's prediction.

    Also measures how much time kept kernels save when the engine is loaded.
    """
    found = engine(setting, form)
    first_calls = seconds_to_first_call(found)
    report = verify(found.path)
    predicted = found.manifest.options["predicted_errors"]
    return {
        "passed": report.passed,
        "summary": report.summary(),
        "not_run": list(report.families_not_run),
        "worst": [worst_cell(report, output) for output in dict.fromkeys(cell.output for cell in report.cells)],
        "beside_prediction": beside_prediction(report.cells, predicted),
        "seconds_to_first_call": first_calls,
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
    cell = next(cell for cell in report.worst_cells() if cell.output == output)
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
    with on_own_stream(setting.device), ExitStack() as opened:
        openers = torch_openers(module, signature, precision, inputs, setting.device)
        for form in setting.forms(precision):
            openers |= engine_openers(setting, form, inputs, opened)
        calls, differences, failed = open_all(openers, setting)
        timed = time_in_turn(calls, rounds=setting.rounds, calls_each=setting.calls, wait=waiting(setting.device))
    return {
        "sizes": sizes,
        "cost": vars(cost),
        "contestants": {name: times.to_dict(batch) for name, times in timed.items()},
        "difference_from_eager": differences,
        "failed": failed,
    }


def engine_openers(
    setting: Setting, form: str, inputs: Mapping[str, Tensor], opened: ExitStack
) -> dict[str, Callable[[], Call]]:
    """Returns the contestants of one engine; they share one context, which ``opened`` closes."""

    @cache
    def open_engine() -> EngineCall:
        runner = opened.enter_context(open_runner(engine(setting, form)))
        assert isinstance(runner, TensorRtRunner)
        return EngineCall(runner, inputs)

    alone, recorded = ENGINES[attention_of(form)]
    return {alone: open_engine, recorded: lambda: GraphCall(open_engine())}


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
                found = outputs_of(call)
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
