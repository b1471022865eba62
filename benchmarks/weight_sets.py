"""What does a second, equal set of weights beside the first cost an export? Full size, A and B in turn.

One directory holds model.safetensors, the other the same file and pytorch_model.bin beside it. Each tensor of both is compared.
Writes weight_sets.md. Run: python -m benchmarks.weight_sets --runs 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.full_size_checkpoint import write_full_size
from benchmarks.measuring import Run, in_turn, machine, spread

PAGE = Path(__file__).with_suffix(".md")
ONE, TWO = "one set", "two equal sets"


def main() -> None:
    """Measures, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="lxmert-export-weight-sets-") as place:
        commands = {name: _export(directory, Path(place)) for name, directory in _directories(Path(place)).items()}
        found = in_turn(commands, runs)
    PAGE.write_text(_page(found, runs), encoding="utf-8")


def _directories(place: Path) -> dict[str, Path]:
    """Writes the checkpoint twice, the second time with the same weights beside it."""
    one, two = (write_full_size(place / name, "question-answering") for name in ("one", "two"))
    torch.save(load_file(two / "model.safetensors"), two / "pytorch_model.bin")
    return {ONE: one, TWO: two}


def _export(directory: Path, place: Path) -> list[str]:
    return ["-m", "lxmert_export.cli", "onnx", str(directory), "-o", str(place / "exported"), "--overwrite"]


def _page(found: dict[str, list[Run]], runs: int) -> str:
    cpu = {name: [run.cpu_seconds for run in measured] for name, measured in found.items()}
    ratios = [two / one for one, two in zip(cpu[ONE], cpu[TWO], strict=True)]
    rows = (
        f"| {name} | {spread(cpu[name])} | {statistics.median(run.together_mib for run in measured):.0f} |"
        for name, measured in found.items()
    )
    lines = "\n".join(rows)
    return f"""# What a second set of weights costs

Measured by `python -m benchmarks.weight_sets --runs {runs}` on {machine()}: `lxmert-export onnx` of a full-size checkpoint
(question answering) with its gate, {runs} runs of each in turn; median (least to largest).

| the directory holds | CPU seconds | peak MiB |
|---|---|---|
{lines}

CPU time with two sets ÷ with one, run by run: {spread(ratios, 3)}.
"""


if __name__ == "__main__":
    main()
