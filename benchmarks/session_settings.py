"""Measures the session settings of `--optimize-for cpu` in versions of onnxruntime: the table in artifact/session_settings.py.

Each version is installed in a directory of its own. A full-size file is called with and without SkipLayerNormFusion, in turn.
Writes session_settings.json and session_settings.md, and says where the table is wrong. Continues where it stopped.
Run: python -m benchmarks.session_settings [--pip-args=…] [--rounds 30]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.full_size_checkpoint import write_full_size
from benchmarks.measuring import machine
from benchmarks.session_settings_worker import REST
from lxmert_export.artifact.session_settings import CPU_SETTINGS, chosen_settings
from lxmert_export.benching.figures import Interval, speed_of

RESULTS = Path(__file__).with_suffix(".json")
PAGE = RESULTS.with_suffix(".md")
WORKER = Path(__file__).with_name("session_settings_worker.py")
OPTIMISER = "SkipLayerNormFusion"
VERSIONS = ("1.23.2", "1.24.4", "1.26.0", "1.28.0", "1.29.0", "1.30.0", "1.31.1", "1.32.0")
BATCHES = (1, 8)
Found = dict[str, dict[str, Any]]


def main() -> None:
    """Measures what is not in the results yet, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pip-args", default="")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    chosen = parser.parse_args()
    here = machine(("numpy",))
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    method = {"machine": here, "threads": chosen.threads, "rounds": chosen.rounds, "rest": REST}
    found: Found = known["versions"] if method.items() <= known.items() else {}
    with tempfile.TemporaryDirectory(prefix="lxmert-export-session-settings-") as place:
        file = _exported(Path(place)) if set(VERSIONS) - set(found) else None
        for version in VERSIONS:
            if version in found or file is None:
                continue
            runtime = _installed(version, Path(place), chosen.pip_args)
            found[version] = {
                str(batch): _timed(file, runtime, batch, chosen.rounds, chosen.threads) for batch in BATCHES
            }
            print(version, {batch: str(ratio(found[version][batch])) for batch in found[version]}, flush=True)
            RESULTS.write_text(json.dumps({**method, "versions": found}, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(_page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


def _exported(place: Path) -> Path:
    checkpoint = write_full_size(place / "checkpoint", "question-answering")
    command = ["-m", "lxmert_export.cli", "onnx", str(checkpoint), "--no-parity", "-o", str(place / "exported")]
    subprocess.run([sys.executable, *command], check=True)
    return place / "exported" / "model.onnx"


def _installed(version: str, place: Path, pip_args: str) -> Path:
    """Installs one onnxruntime in a directory; the other libraries are those of this environment."""
    target = place / f"onnxruntime-{version}"
    command = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), f"onnxruntime=={version}"]
    subprocess.run([sys.executable, *command, *shlex.split(pip_args)], check=True)
    return target


def _timed(file: Path, runtime: Path, batch: int, rounds: int, threads: int) -> dict[str, list[float]]:
    command = [sys.executable, str(WORKER), str(file), OPTIMISER, str(batch), str(rounds), str(threads)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(runtime)}, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert runtime.name.endswith(found["version"]), f"{runtime} was not used, but onnxruntime {found['version']}"
    seconds: dict[str, list[float]] = found["seconds"]
    return seconds


def ratio(seconds: dict[str, list[float]]) -> Interval:
    """Returns how many times as fast the file is without the fusion: of the ratios of calls made in turn."""
    return speed_of(seconds["with"], seconds["without"])


def _page(values: dict[str, Any]) -> str:
    found: Found = values["versions"]
    rows = "\n".join(_row(version, found[version]) for version in VERSIONS if version in found)
    wrong = [version for version in VERSIONS if version in found and not _agrees(version, found[version])]
    verdict = (
        f"The table `lxmert_export/artifact/session_settings.py` chooses otherwise for {', '.join(wrong)}."
        if wrong
        else "No version is faster, with its whole interval, with what the table does not choose."
    )
    return f"""# Session settings of onnxruntime, by version

Measured by `python -m benchmarks.session_settings --rounds {values["rounds"]}` on {values["machine"]}.

A full-size question-answering file, fp32, 20 tokens, 36 objects, {values["threads"]} threads. With and without `{OPTIMISER}`,
{values["rounds"]} calls each, made in turn: medians, and of the ratios of neighbouring calls the median and its 95 % interval.

| onnxruntime | batch 1: fused, ms | apart, ms | fused ÷ apart | batch 8: fused, ms | apart, ms | fused ÷ apart | chosen |
|---|---|---|---|---|---|---|---|
{rows}

*Fused*: `SkipLayerNormalization`; *apart*: `Add` and `LayerNormalization`. {verdict}
"""


def _row(version: str, found: dict[str, Any]) -> str:
    cells = [version]
    for batch in map(str, BATCHES):
        medians = [statistics.median(found[batch][name]) * 1e3 for name in ("with", "without")]
        cells += [*(f"{median:.1f}" for median in medians), str(ratio(found[batch]))]
    return f"| {' | '.join(cells)} | {'apart' if _chosen(version) else 'fused'} |"


def _chosen(version: str) -> bool:
    return OPTIMISER in chosen_settings(CPU_SETTINGS, version).values()


def _agrees(version: str, found: dict[str, Any]) -> bool:
    """Whether no batch is faster, with its whole interval, with what the table does not choose."""
    ratios = [ratio(found[batch]) for batch in map(str, BATCHES)]
    return all(value.high >= 1 if _chosen(version) else value.low <= 1 for value in ratios)


if __name__ == "__main__":
    main()
