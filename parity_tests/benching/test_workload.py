"""The workload: what its file says is what is asked, padding is counted, and a bad file is one line."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lxmert_export.artifact.directory import Artifact
from lxmert_export.benching.contest import Method, run_bench
from lxmert_export.benching.contestants import artifact_contestants
from lxmert_export.benching.report import SCHEMA
from lxmert_export.benching.settings import Setting
from lxmert_export.benching.workload import (
    Questions,
    Workload,
    check_workload,
    padded_batches,
    read_workload,
    unique_shapes,
)
from lxmert_export.errors import InputError
from lxmert_export.files.json_files import check_schema
from lxmert_export.runners.batches import sorted_batches
from parity_tests.benching.planted import planted
from parity_tests.fixtures.command import ROOT
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY

FILE = ROOT / "benchmarks" / "workload.json"
SMALL = Workload(0, 11, 2.2, 3, {2: 1, 5: 6, 9: 3, 14: 1}, baseline_batch=4, baseline_tokens=16)


@pytest.fixture
def graph(exports: Exports) -> Artifact:
    return exports.lively("onnx", "question-answering", TINY)


@pytest.mark.quick
def test_the_committed_workload_is_what_every_issue_speaks_of() -> None:
    workload = read_workload(FILE)
    lengths = workload.question_lengths
    assert (workload.objects, workload.questions_an_image, len(lengths)) == (36, 5.4, 864)
    assert lengths.mean() == 9.0 and (lengths.min(), lengths.max()) == (5, 20)
    assert Counter(lengths.tolist()) == workload.lengths
    assert workload.images == 160 and set(Counter(workload.image_of.tolist()).values()) == {5, 6}
    assert (workload.baseline_batch, workload.baseline_tokens) == (32, 20)


@pytest.mark.quick
def test_padding_is_what_the_plans_say() -> None:
    """The usual loop computes 20 tokens a question of 9; sorted by length, ours computes fewer than 11."""
    workload = read_workload(FILE)
    lengths = workload.question_lengths
    usual, ours = padded_batches(lengths, 32, 20), sorted_batches(lengths, 32, {}, 512)
    for batches in (usual, ours):
        assert len(batches) == 27
        assert sorted(number for batch in batches for number in batch.questions) == list(range(864))
    assert sum(batch.padded_tokens for batch in usual) == 864 * 20
    assert sum(batch.padded_tokens for batch in ours) == 9216
    assert all(batch.text % 4 == 0 and max(lengths[list(batch.questions)]) <= batch.text for batch in ours)
    assert len(unique_shapes(ours)) == len({batch.shape for batch in ours}) < 6


@pytest.mark.quick
def test_fixed_sizes_fill_rows_and_tokens() -> None:
    lengths = SMALL.question_lengths
    batches = sorted_batches(lengths, 32, {"batch": 4, "text": 14}, 32)
    assert [batch.shape for batch in batches] == [(4, 14)] * 3
    assert [(len(batch.questions), batch.filled) for batch in batches] == [(4, 0), (4, 0), (3, 1)]


@pytest.mark.quick
def test_padding_ends_with_the_position_table() -> None:
    """A network of 14 positions takes a question of 14 tokens, though 16 is the next multiple of 4."""
    batches = sorted_batches(SMALL.question_lengths, 3, {}, 14)
    assert max(batch.text for batch in batches) == 14 and {batch.text % 4 for batch in batches[:-1]} == {0}


@pytest.mark.quick
def test_a_histogram_is_scaled_to_the_number_of_questions() -> None:
    doubled = replace(SMALL, questions=22)
    assert Counter(doubled.question_lengths.tolist()) == {2: 2, 5: 12, 9: 6, 14: 2}
    third = replace(
        SMALL, questions=4
    )  # shares 0.36, 2.18, 1.09, 0.36: the largest remainder, and of equal ones the shortest
    assert Counter(third.question_lengths.tolist()) == {2: 1, 5: 2, 9: 1}
    assert len(replace(SMALL, questions=1).question_lengths) == 1


def test_a_question_is_the_same_in_every_batch(graph: Artifact) -> None:
    questions = Questions(SMALL, graph.manifest)
    lengths = SMALL.question_lengths
    seen: dict[int, dict[str, Any]] = {}
    for batch in (*padded_batches(lengths, 4, 16), *sorted_batches(lengths, 3, {}, 32)):
        inputs = questions.inputs(batch)
        for row, number in enumerate(batch.questions):
            own = {name: array[row] for name, array in inputs.items()}
            length = lengths[number]
            assert own["attention_mask"].sum() == length and (own["input_ids"][:length] > 0).all()
            assert not own["input_ids"][length:].any()
            own["input_ids"] = own["input_ids"][:length]
            known = seen.setdefault(number, own)
            assert all(np.array_equal(known[n], own[n]) for n in ("input_ids", "visual_feats", "visual_pos"))
    images = SMALL.image_of
    assert np.array_equal(seen[0]["visual_feats"], seen[1]["visual_feats"]) and images[0] == images[1]
    assert not np.array_equal(seen[0]["visual_feats"], seen[10]["visual_feats"])


def test_all_answer_the_workload_and_the_baseline_is_the_one_that_pads(graph: Artifact) -> None:
    manifest = graph.manifest
    ours = planted("ours", manifest.signature, manifest.limits)
    usual = replace(planted("usual", manifest.signature, manifest.limits), kind="peer", pads_to=16)
    other = planted("wrong", manifest.signature, manifest.limits, "other answers")
    method = Method(rounds=1, warm_up=1, rest=0.5, threads=1, time_limit=60, workload_batch=3, passes=2)
    rests: list[float] = []
    report = run_bench([ours, usual, other], [Setting(2, 5, 3)], manifest, method, workload=SMALL, sleep=rests.append)
    found = report.to_dict()
    check_schema(found, SCHEMA)
    ran = found["workload"]
    assert (ran["baseline"], ran["questions"], ran["images"], ran["tokens"]) == ("usual", 11, 5, 73)
    by_name = {result["contestant"]: result for result in ran["results"]}
    assert by_name["ours"]["plan"] == "batches of 3, sorted by length, padded to a multiple of 4"
    assert by_name["usual"]["plan"] == "batches of 4, padded to 16 tokens"
    assert (by_name["ours"]["calls"], by_name["usual"]["calls"]) == (4, 3)
    assert (by_name["ours"]["padded_tokens"], by_name["usual"]["padded_tokens"]) == (116, 176)
    assert all(len(result["pass_seconds"]) == 2 for result in ran["results"])
    assert by_name["usual"]["speed"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert len(rests) == 4 + 2 * (4 + 3 + 4)  # one round of three and the matrix product; two passes
    assert [result["agreement"]["agrees"] for result in ran["results"]] == [True, True, False]
    assert ("wrong", "the workload") in [(name, where) for name, where, _ in report.disagreeing]


@pytest.mark.parametrize("task", ["question-answering", "nlvr2"])
@pytest.mark.parametrize("fixed", [None, {"batch": 2, "text": 14, "objects": 3}])
def test_a_split_artifact_computes_every_image_once(task: Any, fixed: Any, exports: Exports) -> None:
    whole = exports.lively("onnx", task, TINY)
    split = exports.lively("onnx", task, TINY, split=True, **({"fixed": fixed} if fixed else {}))
    contestants = [
        replace(one, name=name)
        for name, one in zip(("whole", "split"), artifact_contestants([whole.path, split.path]), strict=True)
    ]
    method = Method(rounds=1, warm_up=1, rest=0.0, threads=1, time_limit=60, workload_batch=3, passes=2)
    report = run_bench(
        contestants,
        [Setting(2, 5, 3)] if not fixed else [],
        whole.manifest,
        method,
        workload=SMALL,
        sleep=lambda seconds: None,
    )
    assert report.workload is not None and not report.disagreeing
    one, two = report.workload.results
    rows = 2 if fixed else 3
    images, questions = -(-SMALL.images // rows), -(-SMALL.questions // rows)
    assert two.plan.startswith(f"{SMALL.images} images first, then batches of {rows}, sorted by length")
    assert (one.calls, two.calls) == (-(-SMALL.questions // 3), images + questions)
    assert two.agreement.agrees


@pytest.mark.quick
@pytest.mark.parametrize(
    ("change", "saying"),
    [
        ({"questions": 0}, "is no workload: questions is 0"),
        ({"lengths": {}}, "its questions are none"),
        ({"lengths": {"21": 1}}, "its questions are longer than the baseline's 20 tokens"),
        ({"lengths": {"x": 1}}, "is no workload: "),
        ({"format": 2}, "is no workload: format"),
        ({"more": 1}, "is no workload: "),
        ({"questions_an_image": 0.5}, "is no workload: questions_an_image"),
    ],
)
def test_a_bad_workload_is_one_line(change: dict[str, Any], saying: str, tmp_path: Path) -> None:
    values = json.loads(FILE.read_text(encoding="utf-8"))
    (tmp_path / "bad.json").write_text(json.dumps({**values, **change}), encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.json: ") as told:
        read_workload(tmp_path / "bad.json")
    assert saying in str(told.value)


@pytest.mark.parametrize(
    ("change", "saying"),
    [
        ({"baseline_tokens": 40}, "its position table ends at 32, and the workload pads to 40 tokens"),
        ({"questions": 10**6, "objects": 1000}, "the workload's images would hold"),
        ({"baseline_batch": 10**7}, "a call of the workload would hold"),
    ],
)
def test_an_artifact_that_cannot_take_it_is_named(change: dict[str, Any], saying: str, graph: Artifact) -> None:
    with pytest.raises(InputError, match=saying):
        check_workload(replace(SMALL, **change), [graph], 32)


def test_fixed_axes_that_do_not_fit_are_named(exports: Exports) -> None:
    fixed = exports.lively("onnx", "question-answering", TINY, fixed={"batch": 2, "text": 5}, parity=False)
    with pytest.raises(InputError, match="its text axis is fixed to 5, and a question of the workload has 14 tokens"):
        check_workload(SMALL, [fixed], 32)
