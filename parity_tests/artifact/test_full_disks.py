"""On a disk that is too small every writer fails with one line and exit code 1, and leaves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.trust.full_disks import BALLAST, PAGE, Outcome, disk
from lxmert_export.artifact.directory import Artifact
from lxmert_export.files.patient_file import PatientFile, patient_file
from parity_tests.fixtures.command import ROOT

# Those that take no second a size; `make trust` runs all of them, on 64 sizes and more.
QUICK = (
    "convert to hf", "convert to original", "convert to tf", "bundle", "reports", "runtime cache", "tokenizer", "config",
)  # fmt: skip
SIZES = 3


@pytest.fixture
def mountable() -> None:
    try:
        with disk(0):
            pass
    except PermissionError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("mountable")
def test_a_disk_that_is_too_small_is_one_line_and_leaves_nothing(bundled_graph: Artifact, tmp_path: Path) -> None:
    (tmp_path / "graph").symlink_to(bundled_graph.path)
    command = [sys.executable, "-m", "benchmarks.trust.full_disks", str(tmp_path), *QUICK]
    done = subprocess.run(
        [*command, "--sizes", str(SIZES), "--brief"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [outcome for outcome in outcomes if outcome["fault"]] == []
    failed = Counter(outcome["writer"] for outcome in outcomes if outcome["code"] == 1)
    assert set(failed) == set(QUICK) and failed.total() > 2 * len(QUICK)
    assert any("bytes are needed" in outcome["said"] for outcome in outcomes if outcome["checked"])


@pytest.mark.usefixtures("mountable")
def test_a_disk_of_no_page_takes_nothing() -> None:
    with disk(0) as place, pytest.raises(OSError, match="No space left"):
        (place / "file").write_bytes(b"x")
    with disk(1) as place:
        (place / "file").write_bytes(bytes(PAGE))
        assert {path.name for path in place.iterdir()} == {"file", BALLAST}


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome(1, 9, True, 1, "error: no space\n", []), None),
        (Outcome(1, 9, True, 0, "", ["out", "out/file"]), None),
        (Outcome(1, 9, True, 1, "error: no space\n", ["out"]), "left ['out']"),
        (Outcome(1, 9, True, 0, "", ["out", ".out.writing-1"]), "left ['.out.writing-1']"),
        (Outcome(1, 9, True, -11, "", []), "ended with -11"),
        (Outcome(1, 9, True, 1, "error: one\nerror: two\n", []), "said 2 lines"),
        (Outcome(1, 9, True, 1, "", []), "said 0 lines"),
    ],
)
def test_what_counts_as_a_fault(outcome: Outcome, fault: str | None) -> None:
    assert outcome.fault == fault


def test_a_file_that_takes_every_write_tells_its_failure_in_the_end(tmp_path: Path) -> None:
    with patient_file(tmp_path / "sound") as file:
        assert file.write(b"abcd") == 4 and file.seek(1) == 1 and file.write(b"x") == 1 and file.read(1) == b"c"
        assert file.truncate(3) == 3
    assert (tmp_path / "sound").read_bytes() == b"axc"
    file = PatientFile(Path("/dev/full"))
    assert file.write(b"abcd") == 4
    assert file.failure is not None and file.failure.strerror == "No space left on device"
    file.close()


@pytest.mark.parametrize("raised", [None, ValueError("what the library made of it")])
def test_what_a_library_makes_of_a_failure_is_not_told(raised: Exception | None) -> None:
    with pytest.raises(OSError, match="No space left on device"), patient_file(Path("/dev/full")) as file:
        file.write(b"abcd")
        if raised is not None:
            raise raised


def test_an_error_of_a_library_alone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its own"), patient_file(tmp_path / "file"):
        raise ValueError("its own")
