"""Plants faults into one layer of written files, and counts how often --locate names the right layer.

Each run draws a new seed for layers and faults, so that no code can be fitted to it. The seed is in the results, and
--seed repeats a run. Writes benchmarks/locate.json and locate.md. Run: python -m benchmarks.locate_study
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
DETECTABLE = 20.0  # a fault must change some output by this many floors, as in `make study`
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
    """The results of one setting."""

    setting: Setting
    sound_score: float
    right_layer: int = 0
    right_family: int = 0
    undetectable: int = 0
    seconds: float = 0.0
    wrong: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns a row of the results."""
        setting = {name: value for name, value in vars(self.setting).items() if name != "config"}
        return {**setting, **{name: value for name, value in vars(self).items() if name != "setting"}}


def main() -> None:
    """Runs every setting and writes both files; exits with an error if too few layers are named right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="the seed of a run to repeat; default: a new one")
    parser.add_argument("--target", help="run only this target; the results of others stay")
    parser.add_argument("--share", type=float, default=1.0, help="run only this share of the trials, for a quick look")
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
    """Returns the stored results of the other targets if only one target is run."""
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
    """Returns a copy of an artifact with a fault; None if the file has no place for this fault."""
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
    """Returns the planter that changes files of the artifact's target."""
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
    """Counts a trial; keeps the fault and the answer if --locate named a wrong layer or operator."""
    jump = first_jump(drifts)
    layer = jump is not None and jump.point.layer == fault.layer
    family = layer and jump is not None and jump.point.family in fault.families
    found.right_layer += layer
    found.right_family += family
    if not family:
        named = None if jump is None else jump.point.name
        found.wrong.append({"fault": fault.kind, "module": fault.module, "told": named, "right_layer": layer})


def write_results(results: dict[str, Any]) -> None:
    """Writes both files."""
    (HERE / "locate.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    page = report(results)
    (HERE / "locate.md").write_text(page, encoding="utf-8")
    print(page)


def report(results: dict[str, Any]) -> str:
    """Returns the page."""
    rows = results["settings"]
    all_wrong = [(row, wrong) for row in rows for wrong in row["wrong"]]
    lines = [
        "# Study: does --locate name the right layer?",
        "",
        f"Measured by `python -m benchmarks.locate_study` on {results['machine']}.",
        "",
        f"Faults are planted into written files. Each changes some output by {DETECTABLE:g} noise floors or more. Kinds of",
        "faults: weights scaled, shifted, noisy, transposed or rolled; query and key swapped; a wrong head scale; a mask",
        "dropped; another GELU; another epsilon.",
        "",
        "Each run draws a new seed for layers and faults. `--seed` repeats the run of a row, and `--share` makes a run shorter.",
        "*Sound* is the largest score of any point before a fault is planted. Faults that change every output by less",
        f"than {DETECTABLE:g} floors are *not detectable*, and are not counted as faults.",
        "",
        "| target | precision | layers | seed | faults | right layer | right operator | sound | not detectable | s each |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *map(table_row, rows),
        "",
        *(["Wrong answers (planted fault: what `--locate` named):", ""] if all_wrong else []),
        *(
            f"- {row['target']} {row['precision']} {row['network']}: {w['fault']} in `{w['module']}`: {w['told']}"
            for row, w in all_wrong
        ),
        *([""] if all_wrong else []),
    ]
    return "\n".join(lines)


def table_row(row: dict[str, Any]) -> str:
    """Returns the row of one setting."""
    shares = (f"{row[which] / row['trials']:.1%}" for which in ("right_layer", "right_family"))
    setting = (row[name] for name in ("target", "precision", "network", "seed", "trials"))
    rest = (f"{row['sound_score']:.2f}", row["undetectable"], f"{row['seconds']:.1f}")
    return f"| {' | '.join(map(str, (*setting, *shares, *rest)))} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
