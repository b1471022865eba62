"""A written report: read back whole, judged again under other thresholds, and held to a baseline."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lxmert_export as lx
from lxmert_export.errors import ArtifactError
from lxmert_export.parity.cells import Cell, judge
from lxmert_export.parity.decisions import Decisions, Tally
from lxmert_export.parity.rejudging import judge_again, read_report, regressions
from lxmert_export.parity.report import LawNotRun, ParityReport, RunnerFacts
from lxmert_export.parity.scores import Floor
from lxmert_export.spec.signature import ANSWER_OUTPUT, task_signature
from parity_tests.fixtures.random_models import SMALL

pytestmark = pytest.mark.quick

PLACE = ("plain", ANSWER_OUTPUT)
FLOORS = {PLACE: Floor(rms=0.1, reference_rms=1000.0, samples=16, values=112)}
SIGNATURE = task_signature(SMALL, "question-answering")


def cell(shift: float) -> Cell:
    reference = np.random.default_rng(0).normal(size=(16, 7))
    got = {PLACE: [(reference + shift).astype(np.float32)]}
    (judged,) = judge("x", got, {PLACE: [reference]}, FLOORS, SIGNATURE, "native", precision="fp32")
    return judged


TALLY = Tally(10, 1, 9, 0, 0, 8, 8)
REPORT = ParityReport(
    (cell(0.2), replace(cell(0.3), against="y", kind="pair")),
    decisions=(Decisions("x", "native", None, 0.5, TALLY, {"color": TALLY}),),
    runners=(
        RunnerFacts("x", "artifact", "onnx", "fp32"),
        RunnerFacts("e", "artifact", "tensorrt", "fp16", "built-not-run", "no GPU"),
    ),
    laws_not_run=(LawNotRun("x", "padding invariance", "fixed axes"),),
    not_run={"x": ("masked-row",)},
)  # fmt: skip


def written(report: ParityReport, path: Path) -> Path:
    path.write_text(json.dumps(report.to_dict(), allow_nan=False))
    return path


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    infinite = replace(cell(0), error_max=float("inf"), score=float("inf"), status="FAIL")
    for report in (REPORT, replace(REPORT, cells=(infinite,))):
        assert read_report(written(report, tmp_path / "report.json")).to_dict() == report.to_dict()


@pytest.mark.parametrize(
    ("edit", "saying"),
    [
        ({"status": "FAIL"}, "its status is FAIL, but its score is 2"),
        ({"score": 9.0}, "its status is pass, but its score is 9, its limit 8"),
        ({"error_rms": 5.0}, "its score 2 is not its error ÷ its floor"),
    ],
)
def test_a_report_that_contradicts_itself(edit: dict[str, Any], saying: str, tmp_path: Path) -> None:
    values = json.loads(written(REPORT, tmp_path / "report.json").read_text())
    values["cells"][0] |= edit
    (tmp_path / "report.json").write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match=f"damaged parity report: the cell of x against float64, .*: {saying}"):
        read_report(tmp_path / "report.json")


def test_a_baseline_of_other_weights_is_told() -> None:
    now, before = (replace(REPORT, provenance={"judged_by": {"sha256": name * 64}}) for name in "ab")
    compared = lx.compare_with_baseline(now, before)
    assert compared.passed and "by another checkpoint (sha256 bbbbbbbbbbbb, not aaaaaaaaaaaa)" in compared.notes[-1]
    assert lx.compare_with_baseline(now, now).notes == now.notes == lx.compare_with_baseline(now, REPORT).notes


def test_other_thresholds_need_no_run(tmp_path: Path) -> None:
    report = read_report(written(REPORT, tmp_path / "report.json"))
    assert report.passed and judge_again(report, None, None) == report
    assert [c.status for c in judge_again(report, 1.0, None).cells] == ["FAIL", "pass"]
    assert [c.status for c in judge_again(report, None, 1.0).cells] == ["pass", "FAIL"]
    broken = replace(report, cells=(replace(report.cells[0], reason="NaN or infinity", score=None, status="FAIL"),))
    assert not judge_again(broken, 1e9, 1e9).passed


@pytest.mark.parametrize(
    ("worse", "saying"),
    [
        (lambda r: replace(r, cells=(cell(0.6), *r.cells[1:])), "score 6 is worse than the baseline's 2 .limit 3"),
        (lambda r: replace(r, cells=r.cells[1:]), "not run here, but run for the baseline"),
        (lambda r: replace(r, cells=(replace(r.cells[0], reason="NaN or infinity"), r.cells[1])), "NaN or infinity is worse"),
        (lambda r: replace(r, decisions=(replace(r.decisions[0], total=replace(TALLY, correct=7)),)), "accuracy 70 % is below"),
        (lambda r: replace(r, decisions=()), "not asked here, but asked for the baseline"),
    ],
    ids=["score", "missing", "nan", "accuracy", "unasked"],
)  # fmt: skip
def test_worse_than_the_last_release_fails(worse: Callable[[ParityReport], ParityReport], saying: str) -> None:
    (line,) = regressions(worse(REPORT), REPORT)
    assert re.search(saying, line), line
    report = replace(worse(REPORT), regressions=(line,))
    assert not report.passed and line in report.to_dict()["regressions"]


def test_a_written_regression_fails_until_a_baseline_is_given_again(tmp_path: Path) -> None:
    worse = replace(REPORT, regressions=("worse",))
    assert not read_report(written(worse, tmp_path / "report.json")).passed
    assert lx.compare_with_baseline(worse, REPORT).passed


def test_a_pair_is_the_same_in_either_order() -> None:
    turned = replace(REPORT, cells=(REPORT.cells[0], replace(REPORT.cells[1], runner="y", against="x")))
    assert regressions(turned, REPORT) == ()


def test_an_infinite_score_is_worse_than_any() -> None:
    endless = replace(REPORT.cells[0], score=None, status="FAIL")
    (line,) = regressions(replace(REPORT, cells=(endless, REPORT.cells[1])), REPORT)
    assert "no finite score is worse" in line


def test_as_good_or_better_is_no_regression() -> None:
    assert regressions(REPORT, REPORT) == ()
    assert regressions(replace(REPORT, cells=(cell(0.25), REPORT.cells[1])), REPORT) == ()  # within the margin
    small = replace(REPORT, cells=(cell(0.001), REPORT.cells[1]))
    assert regressions(replace(REPORT, cells=(cell(0.06), REPORT.cells[1])), small) == ()  # below the noise, both
    with pytest.raises(ArtifactError, match="no cell in common"):
        regressions(replace(REPORT, cells=tuple(replace(c, runner="z") for c in REPORT.cells)), REPORT)


@pytest.mark.parametrize(
    ("damage", "saying"),
    [
        (lambda v: v.update(format=1), "not a parity report of this version"),
        (lambda v: v.pop("cells"), "cells is missing"),
        (lambda v: v["cells"][0].update(colour="red"), "colour"),
        (lambda v: v["runners"][0].pop("target"), "target"),
        (lambda v: v["cells"][0].update(score=None), "score is None, not of type number"),
        (lambda v: v.update(provenance={"judged_by": 1.5}), r"provenance\.judged_by is 1\.5, not of type object"),
        (lambda v: v.update(notes=[1]), r"notes\[0\] is 1, not of type string"),
        (lambda v: v.update(required=[{}]), r"required\[0\] is {}, not of type string"),
    ],
    ids=["format", "cells", "field", "facts", "score", "provenance", "notes", "required"],
)
def test_damaged_reports(tmp_path: Path, damage: Callable[[dict[str, Any]], Any], saying: str) -> None:
    values = json.loads(json.dumps(REPORT.to_dict()))
    damage(values)
    (tmp_path / "report.json").write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match=saying):
        read_report(tmp_path / "report.json")
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        read_report(tmp_path / "report.json")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_report(tmp_path / "none.json")
