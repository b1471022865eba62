"""Judges random correct checkpoints by the laws: how near do sound artifacts come to the threshold?

Each artifact is judged twice: with the floors that the gate measured (they are in its golden file), and with floors
estimated from the artifact alone. Writes benchmarks/laws.json and laws.md. Run: python -m benchmarks.laws
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine
from lxmert_export.api.export import export
from lxmert_export.artifact.directory import Artifact
from lxmert_export.judging.by_laws import judge_laws
from lxmert_export.parity.cells import Cell
from lxmert_export.parity.scores import PAIR_THRESHOLD
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.spec.signature import Precision
from parity_tests.fixtures.architectures import ARCHITECTURES, drawn_state
from parity_tests.fixtures.random_models import lively_model

HERE = Path(__file__).parent
FIRST_SEED = 5000
ONNX: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
TFLITE: tuple[Precision, ...] = ("fp32", "fp16", "int8")
Row = dict[str, Any]
Key = tuple[str, str, str, str]  # artifact, precision, floors, law


def sound_artifacts(place: Path, seed: int) -> Iterator[Artifact]:
    """Yields random checkpoints: of every architecture in every precision of ONNX, and one in those of TFLite."""
    for architecture in ARCHITECTURES:
        module = architecture.module(drawn_state(architecture, seed))
        for precision in ONNX:
            written = export("onnx", module, place / precision, precision=precision, overwrite=True)
            yield replace(written, name=f"{architecture.name}, ONNX")
    module = lively_model("question-answering", seed=seed)
    for precision in TFLITE:
        written = export("tflite", module, place / precision, precision=precision, overwrite=True)
        yield replace(written, name="small answers, TFLite")


def judged(artifact: Artifact) -> dict[Key, list[Cell]]:
    """Returns an artifact's cells by (name, precision, floors, law), with both kinds of floors."""
    alone = replace(artifact, manifest=replace(artifact.manifest, files={}))
    found: dict[Key, list[Cell]] = defaultdict(list)
    for floors, judged_artifact in (("golden file's", artifact), ("estimated", alone)):
        for cell in judge_laws(judged_artifact, (CPU,))[0]:
            law = cell.against.removeprefix("law: ")
            found[artifact.name, artifact.manifest.precision, floors, law].append(cell)
    return found


def summarise(found: dict[Key, list[Cell]]) -> list[Row]:
    """Returns a row for each kind of artifact, floors and law: cells, largest score, alarms, and floor ÷ the gate's."""
    rows = []
    for (name, precision, floors, law), cells in found.items():
        measured = found[name, precision, "golden file's", law]
        ratios = [
            cell.floor / gate.floor for cell, gate in zip(cells, measured, strict=True) if cell.floor and gate.floor
        ]
        rows.append(
            {
                "artifact": name, "precision": precision, "floors": floors, "law": law, "cells": len(cells),
                "largest": max(cell.score for cell in cells if cell.score is not None),
                "alarms": sum(cell.status != "pass" for cell in cells),
                "floor_ratio": [min(ratios), statistics.median(ratios), max(ratios)],
            }
        )  # fmt: skip
    return rows


def main() -> None:
    """Runs all trials and writes both files; exits with an error if a sound artifact breaks a law."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8, help="correct checkpoints per architecture")
    trials = parser.parse_args().trials
    found: dict[Key, list[Cell]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="lxmert-export-laws-") as place:
        for seed in range(FIRST_SEED, FIRST_SEED + trials):
            for artifact in sound_artifacts(Path(place), seed):
                add(found, artifact)
            print(f"{seed - FIRST_SEED + 1} of {trials}", flush=True)
    results = {"machine": machine(), "trials": trials, "scores": summarise(found)}
    (HERE / "laws.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (HERE / "laws.md").write_text(report(results), encoding="utf-8")
    if any(row["alarms"] for row in results["scores"]):
        sys.exit("sound artifacts broke a law")


def add(found: dict[Key, list[Cell]], artifact: Artifact) -> None:
    """Judges an artifact and adds its cells to the others."""
    for key, cells in judged(artifact).items():
        found[key] += cells


def report(results: dict[str, Any]) -> str:
    """Returns the page: for each kind of artifact and floors, the law that came nearest to the threshold."""
    rows = results["scores"]
    lines = [
        "# Study: sound artifacts under the laws",
        "",
        f"Measured by `python -m benchmarks.laws --trials {results['trials']}` on {results['machine']}.",
        "",
        f"Random correct checkpoints of each kind: {results['trials']}. Cells: {sum(row['cells'] for row in rows):,}. Alarms at "
        f"the threshold of {PAIR_THRESHOLD:g}: {sum(row['alarms'] for row in rows)}.",
        "Each row shows the law that came nearest to the threshold.",
        "*Ratio of floors* is estimated floor ÷ the gate's floor: least, median, largest.",
        "",
        "| artifact | precision | floors | largest score | law | ratio of floors |",
        "|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((row["artifact"], row["precision"], row["floors"]) for row in rows):
        some = [row for row in rows if (row["artifact"], row["precision"], row["floors"]) == key]
        top = max(some, key=lambda row: row["largest"])
        ratios = [row["floor_ratio"] for row in some]
        ratio = f"{min(r[0] for r in ratios):.2f}, {statistics.median(r[1] for r in ratios):.2f}, {max(r[2] for r in ratios):.1f}"
        lines.append(
            f"| {' | '.join(key)} | {top['largest']:.2f} | {top['law']} | {ratio if key[2] == 'estimated' else '1'} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
