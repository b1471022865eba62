"""Correct checkpoints that must not alarm, and planted faults that must: the evidence for the parity thresholds.

A few architectures are traced once in two precisions; each trial swaps in another random checkpoint's weights, writes both
files, judges each against float64 and the two against one another. Writes benchmarks/study.json and study.md. Run: make study
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch import nn

from benchmarks.measuring import machine
from converters.to_onnx import lean_graph, write_onnx
from lxmert_export.artifact import Artifact, Manifest
from lxmert_export.config import LxmertConfig
from lxmert_export.gate import run_floors, run_reference
from lxmert_export.judging import Judged, judge_artifact
from lxmert_export.matrix import pair_cells
from lxmert_export.parity.cells import Cell, Floors
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.report import ParityReport
from lxmert_export.parity.scores import PAIR_THRESHOLD, THRESHOLD, errors
from lxmert_export.runners.providers import CPU
from lxmert_export.runners.runner import InputLimits
from lxmert_export.runners.torch_module import module_state
from lxmert_export.sample_inputs import SampleInputs, sample_inputs
from lxmert_export.signature import Precision, Signature, Task, task_signature
from parity_tests.planted_faults import FAULTS
from parity_tests.random_models import SMALL, lively_model

HERE = Path(__file__).parent
DETECTABLE = 20.0  # a fault whose float64 effect is this many floors is one that the gate owes us
WIDE = SMALL.replace(hidden_size=96, num_attention_heads=4, intermediate_size=384, visual_feat_dim=64, visual_pos_dim=6)
DEEP = SMALL.replace(l_layers=9, x_layers=5, r_layers=5, num_attention_heads=2)


@dataclass(frozen=True)
class Architecture:
    """One network, traced in two precisions; faults are planted into some."""

    name: str
    config: LxmertConfig
    task: Task
    precisions: tuple[Precision, Precision]
    faults: bool = False


ARCHITECTURES = (
    Architecture("small pre-training", SMALL, "pretraining", ("fp32", "fp16"), faults=True),
    Architecture("wide answers", WIDE, "question-answering", ("fp32", "fp16"), faults=True),
    Architecture("deep backbone", DEEP, "model", ("fp32", "bf16")),
    Architecture("small NLVR2", SMALL, "nlvr2", ("fp32", "fp16")),
    Architecture("wide pre-training", WIDE, "pretraining", ("fp32", "bf16")),
)


class Bench:
    """One architecture, its graphs and its sample inputs; judges any weights of it."""

    def __init__(self, architecture: Architecture, place: Path) -> None:
        self.architecture, self.place = architecture, place
        config, task = architecture.config, architecture.task
        self.signature: Signature = task_signature(config, task)
        self.samples: SampleInputs = sample_inputs(self.signature, config)
        self.graphs = {
            precision: self.trace(lively_model(task, config), precision) for precision in architecture.precisions
        }

    def trace(self, module: nn.Module, precision: Precision) -> ir.Model:
        """The graph of a module, sound or faulty."""
        limits = InputLimits.of(self.architecture.config)
        return lean_graph(module, self.signature, limits, precision=precision)

    def judge(
        self, module: nn.Module, precision: Precision, graph: ir.Model, reference: Recording, floors: Floors
    ) -> Judged:
        """Writes a module's weights through a graph, and judges the file."""
        directory = self.place / precision
        directory.mkdir(exist_ok=True)
        write_onnx(graph, module_state(module), directory)
        config, task = self.architecture.config, self.architecture.task
        manifest = Manifest("onnx", precision, task, config, self.signature, checkpoint={})
        return judge_artifact(Artifact(directory, manifest, precision), self.samples, reference, floors, (CPU,))

    def reference_of(self, module: nn.Module) -> tuple[Recording, dict[Precision, Floors]]:
        """The float64 outputs of a module, and its floors in both precisions."""
        config = self.architecture.config
        reference = run_reference(module, self.signature, config, self.samples)
        return reference, {
            p: run_floors(module, self.signature, config, self.samples, reference, p)
            for p in self.architecture.precisions
        }


def correct_trials(bench: Bench, trials: int) -> list[Cell]:
    """Judges random correct checkpoints: every cell must pass."""
    cells: list[Cell] = []
    for seed in range(trials):
        module = lively_model(bench.architecture.task, bench.architecture.config, seed=1000 + seed)
        reference, floors = bench.reference_of(module)
        judged = [bench.judge(module, p, graph, reference, floors[p]) for p, graph in bench.graphs.items()]
        cells += [cell for one in judged for cell in one.cells] + pair_cells(judged)
        if sys.stderr.isatty():
            print(f"\r{bench.architecture.name}: {seed + 1} of {trials}", end="", file=sys.stderr)
    return cells


def fault_trials(bench: Bench) -> list[dict[str, Any]]:
    """Plants every fault that the task has room for into the module before it is traced."""
    config, task = bench.architecture.config, bench.architecture.task
    sound = lively_model(task, config)
    reference, floors = bench.reference_of(sound)
    results = []
    for name, plant in FAULTS.items():
        if name == "untied_decoder" and task != "pretraining":
            continue
        faulty = copy.deepcopy(sound)
        plant(faulty)
        computed = run_reference(faulty, bench.signature, config, bench.samples)
        for precision in bench.architecture.precisions:
            judged = bench.judge(faulty, precision, bench.trace(faulty, precision), reference, floors[precision])
            effect = max(errors(c, computed[key]).rms / floors[precision][key].rms for key, c in reference.items())
            results.append(
                {
                    "architecture": bench.architecture.name,
                    "fault": name,
                    "precision": precision,
                    "effect_in_floors": effect,
                    "caught": not ParityReport(tuple(judged.cells)).passed,
                }
            )
    return results


def main() -> None:
    """Runs both kinds of trial and writes both files; fails where the evidence does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=64, help="correct checkpoints per architecture")
    trials = parser.parse_args().trials
    cells: dict[str, list[Cell]] = {}
    faults = []
    with tempfile.TemporaryDirectory(prefix="lxmert-export-study-") as place:
        for architecture in ARCHITECTURES:
            bench = Bench(architecture, Path(place))
            cells[architecture.name] = correct_trials(bench, trials)
            faults += fault_trials(bench) if architecture.faults else []
            print(f"{architecture.name}: done", flush=True)
    results = {
        "machine": machine(),
        "trials": trials * len(ARCHITECTURES),
        "scores": summarise(cells),
        "faults": faults,
    }
    (HERE / "study.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    page = report(results)
    (HERE / "study.md").write_text(page, encoding="utf-8")
    print(page)
    missed = [fault for fault in faults if fault["effect_in_floors"] >= DETECTABLE and not fault["caught"]]
    if missed or any(row["alarms"] for row in results["scores"]):
        sys.exit(f"alarms on correct checkpoints, or missed faults: {missed}")


def summarise(cells: dict[str, list[Cell]]) -> list[dict[str, Any]]:
    """For every architecture, precision and arithmetic: how many cells, the median and the largest score, alarms."""
    rows = []
    for name, found in cells.items():
        kinds = sorted({(cell.runner, cell.against, cell.arithmetic) for cell in found})
        for runner, against, arithmetic in kinds:
            some = [c for c in found if (c.runner, c.against, c.arithmetic) == (runner, against, arithmetic)]
            scores = [cell.score for cell in some if cell.score is not None]
            rows.append(
                {
                    "architecture": name,
                    "runner": f"{runner} against {against}",
                    "arithmetic": arithmetic,
                    "cells": len(some),
                    "median": statistics.median(scores),
                    "largest": max(scores),
                    "alarms": sum(cell.status != "pass" for cell in some),
                }
            )
    return rows


def report(results: dict[str, Any]) -> str:
    """The page."""
    faults = results["faults"]
    detectable = [fault for fault in faults if fault["effect_in_floors"] >= DETECTABLE]
    others = [fault for fault in faults if fault["effect_in_floors"] < DETECTABLE]
    trials = results["trials"]
    alarms = sum(row["alarms"] for row in results["scores"])
    lines = [
        "# Study: what the parity thresholds rest on",
        "",
        f"`make study`, on {results['machine']}.",
        "",
        f"{trials} random correct checkpoints, each exported in two precisions: {alarms} alarms at thresholds {THRESHOLD:g}",
        f"(against float64) and {PAIR_THRESHOLD:g} (pairs). None in {trials} bounds the rate of false alarms below "
        f"{3 / trials:.1%} of checkpoints, with 95 % confidence.",
        "",
        "| architecture | runner | arithmetic | cells | median score | largest score |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r['architecture']} | {r['runner']} | {r['arithmetic']} | {r['cells']} | {r['median']:.2f} | {r['largest']:.2f} |"
            for r in results["scores"]
        ),
        "",
        f"{len(faults)} planted faults (source module, before export): {len(detectable)} have a float64 effect of {DETECTABLE:g} "
        f"floors or more, {sum(f['caught'] for f in detectable)} of these are caught; the least has "
        f"{min(f['effect_in_floors'] for f in detectable):.0f} floors. The others:",
        "",
        "| architecture | fault | precision | float64 effect, floors | caught |",
        "|---|---|---|---|---|",
        *(
            f"| {f['architecture']} | {f['fault']} | {f['precision']} | {f['effect_in_floors']:.2g} | "
            f"{'yes' if f['caught'] else 'no'} |"
            for f in others
        ),
        "",
        "`fp16_overflow` is the same function in float64; it must be caught in fp16 alone.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
