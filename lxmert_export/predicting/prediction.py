"""Answers a file of questions with an artifact: reads, plans, has an engine answer, and writes the answers.

Data flows one way: questions and features → ``matching`` → ``plan`` → an engine, shard by shard → ``parts`` → the output.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lxmert_export.artifact.directory import Artifact, open_named, split_runtime
from lxmert_export.data.features.opening import open_features
from lxmert_export.data.pictures import PictureSource
from lxmert_export.data.questions.reading import read_questions
from lxmert_export.errors import ArtifactError
from lxmert_export.files.appearing_together import appearing_together, directory_made, finish_killed_runs
from lxmert_export.files.listing import files_below
from lxmert_export.files.path_spelling import check_spelling
from lxmert_export.files.replacing import may_be_a_report
from lxmert_export.interrupts import raise_if_stopped
from lxmert_export.option_names import option
from lxmert_export.predicting.job import Job, check_fits, digest, digests_of
from lxmert_export.predicting.matching import Matched, match
from lxmert_export.predicting.output_formats import WITH_PROBABILITIES, OutputFormat, format_of
from lxmert_export.predicting.parts import Parts, kept_parts, may_be_finished
from lxmert_export.predicting.plan import Plan, Shard, questions_digest
from lxmert_export.predicting.shard_runner import Answered, ShardRunner
from lxmert_export.progress import Progress
from lxmert_export.runners.opening import check_answers, check_takes_providers

# Has shards answered, in any order: of a job, whose artifact and features are open here.
Engine = Callable[[Job, Artifact, PictureSource, Iterable[Shard]], Iterator[Answered]]
STEP = "questions"
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is asked of which artifact. ``dataset`` None: recognised from the questions. Other fields as of ``lx.predict``."""

    artifact: str
    features: Path
    questions: Path
    dataset: str | None
    batch: int
    top: int
    threads: int | None
    providers: tuple[str, ...]
    skip_missing: bool
    boxes: str | None = None


@dataclass(frozen=True)
class Predicted:
    """What ``predict`` wrote.

    | field | meaning |
    |---|---|
    | ``output``, ``dataset``, ``format`` | the file, what the questions are of, and what the file is |
    | ``answered``, ``resumed`` | the number of answers, and how many of them an earlier run had finished |
    | ``cut`` | how many questions were longer than the artifact takes, and were cut |
    | ``without_features`` | ids of the questions that were left out, because features of a picture are missing |
    | ``without_questions`` | ids of the pictures that no question is about |
    """

    output: Path
    dataset: str
    format: str
    answered: int
    resumed: int
    cut: int
    without_features: tuple[str, ...]
    without_questions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return {**asdict(self), "output": str(self.output)}


@dataclass(frozen=True)
class Asked:
    """A request whose files are open and fit one another."""

    job: Job
    artifact: Artifact
    source: PictureSource
    dataset: str
    matched: Matched
    plan: Plan

    def inputs(self) -> dict[str, str]:
        """Names of all that decides about the bytes of the output, with digests."""
        job = self.job
        return {
            "questions": questions_digest(self.plan.questions),
            "artifact": job.digests[0],
            "features": digest([job.digests[1], _files_of(self.source.path)]),
            "format": job.form.name,
            "ids": "numbers" if job.numeric_ids else "texts",
            "providers": " ".join(job.providers),
            "batch": str(job.batch),
            "top": str(job.top),
            "boxes": str(job.boxes),
        }


def answer_here(job: Job, artifact: Artifact, source: PictureSource, shards: Iterable[Shard]) -> Iterator[Answered]:
    """The engine of this process: one runner."""
    with ShardRunner(job, artifact, source) as runner:
        yield from runner.answer(shards)


def predict_into(output: Path, request: Request, engine: Engine, progress: Progress, *, overwrite: bool) -> Predicted:
    """Answers questions into a file, from where an earlier run of the same inputs stopped."""
    output = _checked(output, request, overwrite=overwrite)
    with _opened(request, lambda dataset: format_of(output, dataset), progress) as asked:
        form, plan, matched = asked.job.form, asked.plan, asked.matched
        with directory_made(output.parent), kept_parts(output, plan, asked.inputs(), overwrite=overwrite) as parts:
            resumed = parts.answered
            if os.path.lexists(output) and not overwrite:
                _check_finished(output, parts, form)
            else:
                _answer(output, asked, engine, parts, progress)
                _write(output, parts, form, overwrite=overwrite)
            parts.remove()
        return Predicted(
            output, asked.dataset, form.name, len(plan.questions), resumed, parts.cut, matched.without_features,
            matched.without_questions,
        )  # fmt: skip


def predict_in_memory(request: Request, engine: Engine, progress: Progress) -> tuple[dict[str, str], Matched]:
    """Returns the likeliest answer to each question, by the question's id, and what was left out."""
    answers: dict[str, str] = {}
    with _opened(request, lambda dataset: WITH_PROBABILITIES, progress) as asked:
        plan = asked.plan
        progress(STEP, 0, len(plan.questions))
        for answered in engine(asked.job, asked.artifact, asked.source, map(plan.shard, range(len(plan)))):
            ids = (plan.questions[place].id for place in answered.places)
            answers |= zip(ids, (json.loads(record)["answer"] for record in answered.records), strict=True)
            raise_if_stopped()
            progress(STEP, len(answers), len(plan.questions))
        return answers, asked.matched


@contextmanager
def _opened(request: Request, form_of: Callable[[str], OutputFormat], progress: Progress) -> Iterator[Asked]:
    """Opens all that a request names. ``InputError``, ``ArtifactError``: something cannot be read, or does not fit."""
    artifact = open_named(request.artifact)
    check_takes_providers([artifact], request.providers)
    check_answers(artifact, request.providers)
    asked = read_questions(request.questions, request.dataset)
    form = form_of(asked.dataset)
    with open_features(request.features, boxes=request.boxes, progress=progress) as source:
        check_fits(artifact, asked, source)
        matched = match(asked, source.ids, str(source.path), skip_missing=request.skip_missing)
        if matched.left_over:
            LOGGER.warning("left out: %s", "; ".join(matched.left_over))
        job = Job(
            artifact.path.absolute(), artifact.runtime_name, request.features.absolute(), digests_of(artifact, source), form,
            asked.numeric_ids, request.top, request.providers, request.threads, request.batch, request.boxes,
        )  # fmt: skip
        yield Asked(job, artifact, source, asked.dataset, matched, Plan(matched.questions))


def _checked(output: Path, request: Request, *, overwrite: bool) -> Path:
    """Returns the absolute path of an output that may be written. ``ArtifactError``: it may not."""
    check_spelling(output)
    final = output.absolute()
    if final.parent.is_dir():
        finish_killed_runs(final.parent)
    artifact = Path(split_runtime(request.artifact)[0]).resolve()
    if final.resolve() in (request.features.resolve(), request.questions.resolve()):
        raise ArtifactError(f"{output}: is what is read: choose another output (-o)")
    if final.resolve().is_relative_to(artifact):
        raise ArtifactError(f"{output}: lies inside the artifact {request.artifact}: choose an output (-o) outside it")
    if final.resolve().is_relative_to(request.features.resolve()):
        raise ArtifactError(
            f"{output}: lies inside the features {request.features}: choose an output (-o) outside them"
        )
    if final.is_dir():
        raise ArtifactError(f"{output}: is a directory: name a file (-o)")
    if os.path.lexists(final):
        if not overwrite and not may_be_finished(final):
            raise _exists(output)
        if not may_be_a_report(final):
            raise ArtifactError(
                f"{output}: exists and is no text file, so it is not replaced: choose another output (-o)"
            )
    return final


def _exists(output: Path) -> ArtifactError:
    return ArtifactError(
        f"{output}: exists already; {option('overwrite', True)} replaces it, another name (-o) keeps it"
    )


def _answer(output: Path, asked: Asked, engine: Engine, parts: Parts, progress: Progress) -> None:
    """Has all shards answered that are not finished."""
    total, done = len(asked.plan.questions), parts.answered
    if done:
        LOGGER.warning(
            "%s: %s of %s questions were answered by a run that was stopped", output, f"{done:,}", f"{total:,}"
        )
    progress(STEP, done, total)
    missing = parts.missing
    if not missing:
        return
    for answered in engine(asked.job, asked.artifact, asked.source, map(asked.plan.shard, missing)):
        with _kept(output, parts, total):
            parts.keep(answered)
        done += len(answered.places)
        raise_if_stopped()
        progress(STEP, done, total)


def _write(output: Path, parts: Parts, form: OutputFormat, *, overwrite: bool) -> None:
    """Writes the records of all parts, in the order of their questions; the file appears whole."""
    with (
        _kept(output, parts, None),
        appearing_together(output, overwrite=overwrite) as (soon,),
        soon.open("wb") as stream,
    ):
        stream.writelines(_contents(parts, form))


def _contents(parts: Parts, form: OutputFormat) -> Iterator[bytes]:
    before = form.begin
    for record in parts.in_order():
        yield before.encode() + record
        before = form.between
    yield form.end.encode()


@contextmanager
def _kept(output: Path, parts: Parts, total: int | None) -> Iterator[None]:
    """``ArtifactError`` instead of ``OSError``: something cannot be written. The message says what is kept."""
    try:
        yield
    except OSError as error:
        what = "all answers" if total is None else f"{parts.answered:,} of {total:,} answers"
        kept = f"{what} are kept in {parts.directory.name} beside it: the same command goes on from there"
        raise ArtifactError(f"{output}: cannot be written: {error.strerror or error}; {kept}") from error


def _check_finished(output: Path, parts: Parts, form: OutputFormat) -> None:
    """``ArtifactError``: an output that is there is not what a run of these inputs wrote just before it was killed."""
    if parts.missing:
        raise _exists(output)
    with output.open("rb") as stream:
        same = all(stream.read(len(chunk)) == chunk for chunk in _contents(parts, form)) and not stream.read(1)
    if not same:
        raise _exists(output)


def _files_of(features: Path) -> list[tuple[str, int, int]]:
    """What tells that a file of features changed: sizes and times of change, because reading all of it takes minutes."""
    files = files_below(features) if features.is_dir() else [features]
    return [(str(file.relative_to(features)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
