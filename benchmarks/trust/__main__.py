"""Runs every trial of trust, and writes benchmarks/trust.json and trust.md. Run: make trust

A run that was stopped goes on where it stopped: build/trust/ holds the result of each step, with the commit that it was run at,
until all are finished. TRUST_ARGS="--only flips" runs some trials, and "--only kills --writers keras tflite" the trials of some
writers; the others keep the results of before.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine
from benchmarks.resumable import Steps, source_key
from benchmarks.trust import calls, faults, flips, fuzz, hostile, kills, same_bytes
from benchmarks.trust.attempts import rows_of
from benchmarks.trust.page import found_in, page, with_figures
from benchmarks.trust.samples import Samples
from benchmarks.trust.writers import WRITERS

ROOT = Path(__file__).parent.parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "trust.json", ROOT / "benchmarks" / "trust.md"
WITH_FIGURES = (ROOT / "SECURITY.md", ROOT / "docs" / "trust.md")
DISTRIBUTIONS = (
    "numpy",
    "torch",
    "safetensors",
    "h5py",
    "onnxruntime",
    "tensorflow-cpu",
    "tensorflow",
    "ai-edge-litert",
)
SIZES = 64  # of disks that are too small
Outcome = dict[str, Any]


def main() -> None:
    """Runs the unfinished trials, and writes both files after each; exits with an error if there are findings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "trust")
    parser.add_argument("--only", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--page", action="store_true", help="run nothing; write the page of trust.json again")
    parser.add_argument("--writers", nargs="+", choices=WRITERS, default=list(WRITERS), metavar="WRITER")
    chosen = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"trials": {}}
    if not chosen.page:
        results["machine"] = machine(DISTRIBUTIONS)
        state = chosen.state.absolute()
        trials = {name: Trial(name, state, results, chosen.writers) for name in chosen.only}
        for name, trial in trials.items():
            trial.tell(TRIALS[name](trial))
        if len(chosen.writers) == len(WRITERS):
            for trial in trials.values():
                trial.forget()
    write(results)
    if findings := {name: found for name in results["trials"] if (found := found_in(name, results["trials"][name]))}:
        sys.exit(f"findings: {json.dumps(findings, indent=1)[:5000]}")


def write(results: Mapping[str, Any]) -> None:
    """Writes both files, and the figures in other pages; during a run, with the results so far."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")
    for other in WITH_FIGURES:
        other.write_text(with_figures(other.read_text(encoding="utf-8"), results), encoding="utf-8")


class Trial:
    """The steps of one trial, the samples, and what writers read; ``results`` of all trials, and the ``writers`` to try."""

    def __init__(
        self, name: str, state: Path, results: dict[str, Any], writers: Collection[str] = tuple(WRITERS)
    ) -> None:
        self.name, self.state, self.results, self.writers = name, state, results, writers
        sources = [f"benchmarks/trust/{module}.py" for module in SOURCES[name]]
        self._steps = Steps(state / f"trial-{name}", source_key(ROOT, sources, DISTRIBUTIONS))
        self.samples = Samples(state / "samples")
        self.sources = state / "sources"
        self.sources.mkdir(parents=True, exist_ok=True)

    def once(self, step: str, work: Callable[[], Outcome]) -> Outcome:
        """Returns the outcome of a step, with its time and commit; an earlier run may have finished it."""

        def timed() -> Outcome:
            began = time.perf_counter()
            found = work()
            return {**found, "seconds": round(time.perf_counter() - began, 1), "commit": fuzz.commit()}

        known, name = self._steps.is_finished(_slug(step)), _slug(step)
        found = self._steps.once(name, timed)
        print(f"{self.name}, {step}: {'finished before' if known else found['seconds']}", flush=True)
        return found

    def tell(self, outcome: Outcome) -> None:
        """Writes the results, with what has come of this trial so far."""
        self.results["trials"][self.name] = outcome
        write(self.results)

    def forget(self) -> None:
        """Removes the outcomes of the steps, because all trials are finished."""
        self._steps.forget()


def full_disks(writer: str, sources: Path) -> Outcome:
    """Runs one writer on disks that are too small for it."""
    rows = rows_of("full_disks", sources, writer, "--sizes", str(SIZES))
    return {
        "disks": len(rows),
        "refused": sum(row["code"] == 1 for row in rows),
        "findings": [r for r in rows if r["fault"]],
    }


def _of_writers(work: Callable[[str, Path], Outcome]) -> Callable[[Trial], Outcome]:
    def run(trial: Trial) -> Outcome:
        found = dict(trial.results["trials"].get(trial.name, {}).get("writers", {}))
        for name in trial.writers:
            found[name] = trial.once(name, partial(work, name, trial.sources))
            trial.tell({"writers": {name: found[name] for name in WRITERS if name in found}})
        return {"writers": {name: found[name] for name in WRITERS if name in found}}

    return run


def _kills(writer: str, sources: Path) -> Outcome:
    return kills.apart(writer, sources, kills.planned()[writer])


def _faults(writer: str, sources: Path) -> Outcome:
    return faults.apart(writer, sources)


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-").lower()


ATTEMPTS = ("attempts", "full_disks", "remembered", "writers")
SOURCES: Mapping[str, tuple[str, ...]] = {
    "flips": ("flips", "samples"),
    "threads": ("calls", "samples"),
    "shapes": ("calls", "samples"),
    "hostile": ("hostile", "hostile_files", "samples"),
    "kills": ("kills", *ATTEMPTS),
    "faults": ("faults", *ATTEMPTS),
    "full-disks": ("full_disks", "remembered", "writers"),
    "bytes": ("same_bytes", "samples"),
    "fuzz": ("fuzz", "mutations", "readers"),
}
TRIALS: Mapping[str, Callable[[Trial], Outcome]] = {
    "flips": lambda trial: trial.once("all", lambda: flips.flips(trial.samples)),
    "threads": lambda trial: trial.once("all", lambda: calls.threads(trial.samples)),
    "shapes": lambda trial: trial.once("all", lambda: calls.shapes(trial.samples)),
    "hostile": lambda trial: trial.once("all", lambda: hostile.hostile(trial.samples)),
    "kills": _of_writers(_kills),
    "faults": _of_writers(_faults),
    "full-disks": _of_writers(full_disks),
    "bytes": lambda trial: trial.once("all", lambda: same_bytes.compare(trial.samples.directory("hf"))),
    "fuzz": lambda trial: fuzz.fuzz(trial.state / "fuzz", trial.samples),  # with steps of its own
}

if __name__ == "__main__":
    main()
