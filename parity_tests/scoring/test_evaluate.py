"""`lxmert-export evaluate` on files: the JSON contract, the reports, the gate's exit code, and errors in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from playwright.sync_api import Browser, expect

import lxmert_export as lx
from lxmert_export.errors import InputError
from lxmert_export.files.json_files import check_schema
from lxmert_export.scoring.pages.html import evaluation_page
from lxmert_export.scoring.pages.markdown import markdown_page
from lxmert_export.scoring.report import SCHEMA
from parity_tests.fixtures.command import refused, run
from parity_tests.fixtures.golden_files import GOLDEN
from parity_tests.reports.browser import DESKTOP, PHONE, started

SCORES = GOLDEN / "scores"
VQA = ("--questions", str(SCORES / "vqa/questions.json"), "--annotations", str(SCORES / "vqa/annotations.json"))
NASTY = "<script>window.hacked = true</script> | {{verdict}} & *"
NAMES = {
    "vqa": {"overall", "by_question_type", "by_answer_type"},
    "gqa": {
        "accuracy", "binary", "open", "consistency", "validity", "plausibility", "distribution", "by_structural_type",
        "by_semantic_type", "by_steps", "by_words",
    },
    "nlvr2": {"accuracy", "consistency"},
}  # fmt: skip
CALLS = {
    "vqa": ("vqa/results.json", *VQA),
    "gqa": (
        "gqa/predictions.json", "--questions", str(SCORES / "gqa/questions.json"), "--choices",
        str(SCORES / "gqa/choices.json"),
    ),
    "nlvr2": ("nlvr2/predictions.csv", "--questions", str(SCORES / "nlvr2/labels.jsonl")),
}  # fmt: skip


def changed(folder: Path, name: str, change: dict[int, str]) -> Path:
    """The recorded answers with some changed, by their place in the file."""
    values = json.loads((SCORES / "vqa/results.json").read_text())
    for place, answer in change.items():
        values[place]["answer"] = answer
    (folder / name).write_text(json.dumps(values))
    return folder / name


@pytest.mark.quick
@pytest.mark.parametrize("dataset", CALLS)
def test_the_json_is_what_others_call(dataset: str, tmp_path: Path) -> None:
    answers, *arguments = CALLS[dataset]
    done = run("evaluate", str(SCORES / answers), *arguments, "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (runner,) = report["runners"]
    assert runner["name"] == str(SCORES / answers) and set(runner["scores"]) == NAMES[dataset]
    official = json.loads((SCORES / dataset / "official.json").read_text())
    if dataset == "vqa":
        assert runner["scores"]["overall"] == official["accuracy"]["overall"]
        assert runner["questions"] == official["perQuestion"]
    else:
        scale = 100 if dataset == "nlvr2" else 1
        assert {name: runner["scores"][name] for name in official if name != "per"} == {
            name: scale * value for name, value in official.items() if name != "per"
        }
    jsonschema.Draft202012Validator(json.loads(files("lxmert_export").joinpath(SCHEMA).read_text("utf-8"))).validate(
        report
    )
    check_schema(report, SCHEMA)


@pytest.mark.quick
def test_the_gate_fails_with_3_and_every_report_says_why(tmp_path: Path) -> None:
    worse = changed(tmp_path, "worse.json", dict.fromkeys(range(40), "dog"))
    written = {kind: tmp_path / f"report.{kind}" for kind in ("json", "junit", "markdown", "html")}
    paths = [text for kind, path in written.items() for text in (f"--{kind}", str(path))]
    done = run(
        "evaluate", str(SCORES / "vqa/results.json"), str(worse), *VQA, "--max-drop", "0.3", *paths, cwd=tmp_path
    )
    assert done.returncode == 3 and done.stdout == ""
    told = "points less than"
    assert told in " ".join(done.stderr.split())
    report = json.loads(written["json"].read_text())
    assert not report["passed"] and told in report["summary"]
    check_schema(report, SCHEMA)
    suites = ElementTree.parse(written["junit"]).getroot()
    assert (suites.get("tests"), suites.get("failures")) == ("3", "1")
    failure = suites.find(".//failure")
    assert failure is not None and "16001 | 103 | question 15?" in str(failure.text)
    assert (
        "❌ Evaluation FAILED" in written["markdown"].read_text()
        and "| 16001 | 103 |" in written["markdown"].read_text()
    )
    assert "Evaluation FAILED" in written["html"].read_text()
    kept = run("evaluate", str(SCORES / "vqa/results.json"), str(worse), *VQA, "--max-drop", "20", cwd=tmp_path)
    assert kept.returncode == 0, kept.stderr


@pytest.mark.quick
def test_junits_names_stay_the_same_when_figures_change(tmp_path: Path) -> None:
    """CI systems follow a case by its name."""
    names = []
    for answer in ("dog", "cat"):
        other = changed(tmp_path, "other.json", dict.fromkeys(range(40), answer))
        run("evaluate", str(SCORES / "vqa/results.json"), str(other), *VQA, "--junit", "j.xml", cwd=tmp_path)
        names.append([case.get("name") for case in ElementTree.parse(tmp_path / "j.xml").getroot().iter("testcase")])
    assert names[0] == names[1] and len(names[0]) == 3


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.json", *VQA), "none.json: the answers cannot be read: No such file or directory"),
        ((str(SCORES / "vqa/results.json"), *VQA[:2]), "there are no true answers to score by"),
        ((str(SCORES / "vqa/results.json"), *VQA, "--max-drop", "1"), "--max-drop: needs a second set of answers"),
        ((str(SCORES / "vqa/results.json"), *VQA, "--max-drop", "nan"), "--max-drop: takes points, 0 or more, not nan"),
        ((str(SCORES / "vqa/results.json"), *VQA, "--choices", "c"), "--choices: is for GQA's questions as published"),
        ((str(SCORES / "gqa/predictions.json"), *VQA), "does not answer 400 of the 400 questions of"),
        ((*VQA,), "nothing to evaluate: give a file of answers"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    refused(run("evaluate", *arguments, cwd=tmp_path), message)


@pytest.mark.quick
def test_no_report_replaces_what_is_read(tmp_path: Path) -> None:
    answers, questions = changed(tmp_path, "answers.json", {}), tmp_path / "questions.json"
    questions.write_bytes((SCORES / "vqa/questions.json").read_bytes())
    before = {path: path.read_bytes() for path in (answers, questions)}
    for path, flag in ((answers, "--json"), (questions, "--html")):
        done = run("evaluate", str(answers), "--questions", str(questions), *VQA[2:], flag, str(path), cwd=tmp_path)
        refused(done, f"{path}: the report cannot be written: it is what is read; name another place")
    assert before == {path: path.read_bytes() for path in (answers, questions)}


def test_choices_of_another_split_are_told(tmp_path: Path) -> None:
    (tmp_path / "choices.json").write_text('{"1": {"valid": ["a"], "plausible": ["b"]}}')
    with pytest.raises(InputError, match="has no choices for 232 of the questions of .*; give those of the same split"):
        lx.evaluate(
            [SCORES / "gqa/predictions.json"],
            questions=SCORES / "gqa/questions.json",
            choices=tmp_path / "choices.json",
        )


@pytest.mark.quick
def test_python_takes_a_list_of_places() -> None:
    with pytest.raises(InputError, match="runners: takes a list of files"):
        lx.evaluate("a.json", questions="q.json")  # type: ignore[arg-type]


def nasty_report(folder: Path) -> dict[str, Any]:
    """A report of two sets of answers, in which every text is made to break a page."""
    asked = [{"id": f"{NASTY} {n}", "image": NASTY, "question": NASTY, "answer": "yes"} for n in range(30)]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, asked)))
    for name, wrong in (("first", 3), ("second", 9)):
        rows = [{"id": one["id"], "answer": NASTY if n < wrong else "yes"} for n, one in enumerate(asked)]
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    report = lx.evaluate([folder / "first", folder / "second"], questions=folder / "questions.jsonl", max_drop=5)
    return report.to_dict()


@pytest.mark.quick
def test_markdown_fits_a_step_and_keeps_text(tmp_path: Path) -> None:
    report = nasty_report(tmp_path)
    page = markdown_page(report)
    assert "<script>" not in page and r"\*" in page
    short = markdown_page(report, most_bytes=2000)
    assert len(short.encode()) <= 2000 and "Cut, because they do not fit" in short


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as launched:
        yield launched


@pytest.mark.browser
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_renders_in_silence_and_text_stays_text(browser: Browser, tmp_path: Path, viewport: Any) -> None:
    (tmp_path / "page.html").write_text(evaluation_page(nasty_report(tmp_path)), encoding="utf-8")
    page, complaints = browser.new_page(viewport=viewport), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if not request.url.startswith("file:") else None)
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.locator(".verdict.FAIL")).to_contain_text("20.00 points less than")
    assert page.evaluate("window.hacked") is None
    wide = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    assert len(set(page.evaluate(wide))) == 1, "the page scrolls sideways"
    assert page.locator("table").nth(1).locator("tbody td").first.inner_text() == "−20.00"
    assert NASTY in page.locator("table").last.inner_text()
    assert [one for one in complaints if not one.startswith("data:")] == []
    page.close()
