"""Scoring answers and comparing who gave them: what ``lxmert-export evaluate`` does, as a function."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lxmert_export.api.predict import BATCH, TIME_LIMIT, EngineName, check_request, engine_of
from lxmert_export.artifact.directory import open_named, split_runtime
from lxmert_export.data.questions.answers import read_answers
from lxmert_export.data.questions.question_set import QuestionSet
from lxmert_export.data.questions.reading import read_questions
from lxmert_export.errors import InputError, as_given
from lxmert_export.judging.artifact import artifact_facts
from lxmert_export.option_names import option
from lxmert_export.predicting.job import answers_of as names_of_answers
from lxmert_export.predicting.prediction import Engine, Request, predict_in_memory
from lxmert_export.progress import Progress, silent
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.opening import answering_way, check_answers
from lxmert_export.scoring.evaluation import AnswerSet, check_sets, evaluate_answers
from lxmert_export.scoring.official import scorer_of
from lxmert_export.scoring.report import EvaluationReport


def evaluate(
    runners: Sequence[str | Path],
    *,
    questions: str | Path,
    features: str | Path | None = None,
    annotations: str | Path | None = None,
    choices: str | Path | None = None,
    dataset: str | None = None,
    boxes: str | None = None,
    max_drop: float | None = None,
    skip_missing: bool = False,
    batch: int = BATCH,
    threads: int | None = None,
    providers: Sequence[str] = (CPU,),
    engine: EngineName = "local",
    workers: int | None = None,
    time_limit: float = TIME_LIMIT,
    progress: Progress = silent,
) -> EvaluationReport:
    """Scores answers as the official programs do, and compares every other set with the first, question by question.

    | parameter | meaning |
    |---|---|
    | ``runners`` | files of answers, and artifacts (ARTIFACT or ARTIFACT@RUNTIME), which answer the questions first |
    | ``questions`` | the questions: VQA's, GQA's or NLVR2's files, airsplay's, or one's own |
    | ``features`` | of the questions' pictures; artifacts need them |
    | ``annotations`` | the true answers; default: those in the file of questions. Without any, agreement alone is told |
    | ``choices`` | GQA's file of valid and plausible answers |
    | ``dataset`` | ``vqa``, ``gqa``, ``nlvr2`` or ``own``; default: as the file of questions tells |
    | ``max_drop`` | the most points that a set may score below the first; the report says whether it ``passed`` |
    | ``skip_missing`` | leave out questions without features, of which official programs know nothing; else they are an error |

    ``boxes``, ``batch``, ``threads``, ``providers``, ``engine``, ``workers``, ``time_limit``: how artifacts answer,
    as of ``lx.predict``.

    A drop raises no error: see the report's ``passed``. ``InputError``: one line with file, row and id: a file cannot be read,
    files do not belong together, or a question is not answered. ``ArtifactError``, ``RuntimeFailed``, ``MissingExtra``: an
    artifact cannot answer.
    """
    _check_values(runners, max_drop)
    asked = read_questions(questions, dataset)
    scorer = scorer_of(asked, annotations, choices)
    names = [str(place) for place in runners]
    check_sets(names, scorer, max_drop)
    answering = _Answering(
        asked, None if features is None else Path(features), dataset, boxes, batch, threads, tuple(providers), skip_missing,
        engine_of(engine, threads, workers, time_limit), progress,
    )  # fmt: skip
    for name in names:
        answering.check(name)
    sets = [answering.answers_of(name) for name in names]
    left_out = {id for one in sets for id in one.without_features}
    notes: list[str] = []
    if left_out:
        asked = replace(asked, questions=tuple(one for one in asked.questions if one.id not in left_out))
        scorer = scorer_of(asked, annotations, choices)
        notes.append(f"{len(left_out):,} questions without features were left out: these are no official scores")
    return evaluate_answers(asked, [one.set for one in sets], scorer, max_drop=max_drop, notes=notes)


@dataclass(frozen=True)
class _Answered:
    """A set of answers, and the ids of questions that an artifact left out because features are missing."""

    set: AnswerSet
    without_features: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Answering:
    """How the answers of a runner are had: from its file, or from an artifact, which is asked."""

    asked: QuestionSet
    features: Path | None
    dataset: str | None
    boxes: str | None
    batch: int
    threads: int | None
    providers: tuple[str, ...]
    skip_missing: bool
    engine: Engine
    progress: Progress

    def check(self, name: str) -> None:
        """Raises the errors of an artifact that cannot run or does not answer, before another one has run for hours."""
        if _is_artifact(name):
            check_request(self._request(name))
            artifact = open_named(name)
            check_answers(artifact, self.providers)
            names_of_answers(artifact)

    def answers_of(self, name: str) -> _Answered:
        """Returns the answers of a runner."""
        if not _is_artifact(name):
            return _Answered(AnswerSet(name, {"kind": "answers"}, read_answers(name)))

        def progress(step: str, done: int, total: int) -> None:
            self.progress(f"{step}, {name}", done, total)

        answers, matched = predict_in_memory(self._request(name), self.engine, progress)
        artifact = open_named(name)
        facts = artifact_facts(artifact, self.providers)
        arithmetic, _ = answering_way(artifact, self.providers)
        told = {
            "kind": "artifact", "target": facts.target, "precision": facts.precision, "runtime": facts.runtime,
            "device": facts.device, "arithmetic": arithmetic,
        }  # fmt: skip
        return _Answered(AnswerSet(name, told, answers), matched.without_features)

    def _request(self, name: str) -> Request:
        if self.features is None:
            raise InputError(f"{name}: is an artifact: give the pictures' features, too ({option('features')})")
        return Request(
            name, self.features, self.asked.path, self.dataset, self.batch, 1, self.threads, self.providers,
            self.skip_missing, self.boxes,
        )  # fmt: skip


def _is_artifact(name: str) -> bool:
    """Whether a runner is an artifact's directory, with or without a runtime behind an @; anything else is a file."""
    return Path(split_runtime(name)[0]).is_dir()


def _check_values(runners: object, max_drop: object) -> None:
    if not isinstance(runners, list | tuple) or not all(isinstance(place, str | os.PathLike) for place in runners):
        raise InputError(f"runners: takes a list of files, such as ['a.json', 'b.json'], not {as_given(runners)}")
    if max_drop is None:
        return
    if isinstance(max_drop, bool) or not isinstance(max_drop, int | float) or not 0 <= max_drop < math.inf:
        raise InputError(f"{option('max_drop')}: takes points, 0 or more, not {as_given(max_drop)}")
