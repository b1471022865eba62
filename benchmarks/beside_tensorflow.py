"""Compares our SavedModel with transformers' TFLxmert, and measures our TFLite files: full size, in one run.

Writes benchmarks/beside_tensorflow.json and .md. Run: make benchmark
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import Run, in_turn, machine, run_process, spread
from benchmarks.tensorflow_worker import OBJECTS, TEXT, inputs_of
from lxmert_export.api.export import export as export_artifact
from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.spec.weight_names import TIED_DECODER

HERE = Path(__file__).parent
WORKER = str(HERE / "tensorflow_worker.py")
TASKS = ("pretraining", "question-answering")
BATCHES = (1, 8)
# Name of a file, and the options that make it.
TFLITE = {
    "fp32": [], "fp16": ["--fp16"], "int8, dynamic range": ["--int8"], "int8, full integer": ["--int8", "--full-integer"],
}  # fmt: skip


def main() -> None:
    """Measures everything and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--oracle", default=os.environ.get("LXMERT_TF_ORACLE_PYTHON", ".venv-tf/bin/python"))
    parser.add_argument("--runs", type=int, default=3, help="conversions of each kind")
    parser.add_argument("--calls", type=int, default=30, help="timed calls per batch size")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lxmert-export-benchmark-") as place:
        results = measure(Path(place), arguments.oracle, arguments.runs, arguments.calls)
    (HERE / "beside_tensorflow.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    page = report(results)
    (HERE / "beside_tensorflow.md").write_text(page, encoding="utf-8")
    print(page)


def measure(place: Path, oracle: str, runs: int, calls: int) -> dict[str, Any]:
    """Measures conversions, latencies, gates, then TFLite, of one checkpoint, which a separate process makes."""
    checkpoint, peer = place / "checkpoint", place / "peer"
    run_process(["-m", "benchmarks.full_size_checkpoint", str(checkpoint), "--task", "pretraining"])
    run_process(["-m", "lxmert_export.cli", "convert", str(checkpoint), "--to", "tf", "-o", str(peer)])
    weights = _unique_bytes(checkpoint)
    export = ["-m", "lxmert_export.cli", "tensorflow", str(checkpoint), "--overwrite"]
    commands = {task: [*export, "--no-parity", "--task", task, "-o", str(place / task)] for task in TASKS}
    conversions = in_turn(commands, runs)
    saved = {task: place / task / "saved_model" for task in TASKS}
    results: dict[str, Any] = {
        "machine": machine(("tensorflow", "tensorflow-cpu", "ai-edge-litert", "torch")),
        "peer": f"TFLxmertForPreTraining in tf.function ({_versions(oracle)})",
        "weight_bytes": weights,
        "conversions": {task: [vars(run) for run in found] for task, found in conversions.items()},
        "saved_model_bytes": {task: _directory_bytes(path) for task, path in saved.items()},
        "graph_bytes": {task: (path / "saved_model.pb").stat().st_size for task, path in saved.items()},
        "latency_ms": {
            task: latencies(
                {"ours": [sys.executable, "-P", WORKER, "saved-model", str(path)],
                 "theirs": [oracle, "-P", WORKER, "transformers", str(peer)]},
                BATCHES, calls, place,
            )
            for task, path in saved.items()
        },
    }  # fmt: skip
    results["with_gate"] = {
        precision: vars(run_process([*export, *flags, "--task", "pretraining", "-o", str(place / "gated")]))
        for precision, flags in {"fp32": [], "fp16": ["--fp16"]}.items()
    }
    results["tflite"] = measure_tflite(place, checkpoint, calls)
    return results


def measure_tflite(place: Path, checkpoint: Path, calls: int) -> dict[str, Any]:
    """Measures every precision: conversion, size, latency at batch 1 in turn, and accuracy on the demo's questions."""
    real = place / "real.npz"
    np.savez(real, **inputs_of(64))
    found: dict[str, Any] = {}
    for name, flags in TFLITE.items():
        calibrated = ["--calibration", str(real)] if "--full-integer" in flags else []
        directory = place / name.replace(", ", "-").replace(" ", "-")
        made = run_process(
            ["-m", "lxmert_export.cli", "tflite", str(checkpoint), *flags, *calibrated, "--no-parity", "--batch", "1",
             "--task", "question-answering", "-o", str(directory)]
        )  # fmt: skip
        print(f"tflite {name}: {made}", flush=True)
        file = directory / "model.tflite"
        options = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))["options"]
        found[name] = {
            "conversion": vars(made), "file": str(file), "bytes": file.stat().st_size,
            "xnnpack_share": options["xnnpack_share"], "demo": _demo_accuracy(place, name, flags),
        }  # fmt: skip
    commands = {name: [sys.executable, "-P", WORKER, "tflite", facts.pop("file")] for name, facts in found.items()}
    for name, times in latencies(commands, (1,), calls, place)["1"].items():
        found[name]["latency_ms"] = times
    return found


def _demo_accuracy(place: Path, name: str, flags: Sequence[str]) -> dict[str, Any]:
    artifact = export_artifact(
        "tflite", "demo", place / "demo", task="question-answering", full_integer="--full-integer" in flags,
        precision="int8" if "--int8" in flags else "fp16" if "--fp16" in flags else "fp32", overwrite=True,
    )  # fmt: skip
    assert artifact.report is not None
    total = artifact.report.decisions[0].total
    return {"bytes": artifact.manifest.files["model.tflite"]["bytes"], **total.to_dict()}


def latencies(
    commands: Mapping[str, Sequence[str]], batches: Sequence[int], calls: int, place: Path
) -> dict[str, dict[str, list[float]]]:
    """Returns milliseconds per call of each worker, in turn.

    Two calls before are warm-up; the outputs of the first must agree.
    """
    workers = {
        name: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name, command in commands.items()
    }
    for worker in workers.values():
        _answer(worker)  # ready
    times: dict[str, dict[str, list[float]]] = {}
    for batch in batches:
        for name, worker in workers.items():
            _ask(worker, f"{batch} {place / name.replace(' ', '-')}.npz")
            _ask(worker, str(batch))
        _check_agreement([place / f"{name.replace(' ', '-')}.npz" for name in workers])
        times[str(batch)] = {name: [] for name in workers}
        for _ in range(calls):
            for name, worker in workers.items():
                times[str(batch)][name].append(_ask(worker, str(batch)))
    for worker in workers.values():
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()
    return times


def _ask(worker: subprocess.Popen[str], line: str) -> float:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()
    return float(_answer(worker))


def _answer(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        sys.exit("a worker ended; its message is above")
    return line.strip()


def _check_agreement(files: Sequence[Path]) -> None:
    """Checks that float files give the same outputs; int8 values are not compared, as their gate judges them."""
    first, *others = [np.load(file) for file in files]
    for file, other in zip(files[1:], others, strict=True):
        shared = set(first) & set(other)
        assert shared, f"{file.name} shares no output with {files[0].name}"
        for name in shared if not file.name.startswith("int8") else ():
            np.testing.assert_allclose(other[name], first[name], atol=0.05, err_msg=f"{file.name}: {name}")


def _versions(python: str) -> str:
    code = "from importlib.metadata import version as v; print(*(f'{n} {v(n)}' for n in ('transformers', 'tensorflow-cpu')))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _unique_bytes(checkpoint: Path) -> dict[str, int]:
    """Returns the bytes of each task's weights; a tied weight counts once."""
    found = {}
    for task in TASKS:
        tensors = read_checkpoint(checkpoint, task=task).tensors  # type: ignore[arg-type]  # one of the tasks
        found[task] = sum(t.numel() * t.element_size() for name, t in tensors.items() if name != TIED_DECODER)
    return found


def _directory_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def report(results: dict[str, Any]) -> str:
    """Returns the page: medians, spreads and ratios."""
    lines = [
        "# SavedModel beside transformers' TFLxmert, and TFLite",
        "",
        f"Measured by `make benchmark` on {results['machine']}.",
        "",
        "Full size: 9/5/5 layers, 768 wide, 9500 answers, 228 M lively random weights. Figures are medians (least to largest),",
        "measured in turn in one run; ratios are those of medians.",
        f"*Theirs* is {results['peer']}.",
        "",
        f"| SavedModel latency, {TEXT} tokens, {OBJECTS} objects | ours, ms | theirs, ms | theirs ÷ ours |",
        "|---|---|---|---|",
        *(
            f"| {task}, batch {batch} | {spread(t['ours'])} | {spread(t['theirs'])} | {_ratio(t['theirs'], t['ours']):.2f} |"
            for task, batches in results["latency_ms"].items()
            for batch, t in batches.items()
        ),
        "",
        "transformers has no TensorFlow class for question answering, so its whole pre-training model answers there.",
        "",
        "| conversion with --no-parity | wall s | peak MiB | peak ÷ weights | directory ÷ weights | graph, bytes |",
        "|---|---|---|---|---|---|",
        *(_conversion_row(task, results) for task in TASKS),
        "",
        "| pre-training with its parity gate | wall s | peak MiB |",
        "|---|---|---|",
        *(f"| {p} | {run['seconds']:.1f} | {run['peak_mib']:.0f} |" for p, run in results["with_gate"].items()),
        "",
        "TFLite: question answering, batch fixed to 1, ai-edge-litert with XNNPACK on 2 threads. Accuracy and agreement with",
        "float64 are those that the gate measured on the demo's held-out questions (accuracy of float64: "
        f"{results['tflite']['fp32']['demo']['reference_accuracy']:.1%}).",
        "",
        "| TFLite | latency, ms | file, bytes | run by XNNPACK | conversion s | peak MiB | demo accuracy | agreement |",
        "|---|---|---|---|---|---|---|---|",
        *(_tflite_row(name, facts) for name, facts in results["tflite"].items()),
        "",
    ]
    return "\n".join(lines)


def _conversion_row(task: str, results: dict[str, Any]) -> str:
    runs = [Run(**run) for run in results["conversions"][task]]
    weights, peak = results["weight_bytes"][task], [run.peak_mib for run in runs]
    return (
        f"| {task} | {spread([run.seconds for run in runs])} | {spread(peak, 0)} | "
        f"{statistics.median(peak) * 2**20 / weights:.2f} | {results['saved_model_bytes'][task] / weights:.4f} | "
        f"{results['graph_bytes'][task]:,} |"
    )


def _tflite_row(name: str, facts: dict[str, Any]) -> str:
    made, demo = facts["conversion"], facts["demo"]
    return (
        f"| {name} | {spread(facts['latency_ms'])} | {facts['bytes']:,} | {facts['xnnpack_share']:.1%} | "
        f"{made['seconds']:.0f} | {made['peak_mib']:.0f} | {demo['accuracy']:.1%} | {demo['agreement']:.1%} |"
    )


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(one) / statistics.median(other)


if __name__ == "__main__":
    main()
