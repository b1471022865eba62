"""A run that was stopped goes on where it stopped: the same bytes, nothing lost, nothing twice, nothing of other inputs."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import lxmert_export as lx
from lxmert_export.artifact.directory import Artifact
from lxmert_export.data.pictures import PictureSource
from lxmert_export.errors import ArtifactError
from lxmert_export.files import atomic_files
from lxmert_export.predicting import parts as parts_module
from lxmert_export.predicting import plan, prediction
from lxmert_export.predicting.job import Job
from lxmert_export.predicting.plan import Shard
from lxmert_export.predicting.prediction import answer_here
from lxmert_export.predicting.shard_runner import Answered
from parity_tests.fixtures.command import refused, run
from parity_tests.fixtures.exports import Exports
from parity_tests.predicting.question_set import write_set

STATE = ".answers.jsonl.predicting"


class Stopped(BaseException):
    """As an interrupt."""


class Case:
    """A set, an artifact, and what an undisturbed run writes."""

    def __init__(self, folder: Path, artifact: Artifact) -> None:
        self.folder, self.artifact = folder, artifact
        self.features, self.questions = write_set(folder)
        self.output = folder / "answers.jsonl"
        lx.predict(artifact.path, self.features, self.questions, folder / "undisturbed.jsonl")
        self.undisturbed = (folder / "undisturbed.jsonl").read_bytes()
        self.answered: list[int] = []

    def predict(self, *, stop_after: int | None = None, **options: Any) -> lx.Predicted:
        """Runs, and notes the shards that are answered; after ``stop_after`` of them it is interrupted."""
        self.answered = []

        def engine(job: Job, artifact: Artifact, source: PictureSource, shards: Iterable[Shard]) -> Iterator[Answered]:
            for answered in answer_here(job, artifact, source, shards):
                if len(self.answered) == stop_after:
                    raise Stopped
                self.answered.append(answered.number)
                yield answered

        with mock.patch("lxmert_export.api.predict.answer_here", engine):
            return lx.predict(self.artifact.path, self.features, self.questions, self.output, **options)

    @property
    def left(self) -> list[str]:
        """The names in the directory of the unfinished run."""
        return sorted(entry.name for entry in (self.folder / STATE).iterdir())


@pytest.fixture
def case(exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(plan, "QUESTIONS", 24)
    monkeypatch.setattr(plan, "LOOKS", 7)
    return Case(tmp_path, exports.answering("onnx"))


def test_only_what_is_missing_is_answered_and_the_bytes_are_the_same(case: Case) -> None:
    with pytest.raises(Stopped):
        case.predict(stop_after=2)
    assert case.left == ["lock", "part-000000", "part-000001", "plan.json"] and not case.output.exists()
    with pytest.raises(Stopped):
        case.predict(stop_after=1)
    assert case.answered == [2]
    done = case.predict()
    assert case.answered == list(range(3, 3 + len(case.answered))) and case.answered and done.resumed > 24
    assert case.output.read_bytes() == case.undisturbed and not (case.folder / STATE).exists()


def test_a_run_that_has_answered_nothing_leaves_nothing(case: Case) -> None:
    with pytest.raises(Stopped):
        case.predict(stop_after=0)
    assert not list(case.folder.glob(".*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "lengths", "of another shard", "unreadable", "temporary"])
def test_a_damaged_part_is_answered_again(damage: str, case: Case) -> None:
    with pytest.raises(Stopped):
        case.predict(stop_after=3)
    part = case.folder / STATE / "part-000001"
    content = part.read_bytes()
    if damage == "cut":
        part.write_bytes(content[:-7])
    elif damage == "flipped":
        part.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    elif damage == "lengths":  # of the records: the same bytes, cut elsewhere
        lengths = re.search(rb'"bytes": \[(\d+), (\d+)', content)
        assert lengths is not None
        other = b'"bytes": [%d, %d' % (int(lengths[1]) - 1, int(lengths[2]) + 1)
        part.write_bytes(content.replace(lengths[0], other))
    elif damage == "of another shard":
        part.write_bytes((case.folder / STATE / "part-000000").read_bytes())
    elif damage == "unreadable":
        part.write_bytes(b"\xff{")
    else:  # killed before it was renamed
        part.rename(part.with_name("part-000001.soon"))
    case.predict()
    assert case.answered[0] == 1 and 0 not in case.answered and 2 not in case.answered
    assert case.output.read_bytes() == case.undisturbed


@pytest.mark.parametrize(
    "what", ["questions", "features", "artifact", "ids numbers, now texts", "top 5, now 3", "batch 32, now 8"]
)
def test_what_a_run_of_other_inputs_left_is_never_mixed_in(what: str, case: Case, exports: Exports) -> None:
    with pytest.raises(Stopped):
        case.predict(stop_after=2)
    options: dict[str, Any] = {}
    if what == "questions":
        content = json.loads(case.questions.read_text())
        content["questions"][5]["question"] += " or not?"
        case.questions.write_text(json.dumps(content))
    elif "ids" in what:
        content = json.loads(case.questions.read_text())
        for question in content["questions"]:
            question["question_id"] = str(question["question_id"])
        case.questions.write_text(json.dumps(content))
    elif what == "features":
        os.utime(case.features, (1, 1))
    elif what == "artifact":
        case.artifact = exports.answering("onnx", split=True)
    else:
        options = {"top": 3} if "top" in what else {"batch": 8}
    before = case.left
    with pytest.raises(
        ArtifactError, match=f"is of an unfinished run of other inputs: {what}; overwrite=True removes it"
    ):
        case.predict(**options)
    assert case.left == before and case.answered == []
    case.predict(**options, overwrite=True)
    assert case.answered[0] == 0 and not (case.folder / STATE).exists()


def test_parts_of_another_plan_are_not_taken_even_if_somebody_copies_them(case: Case) -> None:
    with pytest.raises(Stopped):
        case.predict(stop_after=3, top=4)
    kept = {name: (case.folder / STATE / name).read_bytes() for name in case.left if name.startswith("part")}
    with pytest.raises(Stopped):
        case.predict(stop_after=1, overwrite=True)
    for name, content in kept.items():
        (case.folder / STATE / name).write_bytes(content)
    case.predict()
    assert case.answered[0] == 0 and case.output.read_bytes() == case.undisturbed


def test_two_runs_do_not_write_the_same_output(case: Case) -> None:
    def engine(*_: Any) -> Iterator[Answered]:
        done = run(
            "predict", str(case.artifact.path), "--features", str(case.features), "--questions", str(case.questions),
            "-o", str(case.output), cwd=case.folder,
        )  # fmt: skip
        refused(done, "another run is answering into it: wait for it, or choose another output (-o)")
        raise Stopped
        yield

    with mock.patch("lxmert_export.api.predict.answer_here", engine), pytest.raises(Stopped):
        lx.predict(case.artifact.path, case.features, case.questions, case.output)
    case.predict()
    assert case.output.read_bytes() == case.undisturbed


def test_a_full_disk_is_one_line_and_what_is_answered_is_kept(case: Case) -> None:
    write = atomic_files.replace_file

    def full(file: Path, content: bytes) -> None:
        if file.name == "part-000002":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, content)

    with mock.patch.object(parts_module, "replace_file", full):
        done = run(
            "predict", str(case.artifact.path), "--features", str(case.features), "--questions", str(case.questions),
            "-o", str(case.output), cwd=case.folder,
        )  # fmt: skip
    refused(
        done, f"cannot be written: No space left on device; 38 of 90 answers are kept in {STATE} beside it: the same"
    )
    case.predict()
    assert case.answered[0] == 2 and case.output.read_bytes() == case.undisturbed


def test_a_disk_that_is_full_at_the_end_keeps_all_answers(case: Case) -> None:
    with (
        mock.patch.object(
            prediction, "appearing_together", side_effect=OSError(errno.ENOSPC, "No space left on device")
        ),
        pytest.raises(ArtifactError, match="all answers are kept in"),
    ):
        case.predict()
    case.predict()
    assert case.answered == [] and case.output.read_bytes() == case.undisturbed


def test_an_output_that_is_there_is_kept_unless_it_is_to_be_replaced(case: Case) -> None:
    case.output.write_text("mine\n")
    with pytest.raises(ArtifactError, match="exists already; overwrite=True replaces it"):
        case.predict()
    assert case.output.read_text() == "mine\n" and case.answered == []
    with pytest.raises(Stopped):
        case.predict(stop_after=1, overwrite=True)
    with pytest.raises(ArtifactError, match="exists already"):
        case.predict()
    assert case.output.read_text() == "mine\n"
    case.predict(overwrite=True)
    assert 0 not in case.answered and case.output.read_bytes() == case.undisturbed


@pytest.mark.parametrize("when", ["before removing", "while removing"])
def test_a_run_that_was_killed_at_its_very_end_is_finished(when: str, case: Case) -> None:
    with mock.patch.object(parts_module, "_clear"):
        case.predict()
    assert (case.folder / STATE / "plan.json").exists() and case.output.read_bytes() == case.undisturbed
    if when == "while removing":  # what is left is no run's: the output is there
        (case.folder / STATE / "plan.json").unlink()
        with pytest.raises(ArtifactError, match="exists already"):
            case.predict()
    else:
        assert case.predict().resumed == 90
    assert case.answered == [] and case.output.read_bytes() == case.undisturbed and not (case.folder / STATE).exists()


def test_an_interrupted_command_keeps_what_it_has(case: Case) -> None:
    """SIGTERM in a process of its own, as a cluster's scheduler sends it."""
    program = (
        "import os, signal, sys\n"
        "from lxmert_export.predicting import plan, parts\n"
        "plan.QUESTIONS, plan.LOOKS = 24, 7\n"
        "keep = parts.Parts.keep\n"
        "def then_stop(self, answered):\n"
        "    keep(self, answered)\n"
        "    if answered.number == 2: os.kill(os.getpid(), signal.SIGTERM)\n"
        "parts.Parts.keep = then_stop\n"
        "from lxmert_export.cli.main import main\n"
        "main()\n"
    )
    command = [
        sys.executable, "-c", program, "predict", str(case.artifact.path), "--features", str(case.features), "--questions",
        str(case.questions), "-o", str(case.output),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 143, ended.stderr
    assert case.left == ["lock", "part-000000", "part-000001", "part-000002", "plan.json"]
    case.predict()
    assert case.answered[0] == 3 and case.output.read_bytes() == case.undisturbed
