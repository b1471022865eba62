"""Summarises the trials for every threshold: scores, alarms and their bounds, faults and whether they are caught."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from benchmarks.measuring import machine
from benchmarks.study.judging import SUBJECTS
from lxmert_export.parity.scores import PAIR_THRESHOLD, THRESHOLD
from parity_tests.fixtures.architectures import ARCHITECTURES

DETECTABLE = 20.0  # the gate must catch a fault whose float64 effect is this many floors
KEPT = THRESHOLD / 2  # a trial is correct if int8 alone, in simulation, costs no more floors
CONFIDENCE = 0.95
THRESHOLDS = [float(round(2 ** (step / 4), 3)) for step in range(25)]  # 1 to 64
EFFECTS = ((1.0, 5.0), (5.0, DETECTABLE), (DETECTABLE, float("inf")))  # ranges of a fault's size, in floors
QUANTILES = (0.5, 0.9, 0.99, 0.999)
Row = dict[str, Any]
# A trial's worst score, and the reason of a cell that failed for another reason than its score.
Outcome = tuple[float, str | None]


def read_rows(directory: Path) -> list[Row]:
    """Reads all lines of all architectures."""
    files = sorted(directory.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def summarise(rows: Sequence[Row]) -> Row:
    """Returns the whole result, as JSON holds it."""
    trials = [row for row in rows if row["kind"] == "trial"]
    faults = [row for row in rows if row["kind"] == "fault"]
    results: Row = rounded(
        {
            "machine": machine(),
            "threshold": THRESHOLD,
            "pair_threshold": PAIR_THRESHOLD,
            "detectable_floors": DETECTABLE,
            "confidence": CONFIDENCE,
            "architectures": [_architecture(architecture, trials, rows) for architecture in ARCHITECTURES],
            "subjects": {subject.name: _subject(subject.name, trials, faults) for subject in SUBJECTS},
            "int8": _int8([row for row in rows if row["kind"] == "int8"]),
            "pairs": _pairs(trials),
            "faults": _faults(faults),
        }
    )
    return results


def rounded(value: Any) -> Any:
    """Rounds every number inside to four digits; more digits would only make the file larger."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def fails(outcome: Outcome, threshold: float) -> bool:
    """Whether a trial fails at a threshold; NaN and int8's choices fail at every threshold."""
    score, reason = outcome
    return reason is not None or not score <= threshold


def upper_bound(failed: int, trials: int) -> float:
    """Returns the upper bound of a rate with 95 % confidence (Clopper and Pearson); 3 ÷ trials if none failed."""
    return float(beta.ppf(CONFIDENCE, failed + 1, trials - failed)) if failed < trials else 1.0


def _architecture(architecture: Any, trials: Iterable[Row], rows: Iterable[Row]) -> Row:
    config = architecture.config
    swap: Row = next(
        (r["differences"] for r in rows if r["kind"] == "swap" and r["architecture"] == architecture.name), {}
    )
    return {
        "name": architecture.name,
        "task": architecture.task,
        "hidden_size": config.hidden_size,
        "layers": [config.l_layers, config.r_layers, config.x_layers],
        "trials": sum(row["architecture"] == architecture.name for row in trials),
        "swap_differences_in_floors": swap,
    }


def _subject(name: str, trials: Sequence[Row], faults: Sequence[Row]) -> Row:
    outcomes: list[Outcome] = [tuple(row["scores"][name]) for row in trials]
    scores = np.array([score for score, _ in outcomes])
    planted = [(row["found"][name][0], tuple(row["found"][name][1:])) for row in faults]
    detectable = [outcome for effect, outcome in planted if effect >= DETECTABLE]
    alarms = sum(fails(outcome, THRESHOLD) for outcome in outcomes)
    counts, edges = np.histogram(scores, bins=np.geomspace(0.125, 64, 37))
    return {
        "trials": len(outcomes),
        "alarms": alarms,
        "alarms_by_choices": sum(reason is not None for _, reason in outcomes),
        "false_alarm_bound": upper_bound(alarms, len(outcomes)),
        "largest_score": float(scores.max()),
        "quantiles": {str(q): float(np.quantile(scores, q)) for q in QUANTILES},
        "histogram": {"edges": [round(float(edge), 4) for edge in edges], "counts": counts.tolist()},
        "planted": len(planted),
        "detectable": len(detectable),
        "detectable_caught": sum(fails(outcome, THRESHOLD) for outcome in detectable),
        "curve": [_point(threshold, outcomes, planted) for threshold in THRESHOLDS],
    }


def _point(threshold: float, outcomes: Sequence[Outcome], planted: Sequence[tuple[float, Any]]) -> Row:
    alarms = sum(fails(outcome, threshold) for outcome in outcomes)
    caught = []
    for least, most in EFFECTS:
        sized = [fails(outcome, threshold) for effect, outcome in planted if least <= effect < most]
        caught.append(sum(sized) / len(sized) if sized else None)
    return {
        "threshold": threshold,
        "false_alarms": alarms / len(outcomes),
        "false_alarm_bound": upper_bound(alarms, len(outcomes)),
        "caught_by_effect": caught,
    }


def _int8(trials: Sequence[Row]) -> Row:
    """Compares files with simulations, for networks that int8 keeps, that are near the limit, and that int8 breaks."""
    groups: dict[str, list[Row]] = {"kept": [], "near_the_limit": [], "lost": []}
    for row in trials:
        kept, lost = not fails(tuple(row["simulated"]), KEPT), fails(tuple(row["simulated"]), THRESHOLD)
        groups["kept" if kept else "lost" if lost else "near_the_limit"].append(row)
    ratios = [row["file"][0] / row["simulated"][0] for row in trials]
    return {
        "kept_below": KEPT,
        "ratio_quantiles": {str(q): float(np.quantile(ratios, q)) for q in (0, 0.01, 0.5, 0.99, 1)} if ratios else {},
        **{name: _alarms(rows) for name, rows in groups.items()},
    }


def _alarms(trials: Sequence[Row]) -> Row:
    alarms = sum(fails(tuple(row["file"]), THRESHOLD) for row in trials)
    return {
        "trials": len(trials),
        "alarms": alarms,
        "alarms_by_choices": sum(row["file"][1] is not None for row in trials),
        "false_alarm_bound": upper_bound(alarms, len(trials)),
        "largest_score": max((row["file"][0] for row in trials), default=None),
    }


def _pairs(trials: Sequence[Row]) -> Row:
    return {
        pair: {
            "trials": len(trials),
            "alarms": sum(not row["pairs"][pair] <= PAIR_THRESHOLD for row in trials),
            "largest_score": max(row["pairs"][pair] for row in trials),
        }
        for pair in trials[0]["pairs"]
    }


def _faults(faults: Sequence[Row]) -> list[Row]:
    """Returns for every kind and subject how often it was planted, detectable and caught, and its effects."""
    found = []
    for name in dict.fromkeys(row["fault"] for row in faults):
        of_kind = [row for row in faults if row["fault"] == name]
        for subject in SUBJECTS:
            planted = [row["found"][subject.name] for row in of_kind]
            caught = [fails((score, reason), THRESHOLD) for _, score, reason in planted]
            effects = [effect for effect, _, _ in planted]
            small = [c for c, effect in zip(caught, effects, strict=True) if effect < DETECTABLE]
            found.append(
                {
                    "fault": name,
                    "place": of_kind[0]["place"],
                    "subject": subject.name,
                    "planted": len(planted),
                    "caught": sum(caught),
                    "detectable": len(planted) - len(small),
                    "detectable_caught": sum(caught) - sum(small),
                    "least_effect": _finite(min(effects)),
                    "median_effect": _finite(float(np.median(effects))),
                    "largest_effect": _finite(max(effects)),
                    "largest_effect_missed": _finite(
                        max((e for c, e in zip(caught, effects, strict=True) if not c), default=None)
                    ),
                }
            )
    return found


def _finite(value: float | None) -> float | None:
    """Turns infinity into None, because JSON has no infinity."""
    return value if value is not None and np.isfinite(value) else None
