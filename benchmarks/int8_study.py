"""Does static int8 ONNX keep what int8 can keep, and does smoothing save the rest? Random networks beside a simulation.

Writes benchmarks/int8_study.json and int8_study.md. A run that was stopped continues: build/int8_study/ holds a line for each
finished trial; remove it after a change of what is judged. Run: python -m benchmarks.int8_study [--trials N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine
from benchmarks.study.judging import use_one_core
from benchmarks.study.results import KEPT, fails, rounded, upper_bound
from benchmarks.study.static_int8 import static_trial
from benchmarks.study.trials import Log
from lxmert_export.errors import InputWarning
from lxmert_export.parity.scores import THRESHOLD
from parity_tests.fixtures.architectures import ARCHITECTURES

HERE = Path(__file__).parent
TRIALS = Path("build/int8_study")
FIRST_SEED = 2_000_001
EACH = 25  # networks of each architecture
WHICH = ("simulated", "plain", "smoothed")
Row = dict[str, Any]


def main() -> None:
    """Runs the missing trials and writes both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=EACH, help="networks of each architecture")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page of int8_study.json again")
    chosen = parser.parse_args()
    results_file = HERE / "int8_study.json"
    if chosen.page:
        results = json.loads(results_file.read_text(encoding="utf-8"))
    else:
        rows = [summarised(*one) for one in run(chosen.trials)]
        results = rounded({"machine": machine(), "trials": chosen.trials, "architectures": rows})
        results_file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (HERE / "int8_study.md").write_text("\n".join(page(results)) + "\n", encoding="utf-8")


def run(trials: int) -> Iterator[tuple[str, list[Row]]]:
    """Yields each architecture's name with its rows; trials that have a line are not run again."""
    use_one_core()
    warnings.simplefilter("ignore", InputWarning)  # random boxes lie outside of the picture
    log = Log(TRIALS, "static int8")
    seeds = range(FIRST_SEED, FIRST_SEED + trials)
    for architecture in ARCHITECTURES:
        for seed in seeds:
            if not log.has("static", architecture=architecture.name, seed=seed):
                log.add("static", architecture=architecture.name, seed=seed, **static_trial(architecture, seed))
        print(architecture.name, flush=True)
        yield architecture.name, [r for r in log.rows if r["architecture"] == architecture.name and r["seed"] in seeds]


def summarised(name: str, rows: Sequence[Row]) -> Row:
    """Counts an architecture's networks by what the simulation and both files say."""
    kept = [row for row in rows if not fails(row["simulated"], KEPT)]
    plain, smoothed = ([fails(row[which], THRESHOLD) for row in rows] for which in ("plain", "smoothed"))
    return {
        "name": name,
        "networks": len(rows),
        "kept": len(kept),
        "alarms": sum(fails(row["smoothed"], THRESHOLD) for row in kept),
        "alarms_unsmoothed": sum(fails(row["plain"], THRESHOLD) for row in kept),
        "lost": sum(fails(row["simulated"], THRESHOLD) for row in rows),
        "failed_unsmoothed": sum(plain),
        "saved_by_smoothing": sum(one and not other for one, other in zip(plain, smoothed, strict=True)),
        "broken_by_smoothing": sum(other and not one for one, other in zip(plain, smoothed, strict=True)),
        "smoothed_layer_norms": float(statistics.mean(row["layer_norms"] for row in rows)),
        "scores": {which: statistics.median(row[which][0] for row in rows) for which in WHICH},
    }


def page(results: Row) -> Iterator[str]:
    """Yields the lines of the page."""
    rows = results["architectures"]
    total = {key: sum(row[key] for row in rows) for key in rows[0] if isinstance(rows[0][key], int)}
    share = total["saved_by_smoothing"] / max(total["failed_unsmoothed"], 1)
    yield from (
        "# Static int8 ONNX on random networks",
        "",
        f"Measured by `python -m benchmarks.int8_study --trials {results['trials']}` on {results['machine']}.",
        "",
        f"{total['networks']} random networks, each calibrated on inputs of its own and judged on others by the gate's rule:",
        f"a score above {THRESHOLD:g}, or choices that differ, is an alarm. The simulation is the canonical model in float64",
        "with its linear layers in static int8 (one step for what a layer reads, one for each row of its weight), without a",
        "converter.",
        "",
        "| networks | |",
        "|---|---|",
        f"| that int8 keeps: the simulation's score is {KEPT:g} or less | {total['kept']} |",
        f"| of these, alarms | {_alarms(total['alarms'], total['kept'])} |",
        f"| of these, alarms without smoothing | {_alarms(total['alarms_unsmoothed'], total['kept'])} |",
        f"| that int8 breaks: the simulation fails | {total['lost']} |",
        f"| whose file fails without smoothing | {total['failed_unsmoothed']} |",
        f"| of these, saved by smoothing | {total['saved_by_smoothing']} ({share:.0%}) |",
        f"| whose file fails only with smoothing | {total['broken_by_smoothing']} |",
        "",
        "| architecture | networks | kept | alarms | broken in simulation | fail unsmoothed | saved | median score: simulation, "
        "unsmoothed, smoothed | LayerNorms smoothed |",
        "|---|---|---|---|---|---|---|---|---|",
    )
    for row in rows:
        scores = ", ".join(f"{row['scores'][which]:.2g}" for which in WHICH)
        yield (
            f"| {row['name']} | {row['networks']} | {row['kept']} | {row['alarms']} | {row['lost']} | "
            f"{row['failed_unsmoothed']} | {row['saved_by_smoothing']} | {scores} | {row['smoothed_layer_norms']:.1f} |"
        )
    yield from (
        "",
        "The simulation shares no code with the converter. Where it fails, int8 itself is too coarse for the network.",
        "Smoothing is for networks in which a few channels are far larger than the others, as in trained encoders",
        "(`parity_tests/onnx/test_smoothing.py` makes such).",
    )


def _alarms(alarms: int, kept: int) -> str:
    return f"{alarms}; the rate is below {upper_bound(alarms, kept):.1%} with 95 % confidence" if kept else "none"


if __name__ == "__main__":
    main()
