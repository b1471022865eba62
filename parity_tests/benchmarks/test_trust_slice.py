"""A slice of `make trust`: nothing is found in the package, and each trial finds a fault that is planted for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from benchmarks.measuring import Run
from benchmarks.trust import calls, faults, flips, hostile, kills
from benchmarks.trust.__main__ import TRIALS, WITH_FIGURES, Trial
from benchmarks.trust.fuzz import Round, together
from benchmarks.trust.mutations import damaged_json, damaged_safetensors, damaged_zip
from benchmarks.trust.page import DETAILS, found_in, page, with_figures
from benchmarks.trust.readers import READERS, Reader
from benchmarks.trust.remembered import Converted
from benchmarks.trust.samples import Samples
from lxmert_export.api.artifact import load_artifact
from lxmert_export.artifact.directory import Artifact
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays
from parity_tests.fixtures.command import ROOT

INPUTS = 25  # of each reader
NOT_HERE = ("saved-model", "keras", "tflite", "bundle", "device")  # samples that take long to make
QUICK_WRITERS = ("config", "runtime cache")


@pytest.fixture(scope="module")
def samples(shared_place: Path) -> Samples:
    return Samples(shared_place / "trust-samples")


def test_flipped_bits_are_noticed(samples: Samples) -> None:
    rows = flips.of_artifact(samples.directory("onnx"), 4, 30)
    assert len(rows) == 9 and sum(row["flips"] for row in rows) == 8 * 4 + 30
    assert found_in("flips", {"files": [*rows, flips.of_checkpoint(samples, 25)], "runtimes": []}) == []


def test_flips_find_a_check_that_is_missing(samples: Samples) -> None:
    with mock.patch.object(Artifact, "check_files"):
        rows = {row["file"]: row for row in flips.of_artifact(samples.directory("onnx"), 4, 4)}
    assert rows["onnx/golden.safetensors"]["noticed"] == 0 and len(rows["onnx/golden.safetensors"]["unnoticed"]) == 4
    assert rows["onnx/manifest.json"]["noticed"] == 4  # by its digest
    assert len(found_in("flips", {"files": list(rows.values()), "runtimes": []})) > 3


@pytest.mark.filterwarnings("ignore")  # a reader may warn of what it takes
@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.sample not in NOT_HERE])
def test_damaged_files_are_read_or_refused(name: str, samples: Samples, tmp_path: Path) -> None:
    trial = Round(name, 1000, samples, tmp_path)
    for number in range(INPUTS):
        trial.try_input(number)
    assert trial.findings == {}
    assert trial.counts["inputs"] == INPUTS == trial.counts["accepted"] + trial.counts["refused"]


PLANTED: dict[str, Callable[[Path], object]] = {
    "KeyError": lambda file: json.loads('{"a": 1}')["b"],
    "RecursionError": lambda file: json.loads("[" * 100_000),
    "more than 500000 KiB": lambda file: np.ones(700_000_000, np.uint8).sum(),
}


@pytest.mark.parametrize("what", PLANTED)
def test_the_fuzz_finds_what_is_neither_read_nor_refused(what: str, samples: Samples, tmp_path: Path) -> None:
    with mock.patch.dict(READERS, {"planted": Reader("hf", "config.json", damaged_json, PLANTED[what])}):
        trial = Round("planted", 0, samples, tmp_path)
        trial.try_input(0)
        trial.try_input(1)
    ((key, finding),) = [(key, found) for key, found in trial.findings.items() if key.startswith(what)]
    assert finding["input"] == 0
    row = together([{**trial.result(1.0), "commit": "abc"}])
    assert found_in("fuzz", {"readers": {"planted": row}}) == [f"planted: {key}"]


@pytest.mark.parametrize("mutate", [damaged_json, damaged_safetensors, damaged_zip])
def test_the_same_input_is_drawn_again(mutate: Callable[..., bytes], samples: Samples) -> None:
    file = {"damaged_json": "config.json", "damaged_safetensors": "model.safetensors"}.get(mutate.__name__)
    content = (samples.directory("hf") / file if file else samples.directory("original") / "BEST.pth").read_bytes()
    drawn = [[mutate(content, np.random.default_rng([0, number])) for number in range(20)] for _ in range(2)]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) > 10


@pytest.mark.parametrize("writer", QUICK_WRITERS)
def test_kills_and_faults_leave_nothing(writer: str, tmp_path: Path) -> None:
    killed, failed = kills.apart(writer, tmp_path, 2), faults.apart(writer, tmp_path)
    assert found_in("kills", {"writers": {writer: killed}}) == found_in("faults", {"writers": {writer: failed}}) == []
    assert killed["kills"] == 2 and failed["faults"] > 5
    assert failed["refused"] > 0 and failed["refused"] + failed["done_all_the_same"] == failed["faults"]


def test_every_operation_fails_but_those_that_repeat(tmp_path: Path) -> None:
    place, read = str(tmp_path / "place"), str(tmp_path / "read")
    operations = [
        ["open", read],
        *[["write", f"{place}/out"]] * 40,
        ["os.rename", f"{place}/out", f"{place}/it"],
        ["open", read],
    ]
    assert faults.chosen(operations, None) == [1, 2, 18, 34, 41, 42, 43]
    assert faults.chosen(operations, tmp_path / "place") == [2, 18, 34, 41, 42]


class Watch:
    def __init__(self, number: int = 0) -> None:
        self.seen, self.number, self.busy = 3, number, False


@pytest.mark.parametrize(("number", "converts"), [(0, False), (3, False), (4, True), (5, True), (6, False)])
def test_a_converter_runs_again_only_where_its_own_operation_fails(number: int, converts: bool, tmp_path: Path) -> None:
    ran: list[Path] = []

    def convert(what: str, directory: Path, watch: Watch) -> list[str]:
        ran.append(directory)
        watch.seen += 2
        (directory / "file").write_text(what)
        return [what]

    for turn in range(2):
        watch, directory = Watch(number if turn else 0), tmp_path / str(turn)
        directory.mkdir()
        assert Converted(convert, tmp_path / "kept", watch)("it", directory=directory, watch=watch) == ["it"]
        assert watch.seen == 5 and not watch.busy and (directory / "file").read_text() == "it"
    assert len(ran) == 1 + converts


TORN_WRITER = """
import sys, time
from pathlib import Path
from benchmarks.trust import faults, kills
from benchmarks.trust.writers import Writer
from lxmert_export.cli.main import main  # here: then most of an attempt is the time between the two files

def write(sources, place):
    (place / ".half").write_text("half")
    (place / "first").write_text("1")
    time.sleep(0.3)
    (place / "second").write_text("2")
    (place / ".half").unlink()

writer, sources = Writer(call=write), Path(sys.argv[1])
killed, failed = list(kills.trials(writer, sources, 3)), list(faults.trials(writer, sources))[1:]
print([row["found"] for row in killed if row["killed"]].count("parts"), [row["fault"] for row in failed])
"""


def test_kills_and_faults_find_a_writer_that_leaves_half(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TORN_WRITER, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    parts, _, found = done.stdout.partition(" ")
    assert int(parts) > 0  # both are there or none, of a writer that is sound
    assert "ended with 70" in found and "None" not in found  # an OSError that is no error of ours, at every operation


def test_hostile_files_end_soon_in_little_memory(samples: Samples) -> None:
    kinds = [
        "config, 2 GB, sparse",
        "safetensors, a header nested 10^5 deep",
        ".pth, dictionaries that hold each other twice",
    ]
    found = hostile.hostile(samples, kinds=kinds)
    assert found_in("hostile", found) == []
    assert all(row["said"].startswith("error: ") for row in found["kinds"])


def reading(seconds: float, mib: float, printed: str = "error: one line") -> hostile.Reading:
    return hostile.Reading(Run(seconds, mib, seconds, mib, 0.0), printed)


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (reading(1, 250), None),
        (reading(7, 250), "6.0 s"),
        (reading(1, 900), "684 MB"),
        (reading(1, 250, "Traceback (most recent call last):"), "a traceback"),
        (reading(1, 250, "error: one\nerror: two"), "a traceback"),
    ],
)
def test_what_takes_long_or_much_is_a_finding(found: hostile.Reading, fault: str | None) -> None:
    assert hostile.row("it", 10.0, found, reading(1, 248), hashed=0.0)["fault"] == fault


class Mixed(Runner):
    """Gives every third call the answer to the call before."""

    last: Arrays
    number = 0

    def compute(self, inputs: Arrays) -> Arrays:
        found = {"sum": inputs["visual_feats"].sum(axis=(1, 2))}
        self.number += 1
        given = self.last if self.number > 20 and self.number % 3 == 0 else found
        self.last = found
        return given


class Leaking(Mixed):
    """Keeps something of every call."""

    kept: list[Any]

    def compute(self, inputs: Arrays) -> Arrays:
        self.kept = [*getattr(self, "kept", []), np.ones(10**6)]
        return {}


def test_calls_are_right_and_wrong_ones_are_found(samples: Samples) -> None:
    with load_artifact(samples.directory("onnx")) as runner:
        sound = calls.run_threads(runner, 60)
        assert sound["wrong"] == 0 and len(calls.run_shapes(runner, 20)["memory_mib"]) == 10
        mixed = calls.run_threads(Mixed("mixed", runner.signature, runner.limits), 60)
        leaking = calls.run_shapes(Leaking("leaking", runner.signature, runner.limits), 20)
    assert found_in("threads", {"runtimes": {"onnxruntime": sound, "mixed": mixed}}) == [
        f"mixed: {mixed['wrong']} wrong"
    ]
    assert mixed["wrong"] > 10
    assert len(found_in("shapes", {"runtimes": {"leaking": leaking}})) == 1


def test_a_finished_step_is_not_run_again(tmp_path: Path) -> None:
    ran: list[int] = []
    for _ in range(2):
        assert Trial("flips", tmp_path, {}).once("all", lambda: {"times": ran.append(1) or len(ran)})["times"] == 1
    Trial("flips", tmp_path, {}).forget()
    assert Trial("flips", tmp_path, {}).once("all", lambda: {"times": len(ran)})["commit"]


def test_the_committed_page_is_that_of_the_committed_results_and_nothing_was_found() -> None:
    results = json.loads((ROOT / "benchmarks" / "trust.json").read_text(encoding="utf-8"))
    assert page(results) == (ROOT / "benchmarks" / "trust.md").read_text(encoding="utf-8")
    for other in WITH_FIGURES:
        text = other.read_text(encoding="utf-8")
        assert with_figures(text, results) == text and "of trust.json -->" in text
    assert set(TRIALS) == set(DETAILS) >= set(results["trials"])
    assert [line for name, trial in results["trials"].items() for line in found_in(name, trial)] == []
