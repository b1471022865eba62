"""Gives every reader damaged files: each is read, or refused with an error of the package; anything else is a finding.

A round is one reader for some seconds of CPU time, in a process of its own. An input is drawn from the round's seed and its
number alone, so that a finding can be looked at again: python -m benchmarks.trust.fuzz READER SEED --input NUMBER
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.resumable import Steps, source_key
from benchmarks.trust.readers import READERS
from benchmarks.trust.samples import Samples
from lxmert_export.errors import LONGEST_MESSAGE, LxmertExportError

ROOT = Path(__file__).parent.parent.parent
OWN = ("benchmarks/trust/fuzz.py", "benchmarks/trust/mutations.py", "benchmarks/trust/readers.py")
DISTRIBUTIONS = ("torch", "safetensors", "h5py", "numpy", "tokenizers", "onnx", "pillow")
ROUNDS, SECONDS = 2, 66.0  # of each reader: an hour of CPU time in all
MOST_SECONDS = 5.0  # of CPU time for one input
MOST_MEMORY = 500_000  # KiB that the process may hold beyond what it held before an input
RESULTS = tuple(
    f":!{file}" for file in ("benchmarks/trust.json", "benchmarks/trust.md", "SECURITY.md", "docs/trust.md")
)
STATUS = Path("/proc/self/status")

REPORTED = 1.0  # seconds between two notes of a round on how far it is


def fuzz(
    state: Path,
    samples: Samples,
    *,
    readers: Collection[str] = tuple(READERS),
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Runs the rounds that are not finished, the first of every reader before the second of any; returns all results.

    A run takes an hour, in which readers may be mended: each round says at which commit it was run.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in readers}
    for seed in range(rounds):
        for name in readers:
            steps = Steps(state / _slug(name), source_key(ROOT, OWN, DISTRIBUTIONS))
            known = steps.is_finished(str(seed))
            found[name].append(steps.once(str(seed), partial(run_apart, name, seed, seconds, samples)))
            if not known:
                print(f"fuzz: {name}, round {seed}: {found[name][-1]}", flush=True)
    return {"readers": {name: together(results) for name, results in found.items()}}


def together(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Adds up the rounds of a reader."""
    counts = {name: sum(result[name] for result in rounds) for name in ("inputs", "accepted", "refused", "cpu_seconds")}
    findings = {key: finding for result in rounds for key, finding in result["findings"].items()}
    slowest = max(result["slowest"] for result in rounds)
    return {**counts, "slowest": slowest, "commits": sorted({r["commit"] for r in rounds}), "findings": findings}


def run_apart(name: str, seed: int, seconds: float, samples: Samples) -> dict[str, Any]:
    """Runs a round in its own process. If that dies, the input that it had is a finding."""
    samples.directory(READERS[name].sample)
    if (beside := READERS[name].beside) is not None:
        samples.directory(beside)
    with tempfile.TemporaryDirectory(prefix="lxmert-export-fuzz-") as place:
        noted = Path(place) / "noted.json"
        arguments = [name, str(seed), "--seconds", str(seconds), "--samples", str(samples.place), "--noted", str(noted)]
        command = [sys.executable, "-m", "benchmarks.trust.fuzz", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not noted.exists():
            raise RuntimeError(f"the round of {name} did not begin: {done.stderr[-2000:]}")
        result: dict[str, Any] = json.loads(noted.read_text())
    if done.returncode:
        key = f"the process ended with {done.returncode}"
        result["findings"][key] = {"seed": seed, "input": result["inputs"], "count": 1, "message": done.stderr[-300:]}
    return {**result, "commit": commit()}


def commit() -> str:
    """Returns the commit of the sources; "-dirty" behind it if they were changed since. The results are no source."""
    told = _git("describe", "--always", "--exclude=*").strip() or "unknown"
    return f"{told}-dirty" if _git("status", "--porcelain", "--", ".", *RESULTS) else told


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout


class Round:
    """One reader, a seed, and what came of its inputs."""

    def __init__(self, name: str, seed: int, samples: Samples, place: Path) -> None:
        self.reader, self.seed, self.directory = READERS[name], seed, place / "copy"
        self.valid = self.reader.copied(samples, self.directory).read_bytes()
        self.counts: Counter[str] = Counter()
        self.findings: dict[str, dict[str, Any]] = {}
        self.slowest = 0.0

    def run(self, seconds: float, note: Callable[[dict[str, Any]], None]) -> None:
        """Tries inputs for some seconds of CPU time, and notes now and then what came of them."""
        self.reader.read(self.reader.write(self.directory, self.valid))  # imports what is needed; a valid file is read
        began = last = time.process_time()
        while (now := time.process_time()) < began + seconds:
            if now > last + REPORTED or now == began:
                note(self.result(now - began))
                last = now
            self.try_input(self.counts["inputs"])
        note(self.result(time.process_time() - began))

    def result(self, cpu_seconds: float) -> dict[str, Any]:
        """Returns the counts so far."""
        counts = {name: self.counts[name] for name in ("inputs", "accepted", "refused")}
        return {**counts, "cpu_seconds": cpu_seconds, "slowest": self.slowest, "findings": self.findings}

    def try_input(self, number: int) -> None:
        """Damages the valid file, and has it read."""
        content = self.reader.mutate(self.valid, np.random.default_rng([self.seed, number]))
        file = self.reader.write(self.directory, content)
        STATUS.with_name("clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        began, held = time.process_time(), _peak()
        self.counts["inputs"] += 1
        try:
            self.reader.read(file)
            self.counts["accepted"] += 1
        except LxmertExportError as error:
            self.counts["refused"] += 1
            if len(str(error)) > LONGEST_MESSAGE:
                self.find(number, f"a message of more than {LONGEST_MESSAGE} characters", str(error))
        except Exception as error:  # noqa: BLE001  (whatever it is, it is a finding)
            frames = [
                frame for frame in traceback.extract_tb(error.__traceback__) if "lxmert_export/" in frame.filename
            ]
            place = f"{frames[-1].filename.partition('lxmert_export/')[2]}:{frames[-1].lineno}" if frames else "?"
            self.find(number, f"{type(error).__name__} at {place}", str(error))
        took = time.process_time() - began
        self.slowest = max(self.slowest, took)
        if took > MOST_SECONDS:
            self.find(number, f"more than {MOST_SECONDS:g} s", f"{took:.1f} s")
        if (added := _peak() - held) > MOST_MEMORY:
            self.find(number, f"more than {MOST_MEMORY} KiB", f"{added} KiB")

    def find(self, number: int, what: str, message: str) -> None:
        """Keeps the first input of each kind of finding, and counts the others."""
        known = self.findings.setdefault(
            what, {"seed": self.seed, "input": number, "count": 0, "message": message[:200]}
        )
        known["count"] += 1


def _peak() -> int:
    """The most memory of this process since its peak began anew, in KiB."""
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1])


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-").lower()


def main() -> None:
    """Runs one round, or one input of it with its traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("seed", type=int)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--samples", type=Path, default=ROOT / "build" / "trust" / "samples")
    parser.add_argument("--noted", type=Path)
    parser.add_argument("--input", type=int)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    with tempfile.TemporaryDirectory(prefix="lxmert-export-fuzz-") as place:
        trial = Round(arguments.reader, arguments.seed, Samples(arguments.samples), Path(place))
        if arguments.input is not None:
            content = trial.reader.mutate(trial.valid, np.random.default_rng([arguments.seed, arguments.input]))
            print("read:", trial.reader.read(trial.reader.write(trial.directory, content)))
            return
        limit = int(time.process_time() + arguments.seconds) + 60
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        trial.run(arguments.seconds, lambda result: _note(arguments.noted, result))


def _note(file: Path | None, result: dict[str, Any]) -> None:
    text = json.dumps(result)
    if file is None:
        print(text, flush=True)
        return
    file.with_suffix(".unfinished").write_text(text)
    file.with_suffix(".unfinished").replace(file)


if __name__ == "__main__":
    main()
