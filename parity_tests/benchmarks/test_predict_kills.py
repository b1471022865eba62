"""A slice of benchmarks.predict_kills: a few kills without a finding, and faults that it would find."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.predict_kills import OUTPUT, compared
from parity_tests.fixtures.command import ROOT
from parity_tests.fixtures.exports import Exports
from parity_tests.predicting.question_set import write_set


def test_killed_runs_go_on_and_lose_nothing(exports: Exports, tmp_path: Path) -> None:
    artifact = exports.answering("onnx").path
    options = {"kills": 3, "disks": 0, "questions": 80, "artifact": artifact, "output": tmp_path}
    command = [
        sys.executable,
        "-m",
        "benchmarks.predict_kills",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "predict_kills.json").read_text())["kills"]
    assert found["kills"] == 3 and found["findings"] == [] and found["partly_there"] == 0
    assert [found[name] for name in ("lost", "twice", "other_bytes", "left_behind")] == [0, 0, 0, 0]


def test_what_is_lost_or_twice_would_be_found(tmp_path: Path) -> None:
    write_set(tmp_path, questions=20, pictures=5)
    place = tmp_path / "place"
    place.mkdir()
    lines = [json.dumps({"question_id": 1000 + number}) for number in range(20)]
    whole = "\n".join(lines).encode()
    (place / OUTPUT).write_bytes(whole)
    assert not any(compared(tmp_path, place, whole).values())
    (place / OUTPUT).write_text("\n".join([lines[0], *lines[:19]]))
    (place / ".left").touch()
    assert compared(tmp_path, place, whole) == {"lost": 1, "twice": 1, "other_bytes": 1, "left_behind": 1}
