"""Faults planted into one layer of written files, and the layer that --locate names: how often it is the right one.

Layers and faults are drawn by a seed that each run draws itself, so that no code could be fitted to it; it is in the results,
and --seed repeats a run. Writes benchmarks/locate.json and locate.md. Run: python -m benchmarks.locate_study
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.measuring import machine
from lxmert_export.api.export import export
from lxmert_export.artifact.directory import Artifact
from lxmert_export.parity.divergence import Drift, first_jump
from lxmert_export.reference.locating import measure_drifts
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Precision, Task
from parity_tests.faults.layer_faults import LayerFault, Planter, UnplantableError, draw_fault
from parity_tests.fixtures.random_models import SMALL, lively_model

HERE = Path(__file__).parent
TASK: Task = "pretraining"
DETECTABLE = 20.0  # floors that a fault moves some output by: as of `make study`
RIGHT = 0.95  # the share of faults whose layer must be named
SMALL_NETWORK = SMALL.replace(l_layers=3, x_layers=2, r_layers=2)
DEEP_NETWORK = SMALL.replace(l_layers=9, x_layers=5, r_layers=5)


@dataclass(frozen=True)
class Setting:
    """A target and precision, the network, and how many detectable faults to plant."""

    target: str
    precision: Precision
    network: str
    config: LxmertConfig
    trials: int


SETTINGS = (
    Setting("onnx", "fp32", "3/2/2", SMALL_NETWORK, 100),
    Setting("onnx", "fp32", "9/5/5", DEEP_NETWORK, 30),
    Setting("onnx", "fp16", "3/2/2", SMALL_NETWORK, 50),
    Setting("tflite", "fp32", "3/2/2", SMALL_NETWORK, 100),
    Setting("tflite", "fp32", "9/5/5", DEEP_NETWORK, 30),
    Setting("tflite", "fp16", "3/2/2", SMALL_NETWORK, 30),
    Setting("tensorflow", "fp32", "3/2/2", SMALL_NETWORK, 60),
    Setting("tensorflow", "fp32", "9/5/5", DEEP_NETWORK, 15),
)


@dataclass
class Found:
    """What came of one setting's trials."""

    setting: Setting
    sound_score: float
    right_layer: int = 0
    right_family: int = 0
    undetectable: int = 0
    seconds: float = 0.0
    wrong: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """A row of the results."""
        setting = {name: value for name, value in vars(self.setting).items() if name != "config"}
        return {**setting, **{name: value for name, value in vars(self).items() if name != "setting"}}


def main() -> None:
    """Runs every setting and writes both files; fails where fewer than the share of the layers are right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat a run; default: drawn now")
    parser.add_argument("--target", help="this target's settings alone; the others' results stay")
    parser.add_argument("--share", type=float, default=1.0, help="a share of the trials, for a quicker look")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    rows = []
    for number, setting in enumerate(SETTINGS):
        if options.target in (None, setting.target):
            trials = max(1, round(options.share * setting.trials))
            found = run_trials(setting, trials, np.random.default_rng((seed, number)))
            rows.append({**found.to_dict(), "trials": trials, "seed": seed})
            print(json.dumps(rows[-1]), flush=True)
    write_results({"machine": machine(TOOLS), "settings": [*others(options.target), *rows]})
    if wrong := [row for row in rows if row["right_layer"] < RIGHT * row["trials"]]:
        sys.exit(f"the right layer was named too seldom: {wrong}")


def others(target: str | None) -> list[dict[str, Any]]:
    """The results of the other targets, where one alone is run."""
    file = HERE / "locate.json"
    if target is None or not file.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["settings"]
    return [row for row in rows if row["target"] != target]


TOOLS = ("torch", "onnxruntime", "tensorflow-cpu", "ai-edge-litert")


def run_trials(setting: Setting, trials: int, generator: np.random.Generator) -> Found:
    """Plants detectable faults into copies of one written file until there are enough."""
    module = lively_model(TASK, setting.config, seed=int(generator.integers(2**31)))
    with tempfile.TemporaryDirectory(prefix="lxmert-export-locate-") as place:
        sound = export(setting.target, module, Path(place) / "sound", precision=setting.precision, parity=False)
        drifts, _ = measure_drifts(sound, module)
        found = Found(setting, max(drift.score for drift in drifts))
        started = time.perf_counter()
        done = 0
        while done < trials:
            fault = draw_fault(module, generator)
            if (faulty := plant(sound, module, fault, Path(place) / "faulty")) is None:
                continue
            drifts, _ = measure_drifts(faulty, module)
            if max(drift.score for drift in drifts if drift.point.output) < DETECTABLE:
                found.undetectable += 1
                continue
            done += 1
            note(found, fault, drifts)
        found.seconds = (time.perf_counter() - started) / (trials + found.undetectable)
    return found


def plant(sound: Artifact, module: nn.Module, fault: LayerFault, directory: Path) -> Artifact | None:
    """A copy of an artifact's file with a fault; None where the file has nothing to plant it into."""
    planter = open_planter(sound, module)
    try:
        fault.plant(planter)
    except UnplantableError:
        return None
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    planter.save(directory)
    return Artifact(directory, sound.manifest, "planted")


def open_planter(sound: Artifact, module: nn.Module) -> Planter:
    """What changes the files of a target."""
    manifest = sound.manifest
    if manifest.target == "onnx":
        from parity_tests.faults.layer_faults_onnx import OnnxPlanter

        return OnnxPlanter(sound.path)
    if manifest.target == "tflite":
        from parity_tests.faults.layer_faults_tflite import TflitePlanter

        return TflitePlanter(sound.path, {name: tensor.numpy() for name, tensor in module.state_dict().items()})
    from parity_tests.faults.layer_faults_saved_model import SavedModelPlanter

    return SavedModelPlanter(sound.path, manifest.config, manifest.task)


def note(found: Found, fault: LayerFault, drifts: Sequence[Drift]) -> None:
    """Counts a trial, and keeps what was said of one that was told wrong."""
    jump = first_jump(drifts)
    layer = jump is not None and jump.point.layer == fault.layer
    family = layer and jump is not None and jump.point.family in fault.families
    found.right_layer += layer
    found.right_family += family
    if not family:
        told = None if jump is None else jump.point.name
        found.wrong.append({"fault": fault.kind, "module": fault.module, "told": told, "right_layer": layer})


def write_results(results: dict[str, Any]) -> None:
    """Both files."""
    (HERE / "locate.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    page = report(results)
    (HERE / "locate.md").write_text(page, encoding="utf-8")
    print(page)


def report(results: dict[str, Any]) -> str:
    """The page."""
    rows = results["settings"]
    told = [(row, wrong) for row in rows for wrong in row["wrong"]]
    lines = [
        "# Study: does --locate name the right layer?",
        "",
        f"`python -m benchmarks.locate_study`, on {results['machine']}.",
        "",
        f"Faults planted into written files, each of which moves some output by {DETECTABLE:g} noise floors or more:",
        "weights scaled, shifted, noisy, transposed or rolled, query and key swapped, the scale of the heads, a mask dropped,",
        "another GELU, another epsilon. Layers and faults are drawn by a seed that the run drew itself; each row has that of its",
        "run (`--seed`), and `--share` makes it shorter. `sound` is the largest score of any point before a fault is planted.",
        "",
        "| target | precision | layers | seed | faults | right layer | right operator | sound | not detectable | s each |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *map(table_row, rows),
        "",
        *(["Told otherwise than planted:", ""] if told else []),
        *(
            f"- {row['target']} {row['precision']} {row['network']}: {w['fault']} in `{w['module']}`: {w['told']}"
            for row, w in told
        ),
        *([""] if told else []),
    ]
    return "\n".join(lines)


def table_row(row: dict[str, Any]) -> str:
    """One setting's figures."""
    shares = (f"{row[which] / row['trials']:.1%}" for which in ("right_layer", "right_family"))
    setting = (row[name] for name in ("target", "precision", "network", "seed", "trials"))
    rest = (f"{row['sound_score']:.2f}", row["undetectable"], f"{row['seconds']:.1f}")
    return f"| {' | '.join(map(str, (*setting, *shares, *rest)))} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
