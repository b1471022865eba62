"""Every task and precision through its gate at full size, with wall time and peak memory; and the published numbers, where
the published checkpoint can be reached. Writes benchmarks/full_size_parity.json and .md. Run: make parity
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import machine, run_process
from lxmert_export.api import load_checkpoint
from lxmert_export.errors import CheckpointError
from lxmert_export.signature import TASKS

HERE = Path(__file__).parent
PRECISIONS: dict[str, list[str]] = {"fp32": [], "fp16": ["--fp16"], "bf16": ["--bf16"]}
# From the tests of the transformers library: unc-nlp/lxmert-base-uncased, no masks, numpy seed 0 before each draw.
PUBLISHED_NAME = "unc-nlp/lxmert-base-uncased"
PUBLISHED_IDS = [[101, 345, 232, 328, 740, 140, 1695, 69, 6078, 1588, 102]]
PUBLISHED_SLICE = [
    [0.24170142, -0.98075, 0.14797261],
    [1.2540525, -0.83198136, 0.5112344],
    [1.4070463, -1.1051831, 0.6990401],
]
PUBLISHED_TOLERANCE = 1e-4


def main() -> None:
    """Runs everything, prints as it goes, and writes both files."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="lxmert-export-full-size-") as place:
        for task in TASKS:
            checkpoint = Path(place) / task
            run_process(["-m", "benchmarks.full_size_checkpoint", str(checkpoint), "--task", task])
            for precision, flags in PRECISIONS.items():
                rows.append(row := gated_export(checkpoint, Path(place) / "artifact", task, precision, flags))
                print(row, flush=True)
    results: dict[str, Any] = {"machine": machine(), "runs": rows, "published": published()}
    (HERE / "full_size_parity.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    page = report(results)
    (HERE / "full_size_parity.md").write_text(page, encoding="utf-8")
    print(page)
    if not results["published"]["agrees"]:
        sys.exit("the published numbers are not reproduced")


def gated_export(checkpoint: Path, artifact: Path, task: str, precision: str, flags: list[str]) -> dict[str, Any]:
    """One export with its gate, in a process of its own; it fails this script where it fails."""
    command = ["-m", "lxmert_export.cli", "onnx", str(checkpoint), "-o", str(artifact), "--overwrite", *flags]
    run = run_process(command)
    manifest = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))
    scores = [figures["score"] for ways in manifest["parity"]["outputs"].values() for figures in ways.values()]
    return {
        "task": task,
        "precision": precision,
        "passed": manifest["parity"]["passed"],
        "worst_score": max(scores),
        "seconds": run.seconds,
        "peak_mib": run.peak_mib,
        "bytes": sum(facts["bytes"] for facts in manifest["files"].values()),
    }


def published() -> dict[str, Any]:
    """The published 3 x 3 slice of the base checkpoint's language output; where it cannot be reached, ``detail`` says so."""
    try:
        model = load_checkpoint(PUBLISHED_NAME, task="model", dtype=torch.float32)
    except CheckpointError as error:
        return {"agrees": True, "reached": False, "detail": f"not checked: {error}"}
    np.random.seed(0)
    features = torch.from_numpy(np.random.rand(1, 10, 2048).astype(np.float32))
    np.random.seed(0)
    boxes = torch.from_numpy(np.random.rand(1, 10, 4).astype(np.float32))
    with torch.inference_mode():
        found = model(torch.tensor(PUBLISHED_IDS), features, boxes).language_output[0, :3, :3].numpy()
    difference = float(np.abs(found - np.array(PUBLISHED_SLICE)).max())
    return {
        "agrees": difference <= PUBLISHED_TOLERANCE,
        "reached": True,
        "detail": f"largest difference {difference:.1e}",
    }


def report(results: dict[str, Any]) -> str:
    """The page."""
    runs = results["runs"]
    lines = [
        "# Full size: every task and precision through its gate",
        "",
        f"`make parity`, on {results['machine']}. 9/5/5 layers, 768 wide, lively random weights; wall seconds and peak resident",
        "MiB of the whole process, one run each.",
        "",
        "| task | precision | verdict | worst score | wall s | peak MiB | artifact, bytes |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {r['task']} | {r['precision']} | {'passed' if r['passed'] else 'FAILED'} | {r['worst_score']:.2f} | "
            f"{r['seconds']:.0f} | {r['peak_mib']:.0f} | {r['bytes']:,} |"
            for r in runs
        ),
        "",
        f"In all {sum(r['seconds'] for r in runs) / 60:.1f} minutes; largest peak {max(r['peak_mib'] for r in runs):.0f} MiB.",
        "",
        f"Published numbers of {PUBLISHED_NAME}: {results['published']['detail']}",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
