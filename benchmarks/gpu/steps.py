"""One step of the check, in a process of its own: what ends it, a crash of a native library included, ends nothing else.

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
# What the directories begin with that steps make.
MADE = {"export": "onnx", "build": "engine"}
# Half precision differs by a hundredth of an output's size between two orders of the same sums; what differs by more computes
# something else.
LARGEST_DIFFERENCE = 0.05


def main() -> None:
    """Runs one step, and writes what it gives as JSON; what it cannot do is one line, and exit code 1."""
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
    """All steps, in the order in which they rest on one another."""
    names = ["device"]
    for precision in setting.precisions:
        names += [f"{kind}/{form}" for form in setting.forms(precision) for kind in ("export", "build", "parity")]
        names += [f"timing/{precision}/{batch}" for batch in setting.batches]
    return names


def place_of(setting: Setting, name: str) -> Path | None:
    """The directory that a step makes; None where it makes none."""
    kind, _, form = name.partition("/")
    return setting.path(f"{MADE[kind]}-{form}") if kind in MADE else None


def run_step(name: str, setting: Setting) -> dict[str, Any]:
    """What one step gives."""
    kind, *rest = name.split("/")
    if kind == "device":
        return rates_of_device(setting)
    if kind == "timing":
        return timing_of(setting, precision_of(rest[0]), int(rest[1]))
    work = {"export": export_of, "build": build_of, "parity": parity_of}
    return work[kind](setting, rest[0])


# --- artifacts, made where they are not there yet


def checkpoint(setting: Setting) -> Path:
    """A checkpoint with lively random weights."""
    directory = setting.path("checkpoint")
    if not (directory / "config.json").is_file():
        config, task = setting.config, setting.task
        write_checkpoint(lively_weights(config, task, 0), config, task, directory, dialect="hf", overwrite=True)
    return directory


def graph(setting: Setting, form: str) -> Artifact:
    """The ONNX artifact of a form, through its gate."""
    setting.need(f"export/{form}")
    directory = setting.path(f"{MADE['export']}-{form}")
    if (directory / "manifest.json").is_file():
        return open_artifact(directory)
    return export(
        "onnx", checkpoint(setting), directory, precision=precision_of(form), task=setting.task,
        attention=attention_of(form), overwrite=True,
    )  # fmt: skip


def engine(setting: Setting, form: str) -> Artifact:
    """The engine that is built from it, a profile for each batch that is timed."""
    setting.need(f"build/{form}")
    directory = setting.path(f"{MADE['build']}-{form}")
    if (directory / "manifest.json").is_file():
        return open_artifact(directory)
    onnx = graph(setting, form)
    return build_engine(onnx.path, directory, target=setting.target, batch=setting.batch_ranges, overwrite=True)


# --- the steps


def rates_of_device(setting: Setting) -> dict[str, Any]:
    """How fast the device copies, and multiplies in each precision."""
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
    """The export and its gate on the CPU."""
    began = time.perf_counter()
    parity = graph(setting, form).manifest.parity
    assert parity is not None
    return {"seconds": time.perf_counter() - began, "passed": parity["passed"]}


def build_of(setting: Setting, form: str) -> dict[str, Any]:
    """The build, and what was counted in the engine."""
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
    """All families through the engine on the GPU, beside what the emulator foretold; and what kept kernels save at load."""
    found = engine(setting, form)
    first_calls = seconds_to_first_call(found)
    report = verify(found.path)
    foretold = found.manifest.options["predicted_errors"]
    return {
        "passed": report.passed,
        "summary": report.summary(),
        "not_run": list(report.families_not_run),
        "worst": [worst_cell(report, output) for output in dict.fromkeys(cell.output for cell in report.cells)],
        "beside_prediction": beside_prediction(report.cells, foretold),
        "seconds_to_first_call": first_calls,
    }


def seconds_to_first_call(artifact: Artifact) -> dict[str, float]:
    """From opening an engine to its first outputs, without kept kernels and with them; hashing its files is not in it."""
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
    """The inputs on which an output fares worst."""
    cell = next(cell for cell in report.worst_cells() if cell.output == output)
    kept = ("output", "family", "status", "reason", "score", "threshold", "error_rms", "error_max", "floor")
    figures = {name: getattr(cell, name) for name in kept}
    # JSON has no infinity: None, with the status beside it.
    return {n: None if isinstance(value, float) and not math.isfinite(value) else value for n, value in figures.items()}


def timing_of(setting: Setting, precision: Precision, batch: int) -> dict[str, Any]:
    """All contestants in one batch size, in turn; one that fails is named with its reason, and the others are timed."""
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
        "contestants": {name: one.to_dict(batch) for name, one in timed.items()},
        "difference_from_eager": differences,
        "failed": failed,
    }


def engine_openers(
    setting: Setting, form: str, inputs: Mapping[str, Tensor], opened: ExitStack
) -> dict[str, Callable[[], Call]]:
    """The contestants of one engine; they use one context, which ``opened`` closes."""

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
    """Every contestant that opens, is warm, and computes what eager PyTorch does; how far it is from that; why others are out."""
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
