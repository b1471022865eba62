"""The steps of action.yml, run as GitHub runs them, on sound artifacts, faulty ones, and hostile inputs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

import lxmert_export as lx
from lxmert_export.artifact.directory import ONNX_DATA_FILE, ONNX_FILE
from parity_tests.faults.onnx_faults import one_weight_changed, plant_in_file
from parity_tests.fixtures.command import run
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.manifests import list_files
from parity_tests.fixtures.random_models import SMALL, lively_inputs, lively_model
from parity_tests.predicting.question_set import write_set

ROOT = Path(__file__).parent.parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
INSTALL, GATE = "Install lxmert-export", "Export and judge"
REPORTS = ("parity.json", "parity.xml", "parity.md", "parity.html", "log.txt")
INPUT = re.compile(r"\$\{\{ inputs\.([a-z-]+) \}\}")


@dataclass(frozen=True)
class Step:
    """What a step left: its exit code, what it printed, and the files that GitHub reads."""

    code: int
    printed: str
    summary: str
    outputs: str

    @property
    def commands(self) -> list[str]:
        """The lines that GitHub takes for commands: not those between stop-commands and its token."""
        found, stopped = [], None
        for line in self.printed.splitlines():
            if stopped:
                stopped = None if line == f"::{stopped}::" else stopped
            elif line.startswith("::stop-commands::"):
                stopped = line.removeprefix("::stop-commands::")
            elif line.startswith("::"):
                found.append(line)
        return found


def run_step(name: str, place: Path, path: Path | None = None, **inputs: str) -> Step:
    """Runs one step in a directory; ``path`` is searched for programs first."""
    step = next(step for step in ACTION["runs"]["steps"] if step.get("name") == name)
    values = {key: given["default"] for key, given in ACTION["inputs"].items()}
    values |= {key.replace("_", "-"): value for key, value in inputs.items()}
    environment = {key: INPUT.sub(lambda found: values[found[1]], value) for key, value in step["env"].items()}
    files = {kind: place / f"github-{kind}" for kind in ("summary", "outputs")}
    for file in files.values():
        file.write_text("")
    script = place / "step.sh"
    script.write_text(step["run"])
    programs = [str(folder) for folder in (path, Path(sys.executable).parent) if folder]
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=place, check=False,
        env={
            **os.environ, **environment, "PATH": os.pathsep.join((*programs, os.environ["PATH"])),
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GITHUB_ACTIONS": "true", "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_STEP_SUMMARY": str(files["summary"]), "GITHUB_OUTPUT": str(files["outputs"]),
        },
    )  # fmt: skip
    return Step(done.returncode, done.stdout, files["summary"].read_text(), files["outputs"].read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a checkpoint, a sound artifact of it, and one with a fault that its own manifest vouches for."""
    place = tmp_path_factory.mktemp("place")
    config = SMALL.replace(l_layers=1, x_layers=1, r_layers=1)
    lx.save_checkpoint(lively_model("question-answering", config), place / "checkpoint")
    lx.export("onnx", place / "checkpoint", place / "sound")
    shutil.copytree(place / "sound", place / "faulty")
    plant_in_file(place / "sound" / ONNX_FILE, place / "faulty" / ONNX_FILE, one_weight_changed)
    list_files(place / "faulty", ONNX_FILE, ONNX_DATA_FILE)
    return place


def test_a_sound_checkpoint_passes(place: Path) -> None:
    done = run_step(
        GATE, place, checkpoint="checkpoint", exports="onnx --fp16\n", artifacts="sound\n", require="onnx", output="passed"
    )  # fmt: skip
    assert done.code == 0, done.printed
    assert (place / "passed" / "artifacts" / "onnx-fp16" / ONNX_FILE).is_file()
    report = check_reports(place / "passed" / "report", done, passed=True)
    assert {facts["name"] for facts in report["runners"]} == {"onnx-fp16", "sound"}
    assert done.commands == [f"::notice title=parity passed::{escaped(report['summary'])}"]


@pytest.mark.parametrize("checkpoint", ["checkpoint", ""], ids=["by-checkpoint", "by-golden-file"])
def test_a_faulty_artifact_fails(place: Path, checkpoint: str) -> None:
    done = run_step(GATE, place, checkpoint=checkpoint, artifacts="faulty", output="failed")
    assert done.code == 3, done.printed
    report = check_reports(place / "failed" / "report", done, passed=False)
    assert report["summary"].startswith("parity FAILED: faulty")
    assert done.commands == [f"::error title=parity failed::{escaped(report['summary'])}"]


def test_what_is_required_and_not_there_fails(place: Path) -> None:
    done = run_step(GATE, place, checkpoint="", artifacts="sound", require="tensorrt", output="required")
    assert done.code == 3, done.printed
    check_reports(place / "required" / "report", done, passed=False)
    assert "tensorrt is required" in done.commands[0]


def test_the_shell_gate_of_the_docs_runs_again_in_its_workspace(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lxmert_export.reference.gate.run_within", lambda request, limit, progress: request.run(progress)
    )
    shown = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```sh\n(.*?)```", shown, re.DOTALL)
    lines = script.replace("\\\n", " ").replace("$CHECKPOINT", str(place / "checkpoint")).splitlines()
    assert lines[0] == "set -eu" and "$" not in script.replace("$CHECKPOINT", "")
    for name in ("onnx", "onnx-fp16"):  # what an earlier run left
        shutil.copytree(place / "sound", tmp_path / "artifacts" / name)
    (tmp_path / "report").mkdir()
    (tmp_path / "last-release.json").write_text(json.dumps(lx.verify(tmp_path / "artifacts" / "onnx").to_dict()))
    np.savez(tmp_path / "val.npz", **{name: tensor.numpy() for name, tensor in lively_inputs(SMALL).items()})
    for line in lines[1:]:
        program, *arguments = shlex.split(line)
        if program == "mkdir":
            (tmp_path / arguments[-1]).mkdir(exist_ok=arguments[0] == "-p")
            continue
        done = run(*arguments, cwd=tmp_path)
        assert program == "lxmert-export" and done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report" / "parity.json").read_text())
    assert report["required"] == ["onnx:fp32", "onnx:fp16"] and not report["regressions"]
    assert {"own", "plain"} <= {cell["family"] for cell in report["cells"]}
    assert {file.name for file in (tmp_path / "report").iterdir()} == set(REPORTS) - {"log.txt"}


def test_artifacts_answer_questions_too(exports: Exports, tmp_path: Path) -> None:
    """The parity gate before it is tested above; here it passes without being run."""
    artifact = exports.answering("onnx")
    features, questions = write_set(tmp_path, questions=20, pictures=5)
    lx.predict(artifact.path, features, questions, tmp_path / "last.json")
    tool = tmp_path / "programs" / "lxmert-export"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\n[ "$1" = parity ] || exec {sys.executable} -m lxmert_export.cli "$@"\n')
    tool.chmod(0o755)
    done = run_step(
        GATE, tmp_path, tool.parent, artifacts=str(artifact.path), questions=str(questions), features=str(features),
        answers="last.json", output="out",
    )  # fmt: skip
    assert done.code == 0, done.printed
    report = tmp_path / "out" / "report"
    assert sorted(file.name for file in report.iterdir()) == sorted(EVALUATED)
    values = json.loads((report / "evaluation.json").read_text())
    assert [one["name"] for one in values["runners"]] == ["last.json", str(artifact.path)]
    assert [one["agreement"] for one in values["comparisons"]] == [100]
    assert done.commands == [f"::notice title=scores passed::{escaped(values['summary'])}"]


VQA = ROOT / "parity_tests/fixtures/golden/scores/vqa"
EVALUATED = ("evaluation.json", "evaluation.xml", "evaluation.md", "evaluation.html", "log.txt")


@pytest.mark.parametrize(("max_drop", "passed"), [("0.3", False), ("20", True), ("", True)])
def test_files_of_answers_are_compared_and_nothing_else_is_run(max_drop: str, passed: bool, tmp_path: Path) -> None:
    answers = json.loads((VQA / "results.json").read_text())
    worse = [{**row, "answer": "dog"} if place < 40 else row for place, row in enumerate(answers)]
    (tmp_path / "worse answers.json").write_text(json.dumps(worse))
    done = run_step(
        GATE, tmp_path, checkpoint="", questions=str(VQA / "questions.json"), annotations=str(VQA / "annotations.json"),
        answers=f"{VQA / 'results.json'}\nworse answers.json\n", max_drop=max_drop, output="out",
    )  # fmt: skip
    assert done.code == (0 if passed else 3), done.printed
    report = tmp_path / "out" / "report"
    assert sorted(file.name for file in report.iterdir()) == sorted(EVALUATED)
    values = json.loads((report / "evaluation.json").read_text())
    assert values["passed"] is passed and values["runners"][1]["name"] == "worse answers.json"
    kind, word = ("notice", "passed") if passed else ("error", "failed")
    assert done.commands == [f"::{kind} title=scores {word}::{escaped(values['summary'])}"]
    assert done.summary == (report / "evaluation.md").read_text() != ""


def check_reports(directory: Path, done: Step, *, passed: bool) -> dict[str, Any]:
    assert sorted(file.name for file in directory.iterdir()) == sorted(REPORTS)
    report: dict[str, Any] = json.loads((directory / "parity.json").read_text())
    assert report["passed"] is passed
    failures = sum(
        int(suite.get("failures", 0)) for suite in ElementTree.parse(directory / "parity.xml").iter("testsuite")
    )
    assert (failures == 0) is passed
    assert done.summary == (directory / "parity.md").read_text() != ""
    name, value, end = done.outputs.splitlines()
    assert (name, value) == (f"report<<{end}", str(directory.relative_to(directory.parent.parent)))
    return report


def escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\n", "%0A")


@pytest.mark.parametrize(
    ("inputs", "code", "saying"),
    [
        ({"exports": ""}, 2, "nothing to judge"),
        ({"exports": "bench --fp16"}, 2, "bench is no conversion"),
        ({"exports": "onnx --fp17"}, 2, "fp17"),
        ({"checkpoint": "gone", "exports": "onnx"}, 1, "gone"),
        ({"artifacts": "gone"}, 1, "gone"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_an_error_is_annotated_with_its_own_line(place: Path, inputs: dict[str, str], code: int, saying: str) -> None:
    before = place / "error" / "report" / "parity.json"  # of an earlier run, which must not speak for this one
    before.parent.mkdir(parents=True, exist_ok=True)
    before.write_text('{"summary": "parity passed"}')
    done = run_step(GATE, place, **{"checkpoint": "checkpoint", "output": "error", **inputs})
    assert done.code == code, done.printed
    (annotation,) = done.commands
    assert annotation.startswith("::error title=parity failed::") and saying in annotation
    assert not before.exists() and done.summary == ""


HOSTILE = (
    "$(touch pwned)",
    "`touch pwned`",
    '"; touch pwned; "',
    "'; touch pwned; '",
    "x\ntouch pwned",
    "x\n::error title=pwned::pwned",
    "--help; touch pwned",
    "$((touch pwned))",
)


SCORING = ("questions", "features", "annotations", "choices", "answers", "max-drop")


@pytest.mark.parametrize("name", ["checkpoint", "exports", "artifacts", "require", "output", *SCORING])
def test_no_input_of_the_gate_is_run_as_code(place: Path, name: str, tmp_path: Path) -> None:
    tool = tmp_path / "programs" / "lxmert-export"  # prints what it was given, so that all of HOSTILE takes a moment
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 1\n')
    tool.chmod(0o755)
    for number, value in enumerate(HOSTILE):
        work = tmp_path / str(number)
        work.mkdir()
        inputs = {"exports": "onnx", name: f"onnx {value}" if name == "exports" else value}
        if name in SCORING:  # without exports, the first thing that is run is the evaluation
            inputs = {"exports": "", "questions": "questions.json", name: value}
        done = run_step(GATE, work, tool.parent, **inputs)
        assert done.code != 0 and not list(tmp_path.rglob("pwned*")), (value, done.printed)
        assert len(done.commands) == 1 and "title=pwned" not in done.commands[0].split("::")[1], done.printed


@pytest.mark.parametrize("name", ["extras", "pip_arguments"])
def test_no_input_of_the_installation_is_run_as_code(name: str, tmp_path: Path) -> None:
    pip = tmp_path / "programs" / "python"
    pip.parent.mkdir()
    pip.write_text('#!/bin/sh\nprintf "<%s>\\n" "$@"\n')
    pip.chmod(0o755)
    for value in HOSTILE:
        done = run_step(INSTALL, tmp_path, pip.parent, **{name: value})
        assert done.code == 0 and not (tmp_path / "pwned").exists(), (value, done.printed)
    done = run_step(
        INSTALL, tmp_path, pip.parent, extras="torch,tflite", pip_arguments="--index-url https://example.org/w"
    )
    assert done.printed.split() == [
        "<-m>", "<pip>", "<install>", "<--constraint>", f"<{ROOT}/constraints.txt>", "<--index-url>",
        "<https://example.org/w>", f"<{ROOT}[torch,tflite]>",
    ]  # fmt: skip


def test_no_script_has_an_input_spliced_in() -> None:
    steps = ACTION["runs"]["steps"]
    assert [step["name"] for step in steps if "run" in step] == [INSTALL, GATE]
    assert not any("${{" in step["run"] for step in steps if "run" in step)
    used = set(INPUT.findall((ROOT / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in steps if "uses" in step)


def blocks(language: str) -> list[str]:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def test_the_documented_workflow_names_inputs_that_exist() -> None:
    whole, scored = blocks("yaml")
    (step,) = [s for s in yaml.safe_load(whole)["jobs"]["parity"]["steps"] if "lxmert-export" in s["uses"]]
    (other,) = yaml.safe_load(scored)
    assert set(step["with"]) | set(other["with"]) <= set(ACTION["inputs"])
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in ACTION["inputs"])
