"""Builds full-size TensorRT-RTX engines in every precision; needs no GPU, and runs no engine.

Writes benchmarks/engines.json and .md.
Run: python -m benchmarks.engines [--runs 3]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.full_size_checkpoint import write_full_size
from benchmarks.measuring import in_turn, machine, spread
from lxmert_export.api.export import export
from lxmert_export.artifact.directory import Artifact, open_artifact
from lxmert_export.spec.signature import Precision

HERE = Path(__file__).parent
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
BUILD = "import sys, lxmert_export as lx; lx.build_engine(sys.argv[1], sys.argv[2], overwrite=True)"
DISTRIBUTIONS = ("tensorrt-rtx", "polygraphy", "onnx", "onnxruntime", "torch")


def main() -> None:
    """Exports, builds and measures; writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="lxmert-export-engines-") as place:
        rows = measure(Path(place), runs)
    facts = {"machine": machine(DISTRIBUTIONS), "runs": runs, "engines": rows}
    (HERE / "engines.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (HERE / "engines.md").write_text(page(facts), encoding="utf-8")
    print(page(facts))


def measure(place: Path, runs: int) -> list[dict[str, Any]]:
    """Returns a row for each precision: time, memory and size of the build, and the emulator's predicted error."""
    checkpoint = write_full_size(place / "checkpoint", "question-answering")
    for precision in PRECISIONS:
        export("onnx", checkpoint, place / f"onnx-{precision}", precision=precision)
        print(f"exported {precision}", flush=True)
    commands: dict[str, list[str]] = {
        p: ["-c", BUILD, str(place / f"onnx-{p}"), str(place / f"engine-{p}")] for p in PRECISIONS
    }
    found = in_turn(commands, runs)
    return [
        row_of(open_artifact(place / f"engine-{precision}"))
        | {"seconds": [run.seconds for run in found[precision]], "peak_mib": [run.peak_mib for run in found[precision]]}
        for precision in PRECISIONS
    ]


def row_of(engine: Artifact) -> dict[str, Any]:
    """Returns sizes, counts and predictions of one engine, from its manifest."""
    options = engine.manifest.options
    build = options["build"]
    return {
        "precision": engine.manifest.precision,
        "engine_bytes": build["engine_bytes"],
        "weight_bytes": build["weight_bytes"],
        "matmuls": build["matmuls"],
        "predicted_errors": options["predicted_errors"],
        "status": options["status"],
    }


def page(facts: dict[str, Any]) -> str:
    """Returns the Markdown page."""
    lines = [
        "# Full-size TensorRT-RTX engines, built but not run",
        "",
        f"Measured by `python -m benchmarks.engines` on {facts['machine']}.",
        "",
        "Question answering, 9/5/5 layers, 768 wide, 3129 answers, lively random weights. Engines are built from an ONNX",
        "artifact, for the portable default targets, with the one default profile.",
        "",
        "- Seconds and peak MiB: those of the whole process, which hashes, counts, lints (fp16), builds and writes; median",
        f"  (least to largest) of {facts['runs']} runs, in turn.",
        "- Rest: the bytes of the engine that are not weights, for each matmul.",
        "- Predicted error: the emulator's RMS error against float64, on its worst inputs. It is not measured: no GPU has run",
        "  these engines. Score: the error ÷ its noise floor.",
        "",
        "| precision | seconds | peak MiB | engine bytes | engine ÷ weights | matmuls | rest, kB per matmul | predicted error "
        "| score |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in facts["engines"]:
        predicted = row["predicted_errors"].get("question_answering_score")
        kernels = (row["engine_bytes"] - row["weight_bytes"]) / sum(row["matmuls"].values()) / 1000
        matmuls = ", ".join(f"{count} {name}" for name, count in row["matmuls"].items())
        lines.append(
            f"| {row['precision']} | {spread(row['seconds'])} | {spread(row['peak_mib'], 0)} | {row['engine_bytes']:,} "
            f"| {row['engine_bytes'] / row['weight_bytes']:.3f}× | {matmuls} | {kernels:.0f} "
            + (f"| {predicted['error_rms']:.2e} | {predicted['score']:.2f} of 8 |" if predicted else "| - | - |")
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
