"""Compares our conversion with plain torch.onnx.export of transformers' model: time, memory, size. Latency: speed.py.

Writes benchmarks/beside_transformers.json and .md. Run: make benchmark
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import Run, in_turn, machine, run_process, spread

HERE = Path(__file__).parent
OURS, THEIRS = "lxmert-export onnx --no-parity", "torch.onnx.export(dynamo=True) of transformers"


def main() -> None:
    """Measures everything and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="conversions of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lxmert-export-benchmark-") as place:
        results = measure(Path(place), arguments.runs)
    (HERE / "beside_transformers.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    page = report(results)
    (HERE / "beside_transformers.md").write_text(page, encoding="utf-8")
    print(page)


def measure(place: Path, runs: int) -> dict[str, Any]:
    """Measures conversions in turn, then one conversion with its gate in each precision."""
    checkpoint = str(place / "checkpoint")
    # Made in a separate process: a large parent would raise the measured peak of every child.
    run_process(["-m", "benchmarks.full_size_checkpoint", checkpoint, "--task", "question-answering"])
    ours, theirs = place / "ours", place / "theirs"
    export = ["-m", "lxmert_export.cli", "onnx", checkpoint, "--overwrite"]
    conversions = in_turn(
        {
            OURS: [*export, "--no-parity", "-o", str(ours)],
            THEIRS: ["-m", "lxmert_export.benching.plain_model", checkpoint, str(theirs)],
        },
        runs,
    )
    gated = {}
    for precision, flags in {"fp32": [], "fp16": ["--fp16"], "bf16": ["--bf16"]}.items():
        gated[precision] = run_process([*export, *flags, "-o", str(place / precision)])
        print(f"with the gate, {precision}: {gated[precision]}", flush=True)
    sizes = {name: (place / name / "model.onnx.data").stat().st_size for name in ("fp32", "fp16", "bf16")}
    return {
        "machine": machine(),
        "conversions": {name: [vars(run) for run in found] for name, found in conversions.items()},
        "with_gate": {precision: vars(run) for precision, run in gated.items()},
        "data_bytes": {**sizes, "theirs": sum(f.stat().st_size for f in theirs.iterdir() if f.suffix == ".data")},
        "graph_bytes": {"ours": (ours / "model.onnx").stat().st_size, "theirs": (theirs / "model.onnx").stat().st_size},
    }


def report(results: dict[str, Any]) -> str:
    """Returns the page: medians, spreads and ratios."""
    runs = {name: [Run(**run) for run in found] for name, found in results["conversions"].items()}
    seconds = {name: [run.seconds for run in found] for name, found in runs.items()}
    peaks = {name: [run.peak_mib for run in found] for name, found in runs.items()}
    lines = [
        "# Beside torch.onnx.export of transformers' model",
        "",
        f"Measured by `make benchmark` on {results['machine']}.",
        "",
        "Full size: 9/5/5 layers, 768 wide, 3129 answers, 214 M lively random weights. Figures are medians (least to largest),",
        "measured in turn in one run; ratios are ours ÷ theirs, of medians.",
        "",
        "| conversion to fp32 ONNX | wall s | peak MiB |",
        "|---|---|---|",
        *(f"| {name} | {spread(seconds[name])} | {spread(peaks[name], 0)} |" for name in runs),
        f"| ratio | {_ratio(seconds[OURS], seconds[THEIRS]):.2f} | {_ratio(peaks[OURS], peaks[THEIRS]):.2f} |",
        "",
        "| with its parity gate | wall s | peak MiB | data file, bytes |",
        "|---|---|---|---|",
        *(
            f"| {p} | {run['seconds']:.1f} | {run['peak_mib']:.0f} | {results['data_bytes'][p]:,} |"
            for p, run in results["with_gate"].items()
        ),
        "",
        f"fp16 data ÷ fp32 data: {results['data_bytes']['fp16'] / results['data_bytes']['fp32']:.4f}. "
        f"Graph file: ours {results['graph_bytes']['ours']:,} bytes, theirs {results['graph_bytes']['theirs']:,} bytes.",
        "",
    ]
    return "\n".join(lines)


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(one) / statistics.median(other)


if __name__ == "__main__":
    main()
