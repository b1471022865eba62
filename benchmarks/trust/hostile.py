"""Gives hostile files to the commands that read them: each ends soon, in little memory, with one line."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import Run, run_process
from benchmarks.trust.hostile_files import ARTIFACT, CHECKPOINT, HOSTILE, INPUTS, PICTURE, REPORT, TOKENIZER
from benchmarks.trust.samples import Samples

SECONDS, MEMORY_MB = 5.0, 500.0  # beyond those of the same command on a valid file
TIMES_ITS_SIZE, HASHED_MB_PER_SECOND = 2.0, 200.0
COMMAND = ("-m", "lxmert_export.cli")
# For each reader: a sample that is valid, and the words that read what is named PATH.
READERS: dict[str, tuple[str, tuple[str, ...]]] = {
    CHECKPOINT: ("hf", (*COMMAND, "inspect", "PATH")),
    TOKENIZER: ("hf", ("-c", "import sys, lxmert_export as lx\ntry: lx.load_tokenizer(sys.argv[1])\n"
                       "except lx.LxmertExportError as error: sys.exit(f'error: {error}')", "PATH")),
    ARTIFACT: ("onnx", (*COMMAND, "inspect", "PATH")),
    INPUTS: ("inputs", (*COMMAND, "inspect", "ONNX", "--lint", "--calibration", "PATH/inputs.npz")),
    REPORT: ("report", (*COMMAND, "parity", "--from", "PATH/report.json")),
    PICTURE: ("picture", (*COMMAND, "ask", "DEMO", "--image", "PATH/scene.png", "how many circles are there ?")),
}  # fmt: skip
KILLED = 137  # by the system, for its memory


@dataclass(frozen=True)
class Reading:
    """A reader's command on a path: what it took, and what it printed."""

    run: Run
    printed: str


def hostile(samples: Samples, *, kinds: Collection[str] = tuple(HOSTILE)) -> dict[str, Any]:
    """Returns a row for each kind: what it takes beyond the same command on a valid file."""
    began, valid = time.perf_counter(), dict[str, Reading]()
    rows = []
    for kind in kinds:
        reader, make = HOSTILE[kind]
        if reader not in valid:
            valid[reader] = _read(reader, samples.directory(READERS[reader][0]), samples)
        with tempfile.TemporaryDirectory(prefix="lxmert-export-hostile-") as place:
            named = make(samples, Path(place) / "copy")
            size = sum(file.stat().st_size for file in named.rglob("*") if file.is_file()) / 1e6
            hashed = size if reader == ARTIFACT else 0.0
            rows.append(row(kind, size, _read(reader, named, samples), valid[reader], hashed=hashed))
        print(f"hostile: {rows[-1]}", flush=True)
    return {"kinds": rows, "seconds": time.perf_counter() - began}


def row(kind: str, size: float, found: Reading, valid: Reading, *, hashed: float) -> dict[str, Any]:
    """Compares a reading with that of a valid file. CPU seconds: the machine may be busy with other things.

    ``size`` is that of all files, in MB, ``hashed`` that of those whose hash is compared.
    """
    seconds, memory = (
        found.run.cpu_seconds - valid.run.cpu_seconds,
        (found.run.peak_mib - valid.run.peak_mib) * 2**20 / 1e6,
    )
    allowed = TIMES_ITS_SIZE * size + MEMORY_MB
    lines = [line for line in found.printed.strip().splitlines() if line.startswith("error: ")]
    faults = [
        "killed" if found.run.exit_code == KILLED else None,
        f"{seconds:.1f} s" if seconds > SECONDS + hashed / HASHED_MB_PER_SECOND else None,
        f"{memory:.0f} MB" if memory > allowed else None,
        "a traceback" if "Traceback" in found.printed or len(lines) > 1 else None,
    ]
    said = lines[0][:160] if lines else "read"
    return {"kind": kind, "mb": round(size, 1), "seconds": round(found.run.cpu_seconds, 2), "beyond_seconds": round(seconds, 2),
            "peak_mb": round(found.run.peak_mib * 2**20 / 1e6), "beyond_mb": round(memory), "said": said,
            "fault": next(filter(None, faults), None)}  # fmt: skip


def _read(reader: str, named: Path, samples: Samples) -> Reading:
    printed: list[str] = []
    others = {"PATH": named, "ONNX": samples.directory("onnx")} | (
        {"DEMO": samples.directory("demo")} if reader == PICTURE else {}
    )
    words = [_filled(word, others) for word in READERS[reader][1]]
    return Reading(run_process(words, accepted=(0, 1, 3, KILLED), printed=printed), printed[0])


def _filled(word: str, places: dict[str, Path]) -> str:
    for name, place in places.items():
        if word == name or word.startswith(f"{name}/"):
            return word.replace(name, str(place.absolute()), 1)
    return word
