"""A small slice of `make study`: swapped weights are a real export's, correct checkpoints pass, planted faults are caught."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.floor_shares import Shares, measure
from benchmarks.study.__main__ import one_line_each
from benchmarks.study.curve import curves
from benchmarks.study.judging import INT8, SUBJECTS, Checkpoint, ExportedFile, Subject, export_all, worst_of
from benchmarks.study.page import page
from benchmarks.study.results import DETECTABLE, KEPT, fails, read_rows, summarise, upper_bound
from benchmarks.study.trials import (
    Log,
    correct_trial,
    exported_module,
    faulty_run,
    int8_trial,
    swap_differences,
    weight_fault_trial,
)
from lxmert_export.parity.scores import PAIR_THRESHOLD, THRESHOLD, largest_share
from parity_tests.faults.graph_faults import GRAPH_FAULTS
from parity_tests.faults.weight_faults import FAULTS
from parity_tests.fixtures.architectures import ARCHITECTURES, drawn_state

ARCHITECTURE = ARCHITECTURES[0]
WITHOUT_BIASES = next(architecture for architecture in ARCHITECTURES if not architecture.biases)
BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def files() -> Mapping[Subject, ExportedFile]:
    return export_all(ARCHITECTURE, exported_module(ARCHITECTURE))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.drawn(ARCHITECTURE, 7)


def test_swapped_weights_are_those_of_a_real_export(files: Mapping[Subject, ExportedFile]) -> None:
    differences = swap_differences(ARCHITECTURE, files)
    assert set(differences) == {subject.name for subject in SUBJECTS}
    assert all(found == 0 for name, found in differences.items() if not name.startswith("tflite"))
    # TFLite's converter adds a folded shift in an order of its own: the last bit of some biases.
    assert max(differences.values()) < 2


def test_no_alarm_on_correct_checkpoints(files: Mapping[Subject, ExportedFile]) -> None:
    assert exported_module(WITHOUT_BIASES).get_parameter("lxmert.pooler.bias").any()
    # Random networks that int8 keeps. The one without biases has the shapes of the other, and so its files.
    for architecture, seed in ((ARCHITECTURE, 2), (ARCHITECTURE, 3), (WITHOUT_BIASES, 1)):
        trial = correct_trial(architecture, seed, files)
        assert not {name for name, outcome in trial["scores"].items() if fails(outcome, THRESHOLD)}
        assert max(trial["pairs"].values()) <= PAIR_THRESHOLD
        assert len(trial["scores"]) == 8
        assert len(trial["pairs"]) == 28


def test_an_int8_file_is_as_far_off_as_its_simulation(files: Mapping[Subject, ExportedFile]) -> None:
    for seed in (1, 2, 3):
        trial = int8_trial(ARCHITECTURE, seed, files[INT8])
        assert 0.5 < trial["file"][0] / trial["simulated"][0] < 2
        assert not fails(trial["file"], THRESHOLD) or fails(trial["simulated"], KEPT)


@pytest.mark.parametrize("name", ["scores not scaled", "positions off by one", "words' mask ignored"])
def test_a_detectable_fault_is_caught_in_every_target(
    name: str, files: Mapping[Subject, ExportedFile], checkpoint: Checkpoint
) -> None:
    found = weight_fault_trial(checkpoint, BY_NAME[name], files)["found"]
    caught = {subject for subject, (effect, *outcome) in found.items() if fails(tuple(outcome), THRESHOLD)}
    owed = {subject for subject, (effect, *_) in found.items() if effect >= DETECTABLE}
    assert len(owed) >= 5
    assert owed <= caught


def test_a_fault_below_the_noise_is_not_told_from_it(
    files: Mapping[Subject, ExportedFile], checkpoint: Checkpoint
) -> None:
    found = weight_fault_trial(checkpoint, BY_NAME["every weight off by 1e-07"], files)["found"]
    effect, score, reason = found["onnx fp16"]
    assert effect < 0.1
    assert not fails((score, reason), THRESHOLD)


def test_an_overflow_is_caught_where_numbers_are_rounded_alone(
    files: Mapping[Subject, ExportedFile], checkpoint: Checkpoint
) -> None:
    found = weight_fault_trial(checkpoint, BY_NAME["an overflow in fp16"], files)["found"]
    assert {name for name, (_, *outcome) in found.items() if fails(tuple(outcome), THRESHOLD)} >= {"onnx fp16"}
    assert not fails(tuple(found["onnx fp32"][1:]), THRESHOLD)


def test_a_fault_of_the_graph_is_the_same_in_both_frameworks(checkpoint: Checkpoint) -> None:
    fault = next(fault for fault in GRAPH_FAULTS if fault.name == "pooler without tanh")
    faulty = copy.deepcopy(checkpoint.module)
    fault.in_torch(faulty)
    effects = checkpoint.effects(checkpoint.faulty_reference(faulty))
    for subject in SUBJECTS[0], SUBJECTS[3]:
        recording = checkpoint.record(faulty_run(checkpoint, subject, faulty, fault))
        score, _ = worst_of(checkpoint.judge(subject, recording))
        assert score == pytest.approx(effects[subject], rel=0.01)
        assert score > DETECTABLE


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    log = Log(tmp_path, "one")
    log.add("trial", seed=1)
    with log.path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "trial", "se')
    again = Log(tmp_path, "one")
    assert again.has("trial", seed=1)
    assert not again.has("trial", seed=2)
    again.add("trial", seed=2)
    assert [row["seed"] for row in read_rows(tmp_path)] == [1, 2]


def test_alarms_and_missed_faults_are_counted() -> None:
    names = [subject.name for subject in SUBJECTS]
    sound = {
        "kind": "trial",
        "architecture": ARCHITECTURE.name,
        "scores": {n: [1.0, None] for n in names},
        "pairs": {"a | b": 1.0},
    }
    alarm = {**sound, "scores": {n: [9.0, None] for n in names}}
    missed = {"kind": "fault", "fault": "f", "place": "graph", "found": {n: [30.0, 2.0, None] for n in names}}
    swap = {"kind": "swap", "architecture": ARCHITECTURE.name, "differences": dict.fromkeys(names, 0.0)}
    int8 = [
        {"kind": "int8", "file": [file, None], "simulated": [simulated, None]}
        for file, simulated in ((2.0, 2.0), (9.0, 3.0), (9.0, 9.0))
    ]
    results = summarise([swap, *[sound] * 99, alarm, missed, *int8])
    assert results["int8"]["kept"]["trials"] == 2 and results["int8"]["kept"]["alarms"] == 1
    assert results["int8"]["lost"]["trials"] == 1 and results["int8"]["near_the_limit"]["trials"] == 0
    subject = results["subjects"]["onnx fp32"]
    assert (subject["trials"], subject["alarms"], subject["detectable"], subject["detectable_caught"]) == (100, 1, 1, 0)
    assert subject["false_alarm_bound"] == pytest.approx(0.0466, abs=1e-3)
    assert "| onnx fp32 | 100 | 1 |" in page(results)
    picture = ElementTree.fromstring(curves(results))
    assert sum(part.tag.endswith("polyline") for part in picture.iter()) == 4 * len(names)
    assert json.loads(one_line_each(results)) == results


def test_no_alarm_in_three_thousand_bounds_the_rate_by_the_rule_of_three() -> None:
    assert upper_bound(0, 3000) == pytest.approx(3 / 3000, rel=0.01)


def test_there_are_enough_kinds_of_fault_and_few_architectures() -> None:
    assert len({fault.name for fault in (*FAULTS, *GRAPH_FAULTS)}) == len(FAULTS) + len(GRAPH_FAULTS) >= 24
    assert len(ARCHITECTURES) <= 20
    assert sum(architecture.trials for architecture in ARCHITECTURES) >= 3000
    assert {architecture.task for architecture in ARCHITECTURES} == {
        "model",
        "pretraining",
        "question-answering",
        "nlvr2",
    }


def test_a_checkpoint_is_the_same_for_the_same_seed() -> None:
    narrow = replace(ARCHITECTURE, trials=1)
    one, other = drawn_state(narrow, 3), drawn_state(narrow, 3)
    assert all(one[name].equal(other[name]) for name in one)


def test_floors_of_correct_checkpoints_are_small_shares_and_those_with_noise_are_not() -> None:
    assert {float(t.abs().max()) for name, t in drawn_state(WITHOUT_BIASES, 1).items() if name.endswith(".bias")} == {
        0.0
    }
    found: Shares = {}
    noisy: Shares = {}
    measure(WITHOUT_BIASES, 1, found, noisy)
    assert {precision for precision, _ in found} == {"fp32", "fp16", "bf16", "fp16 weights"}
    for (precision, family), (share,) in found.items():
        limit = largest_share(precision.split()[0], masked_rows=family == "masked-row")
        assert share < limit / 3, (precision, family)
    assert min(share for (_, family), (share,) in noisy.items() if family != "masked-row") > largest_share(
        "fp32", masked_rows=False
    )
