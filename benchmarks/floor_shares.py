"""How large a share of an output is its noise floor, in correct checkpoints? A floor of a larger share proves nothing.

Every checkpoint of the study, or some of each network, in PyTorch alone: the floor of each precision ÷ the reference's RMS, by
family of inputs. Beside them the same checkpoints with planted noise of 1e-3 of each output. Writes floor_shares.json and
floor_shares.md. Run: python -m benchmarks.floor_shares --share 0.1
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import machine
from lxmert_export.parity.cells import Floors
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.scores import LARGEST_SHARE, largest_share, measure_floor
from lxmert_export.reference.yardstick import run_floors, run_reference
from lxmert_export.spec.sample_inputs import FAMILY_KINDS, SampleInputs, sample_inputs
from lxmert_export.spec.signature import Precision
from parity_tests.fixtures.architectures import ARCHITECTURES, Architecture, drawn_state

HERE = Path(__file__).parent
FIRST_SEED = 1  # the study's
NOISE = 1e-3
# The precision of weights, and of the arithmetic if it is another.
PRECISIONS: tuple[tuple[Precision, Precision | None], ...] = (
    ("fp32", None), ("fp16", None), ("bf16", None), ("fp16", "fp32"),
)  # fmt: skip
Shares = dict[tuple[str, str], list[float]]  # (precision, family) → the largest share of each checkpoint's outputs


def checkpoints(share: float) -> Iterator[tuple[Architecture, int]]:
    """Yields the study's checkpoints, a share of each network's; at least one."""
    for architecture in ARCHITECTURES:
        for seed in range(FIRST_SEED, FIRST_SEED + max(1, round(architecture.trials * share))):
            yield architecture, seed


def measure(architecture: Architecture, seed: int, found: Shares, noisy: Shares) -> None:
    """Adds one checkpoint's shares, and those of the same checkpoint with noise."""
    module, config = architecture.module(drawn_state(architecture, seed)), architecture.config
    signature = architecture.signature
    drawn = sample_inputs(signature, config, seed=seed)
    samples = SampleInputs(tuple(drawn.families), ())
    reference = run_reference(module, signature, config, samples)
    for precision, arithmetic in PRECISIONS:
        floors = run_floors(module, signature, config, samples, reference, precision, arithmetic=arithmetic)
        name = precision if arithmetic is None else f"{precision} weights"
        _add(found, name, floors)
        if name == "fp32":
            _add(noisy, name, with_noise(reference, floors, seed))


def with_noise(reference: Recording, floors: Floors, seed: int) -> Floors:
    """Returns the floors of a module whose outputs have noise of ``NOISE`` of their RMS in eval mode."""
    generator = np.random.default_rng(seed)
    return {
        key: measure_floor(
            chunks,
            [
                c.astype(np.float64) + generator.standard_normal(c.shape) * NOISE * floors[key].reference_rms
                for c in chunks
            ],
            "fp32",
        )
        for key, chunks in reference.items()
    }


def _add(found: Shares, name: str, floors: Floors) -> None:
    largest: dict[str, float] = defaultdict(float)
    for (family, _), floor in floors.items():
        if floor.reference_rms:
            largest[family] = max(largest[family], floor.rms / floor.reference_rms)
    for family, share in largest.items():
        found.setdefault((name, family), []).append(share)


def main() -> None:
    """Measures, writes both files; exits with an error if a limit refuses a correct checkpoint or passes a noisy one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="share of the study's checkpoints of each network")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: Shares = {}
    noisy: Shares = {}
    chosen = list(checkpoints(arguments.share))
    for number, (architecture, seed) in enumerate(chosen, 1):
        measure(architecture, seed, found, noisy)
        if number % 20 == 0:
            print(f"{number} of {len(chosen)}", flush=True)
    results: dict[str, Any] = {
        "machine": machine(), "share": arguments.share, "checkpoints": len(chosen), "limits": LARGEST_SHARE,
        "rows": [_row(*key, shares) for key, shares in found.items()],
        "least_with_noise": {family: min(shares) for (_, family), shares in noisy.items()},
    }  # fmt: skip
    (HERE / "floor_shares.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (HERE / "floor_shares.md").write_text(report(results), encoding="utf-8")
    refused = [row for row in results["rows"] if row["largest"] > row["limit"]]
    # One family that fails is enough.
    drawn = {
        family: share for family, share in results["least_with_noise"].items() if not FAMILY_KINDS[family].masked_row
    }
    passed = {family: share for family, share in drawn.items() if share <= LARGEST_SHARE["fp32"]}
    if refused or passed:
        sys.exit(f"correct checkpoints refused: {refused}; noisy ones passed: {passed}")


def _row(precision: str, family: str, shares: list[float]) -> dict[str, Any]:
    limit = largest_share(precision.split()[0], masked_rows=FAMILY_KINDS[family].masked_row)
    median, most = (float(np.quantile(shares, q)) for q in (0.5, 0.99))
    return {
        "precision": precision, "family": family, "median": median, "most": most, "largest": max(shares), "limit": limit,
    }  # fmt: skip


def report(results: dict[str, Any]) -> str:
    """Returns the page."""
    lines = [
        "# Noise floors as shares of outputs",
        "",
        f"Measured by `python -m benchmarks.floor_shares --share {results['share']:g}` on {results['machine']}.",
        "",
        f"{results['checkpoints']:,} correct checkpoints of the study. Each number is noise floor ÷ RMS of the output in "
        "float64, the largest of a checkpoint's outputs. A floor of a larger share than the limit proves nothing, "
        "and its cell fails.",
        "",
        "| precision | inputs | median | 99 % | largest | limit |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        numbers = " | ".join(f"{row[name]:.1e}" for name in ("median", "most", "largest", "limit"))
        lines.append(f"| {row['precision']} | {row['family']} | {numbers} |")
    least = min(results["least_with_noise"].values())
    lines += [
        "",
        f"With noise of {NOISE:g} of each output's RMS in eval mode, the least fp32 share is {least:.1e}: every such checkpoint "
        "is refused, even where two runs of it are not compared.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
