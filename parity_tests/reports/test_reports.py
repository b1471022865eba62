"""JSON, JUnit and Markdown: whole, valid, and never more favourable than the report."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from lxmert_export.cli.main import main
from lxmert_export.cli.printing import PARITY_FAILED
from lxmert_export.errors import ArtifactError
from lxmert_export.files.json_schema import first_problem
from lxmert_export.parity.pages.html import html_page
from lxmert_export.parity.pages.junit import junit_xml
from lxmert_export.parity.pages.markdown import MOST_BYTES, markdown_page
from lxmert_export.parity.pages.overview import LAWS, matrix_of
from lxmert_export.parity.pages.writing import check_report_paths, write_reports
from lxmert_export.parity.rejudging import read_report
from lxmert_export.parity.report import FORMAT_VERSION, ParityReport
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.odd_values import changed_values
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.fixtures.sample_reports import NASTY, full_report, nothing_compared, passing_report, unproven_report

pytestmark = pytest.mark.quick

SCHEMA = json.loads(files("lxmert_export").joinpath("parity/report.schema.json").read_text("utf-8"))
KINDS: dict[str, Callable[[], ParityReport]] = {
    "pass": passing_report,
    "full": full_report,
    "nothing": nothing_compared,
    "unproven": unproven_report,
    "missing": lambda: replace(passing_report(), required=("tensorrt",)),
    "infinite": lambda: replace(passing_report(), cells=tuple(
        replace(cell, status="FAIL", score=float("inf"), floor=0.0) for cell in passing_report().cells
    )),
    "exact": lambda: replace(passing_report(), cells=tuple(
        replace(cell, score=0.0, error_rms=0.0, floor=0.0) for cell in passing_report().cells
    )),
    "worse": lambda: replace(passing_report(), regressions=("worse than it was",)),
}  # fmt: skip


def validate(report: Any) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(report)


# JSON


def test_the_schema_is_one_and_of_this_format() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["format"]["const"] == FORMAT_VERSION
    assert SCHEMA["$id"].endswith(f":{FORMAT_VERSION}")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_report_is_what_the_schema_says(kind: str) -> None:
    report = json.loads(json.dumps(KINDS[kind]().to_dict(), allow_nan=False))
    validate(report)
    assert report["passed"] is (kind in ("pass", "exact"))


@pytest.fixture(scope="module")
def artifacts(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    made = {p: exports.lively("onnx", "question-answering", TINY, precision=p) for p in ("fp32", "fp16")}
    return [Path(shutil.copytree(artifact.path, folder / precision)) for precision, artifact in made.items()]


def test_reports_of_real_artifacts_are_what_the_schema_says(artifacts: list[Path]) -> None:
    sound = check_here(artifacts, checkpoint=lively_model("question-answering", TINY))
    assert sound.passed
    validate(sound.to_dict())
    faulty = check_here(artifacts, checkpoint=lively_model("question-answering", TINY, seed=7))
    assert not faulty.passed
    validate(faulty.to_dict())


def test_the_command_writes_all_forms_of_one_report(
    artifacts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = {form: tmp_path / f"report.{form}" for form in ("json", "junit", "markdown", "html")}
    options = [word for form, path in forms.items() for word in (f"--{form}", str(path))]
    monkeypatch.setattr(
        "sys.argv", ["lxmert-export", "parity", *map(str, artifacts), "--require", "tensorrt", *options]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == PARITY_FAILED  # a report that does not pass is written as well
    report = json.loads(forms["json"].read_text("utf-8"))
    validate(report)
    assert report["missing"] == ["tensorrt is required, but no runner of this target was named"]
    assert forms["junit"].read_text("utf-8") == junit_xml(report)
    assert forms["markdown"].read_text("utf-8") == markdown_page(report)
    assert forms["html"].read_text("utf-8") == html_page(report)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("format",), 1),
        (("unknown",), 1),
        (("cells", 0, "score"), None),
        (("cells", 0, "status"), "skipped"),
        (("cells", 0, "figures", "histogram"), [1, 2]),
        (("cells", 0, "floor"), -1.0),
        (("runners", 0, "status"), "passed"),
        (("runners", 0, "bytes"), "5 MB"),
        (("decisions", 0, "accuracy"), 1.5),
        (("decisions", 0, "families", "colours", "unknown"), 1),
        (("divergences", 0, "curve", 0, "layer"), 3),
        (("laws_not_run", 0, "reason"), None),
    ],
)
def test_the_schema_refuses_what_is_not_a_report(where: tuple[str | int, ...], value: Any, tmp_path: Path) -> None:
    report = copy.deepcopy(full_report().to_dict())
    inner: Any = report
    for step in where[:-1]:
        inner = inner[step]
    inner[where[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(report)
    file = tmp_path / "report.json"
    file.write_text(json.dumps(report))
    with pytest.raises(ArtifactError) as refused:
        read_report(file)
    assert where == ("format",) or str(refused.value).startswith(f"{file}: damaged parity report: {_spelled(where)} ")


def _spelled(where: tuple[str | int, ...]) -> str:
    """As an error names a place: ``cells[0].score``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where).lstrip(".")


def test_our_reader_of_schemas_and_jsonschema_agree_on_reports() -> None:
    peer = jsonschema.Draft202012Validator(SCHEMA)
    whole = json.loads(json.dumps(full_report().to_dict()))
    # One of each kind: every place of each is changed.
    small = {name: value[:1] if isinstance(value, list) else value for name, value in whole.items()}
    verdicts = [(first_problem(values, SCHEMA) is None, peer.is_valid(values)) for values in changed_values(small)]
    assert len(verdicts) > 1000 and {verdict for verdict, _ in verdicts} == {True, False}
    assert all(ours == theirs for ours, theirs in verdicts)


# The matrix


def test_the_matrix_has_every_pair_on_both_sides() -> None:
    matrix = matrix_of(full_report().to_dict())
    assert list(matrix.runners) == ["onnx-fp32", "tflite-fp32", "faulty", "engine", NASTY]
    assert matrix.opponents == ("float64", LAWS, *matrix.runners)
    assert matrix.squares["onnx-fp32", "faulty"] == matrix.squares["faulty", "onnx-fp32"]
    assert {cell["runner"] for cell in matrix.squares["onnx-fp32", "onnx-fp32"].cells} == {"onnx-fp32 second"}
    assert matrix.squares["faulty", "float64"].failed and not matrix.squares["onnx-fp32", "float64"].failed
    assert matrix.squares["faulty", LAWS].label == "FAIL"
    assert not [place for place in matrix.squares if "engine" in place]


# JUnit


@pytest.mark.parametrize("kind", KINDS)
def test_junit_fails_exactly_where_the_report_does(kind: str) -> None:
    report = KINDS[kind]()
    root = ElementTree.fromstring(junit_xml(report.to_dict()))
    assert bool(root.findall(".//failure")) is not report.passed
    for suite in root:
        cases = suite.findall("testcase")
        assert suite.get("tests") == str(len(cases)) != "0"
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
        assert suite.get("skipped") == str(len(suite.findall("testcase/skipped")))
        assert all(
            case.get("name") and case.get("classname") == suite.get("name") and case.get("time") for case in cases
        )
        assert len({case.get("name") for case in cases}) == len(cases)
    assert root.get("tests") == str(len(root.findall(".//testcase")))
    assert root.get("failures") == str(len(root.findall(".//failure")))


def test_junit_has_a_case_for_each_cell_and_tells_what_failed() -> None:
    report = full_report()
    root = ElementTree.fromstring(junit_xml(report.to_dict()))
    suites = {suite.get("name"): suite for suite in root}
    assert len(suites["faulty against float64"]) == 6
    missing = suites["faulty against float64"].find("testcase[@name='pooled_output, plain inputs (native)']/failure")
    assert missing is not None and missing.get("message") == "missing output"
    cell = next(c for c in report.cells if c.runner == "faulty" and c.status == "FAIL" and c.score is not None)
    failure = suites[f"faulty against {cell.against}"].find(
        f"testcase[@name='{cell.output}, {cell.family} inputs (native)']/failure"
    )
    assert failure is not None and failure.text is not None
    assert re.search(r"score: [\d.e+]+\nthreshold: 8", failure.text) and "worst input: batch 0" in failure.text


def test_junit_skips_what_was_not_run() -> None:
    root = ElementTree.fromstring(junit_xml(full_report().to_dict()))
    skipped = {
        case.get("name"): case.find("skipped") for case in root.iter("testcase") if case.find("skipped") is not None
    }
    messages = [element.get("message") for element in skipped.values() if element is not None]
    assert len(skipped) == 3 and "built-not-run: no GPU" in messages
    assert "not run: one thread alone" in messages


def test_junit_holds_no_character_that_xml_cannot() -> None:
    text = junit_xml(full_report().to_dict())
    assert "\x1b" not in text and "window.hacked" in text


# Markdown


@pytest.mark.parametrize("kind", KINDS)
def test_markdown_begins_with_the_verdict(kind: str) -> None:
    report = KINDS[kind]()
    page = markdown_page(report.to_dict())
    assert page.startswith("## ✅ Parity passed" if report.passed else "## ❌ Parity FAILED")
    assert ("❌" in page) is not report.passed


def test_markdown_tables_stay_tables() -> None:
    """Every row has as many bars as its heading, whatever is written in it."""
    page = markdown_page(full_report().to_dict())
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
    assert "<script" not in page and "\x1b" not in page
    for told in (
        "built, not run",
        "no GPU",
        "missing output",
        "one thread alone",
        "tensorrt is required",
        "language.1",
    ):
        assert told in page


def test_a_long_markdown_is_cut_and_says_so() -> None:
    report = full_report().to_dict()
    report["cells"] = [{**cell, "output": f"{cell['output']}.{n}"} for n in range(2000) for cell in report["cells"]]
    page = markdown_page(report)
    assert 0.9 * MOST_BYTES < len(page.encode()) <= MOST_BYTES
    assert re.search(r"\*\*Cut, because they do not fit: .*lines of “Worst cells”", page)
    assert page.startswith("## ❌ Parity FAILED")
    assert "Cut, because" not in markdown_page(full_report().to_dict())


# Files


def test_all_forms_are_written_whole(tmp_path: Path) -> None:
    report = full_report().to_dict()
    paths = {form: tmp_path / f"report.{form}" for form in ("json", "junit", "markdown", "html")}
    paths["junit"].write_text("an older one")
    write_reports(report, **paths)
    assert json.loads(paths["json"].read_text("utf-8")) == json.loads(json.dumps(report))
    assert paths["junit"].read_text("utf-8") == junit_xml(report)
    assert paths["markdown"].read_text("utf-8") == markdown_page(report)
    assert paths["html"].read_text("utf-8").endswith("</html>\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths.values())


def test_a_report_goes_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "file.json")
    (tmp_path / "file.json").write_text("an older one")
    write_reports(passing_report().to_dict(), json=tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink() and json.loads((tmp_path / "file.json").read_text())["passed"]


@pytest.mark.parametrize(
    ("path", "told"),
    [(".", "it is a directory"), ("nowhere/report.xml", "there is no directory"), ("same.xml", "two reports")],
)
def test_a_path_that_cannot_be_written_is_told_in_one_line(tmp_path: Path, path: str, told: str) -> None:
    with pytest.raises(ArtifactError, match=told) as caught:
        check_report_paths([tmp_path / "same.xml", None, tmp_path / path])
    assert "\n" not in str(caught.value) and str(tmp_path / path) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ArtifactError, match="the report cannot be written: No space left on device"):
        write_reports(passing_report().to_dict(), html=tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["a.json", "deeper/b.json"])
@pytest.mark.parametrize("failing", range(1, 5))
def test_reports_appear_together_or_not_at_all(
    failing: int, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the four cannot take its place, also if one stands in another directory."""
    (tmp_path / "deeper").mkdir()
    paths = {"json": tmp_path / place, **{form: tmp_path / f"c.{form}" for form in ("junit", "markdown", "html")}}
    paths["html"].write_text("an older one")
    replace, steps = Path.replace, iter(range(1, 100))

    def full(path: Path, target: Path) -> Path:
        if next(steps) == failing:
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ArtifactError, match="the reports cannot be written, so none was: No space left on device"):
        write_reports(full_report().to_dict(), **paths)
    assert {path.name for path in tmp_path.rglob("*")} == {"deeper", "c.html"}
    assert paths["html"].read_text() == "an older one"


def test_two_links_to_one_file_are_two_reports_in_one_file(tmp_path: Path) -> None:
    for name in ("a.json", "b.html"):
        (tmp_path / name).symlink_to(tmp_path / "file")
    with pytest.raises(ArtifactError, match="two reports cannot go into one file"):
        write_reports(passing_report().to_dict(), json=tmp_path / "a.json", html=tmp_path / "b.html")


def test_the_command_tells_a_bad_path_before_it_runs_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "no" / "report.html"
    monkeypatch.setattr("sys.argv", ["lxmert-export", "parity", str(tmp_path / "no-artifact"), "--html", str(page)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert "report.html: the report cannot be written: there is no directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "replaced"),
    [
        ("report.json", b"{}", True),
        ("notes.md", "é".encode() * 3000, True),
        ("empty.xml", b"", True),
        ("weights", b"PK\3\4\0\0", False),
        ("config.json", b"{}", False),
        ("vocab.txt", b"[PAD]", False),
        ("listed.txt", b"of an artifact", False),
    ],
)
def test_a_report_replaces_a_report_and_no_file_of_a_model(
    name: str, content: bytes, replaced: bool, tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text('{"target": "onnx", "files": {"listed.txt": {}}}')
    file = tmp_path / name
    file.write_bytes(content)
    if replaced:
        write_reports(full_report().to_dict(), json=file)
        assert json.loads(file.read_text())["passed"] is False
        return
    with pytest.raises(ArtifactError, match=f"{name}: the report cannot be written: a file that is no report is there"):
        write_reports(full_report().to_dict(), json=file)
    assert file.read_bytes() == content
