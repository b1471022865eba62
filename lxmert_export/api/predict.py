"""Answering whole files of questions: what ``lxmert-export predict`` does, as a function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lxmert_export.benching.settings import check_count
from lxmert_export.errors import InputError, as_given
from lxmert_export.extras import RAY, require
from lxmert_export.option_names import option
from lxmert_export.predicting.prediction import Engine, Predicted, Request, answer_here, predict_into
from lxmert_export.progress import Progress, silent
from lxmert_export.runners.onnx.providers import CPU

EngineName = Literal["local", "ray"]
BATCH, TOP = 32, 5
TIME_LIMIT = 900.0  # seconds for a shard of 256 questions on a worker; the slowest eager loop takes 40


def predict(
    artifact: str | Path,
    features: str | Path,
    questions: str | Path,
    output: str | Path,
    *,
    dataset: str | None = None,
    boxes: str | None = None,
    top: int = TOP,
    batch: int = BATCH,
    threads: int | None = None,
    providers: Sequence[str] = (CPU,),
    skip_missing: bool = False,
    engine: EngineName = "local",
    workers: int | None = None,
    time_limit: float = TIME_LIMIT,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Predicted:
    """Answers a file of questions about pictures, of which a file holds the features, and writes the answers.

    The output is what each benchmark takes as a submission, or has a JSON line for each question with its likeliest answers and
    their probabilities (``.jsonl``). A run that was stopped goes on where it stopped, and writes the same bytes.

    | parameter | meaning |
    |---|---|
    | ``artifact`` | ARTIFACT or ARTIFACT@RUNTIME |
    | ``dataset`` | ``vqa``, ``gqa``, ``nlvr2`` or ``own``; default: recognised from the questions |
    | ``boxes`` | the layout of the features' boxes, as ``features inspect`` names it; default: recognised |
    | ``top`` | answers to each question in ``.jsonl`` |
    | ``batch`` | the most rows of a call; an artifact with a fixed batch has its own |
    | ``threads`` | of the runtime, and of each worker; default: the runtime chooses, a worker has one |
    | ``skip_missing`` | leave out questions without features, and features without questions; else they are an error |
    | ``engine`` | ``local``: this process; ``ray``: the workers of a Ray cluster (docs/scale.md) |
    | ``workers`` | with ``ray``; default: as many as the cluster has room for |
    | ``time_limit`` | with ``ray``: the most seconds that a worker may take for a shard of at most 256 questions |
    | ``overwrite`` | replace an existing output, and what an unfinished run of other inputs left beside it |

    Errors: ``InputError``: files that cannot be read or do not fit one another. ``ArtifactError``: the artifact does not answer,
    or the output cannot be written; what is answered so far is kept beside it. ``RuntimeFailed``: a shard failed on several
    workers. ``MissingExtra``: a runtime, or Ray, is not installed.
    """
    request = Request(
        str(artifact),
        Path(features),
        Path(questions),
        dataset,
        batch,
        top,
        threads,
        tuple(providers),
        skip_missing,
        boxes,
    )
    check_request(request)
    chosen = engine_of(engine, threads, workers, time_limit)
    return predict_into(Path(output), request, chosen, progress, overwrite=overwrite)


def check_request(request: Request) -> None:
    """``InputError``: a number is out of range."""
    counts = {"batch": request.batch, "top": request.top, "threads": request.threads}
    for keyword, number in counts.items():
        if number is not None:
            check_count(keyword, number)


def engine_of(engine: EngineName, threads: int | None, workers: int | None, time_limit: float) -> Engine:
    """Returns what answers shards. ``InputError``: no such engine, or options that it does not take."""
    if engine not in ("local", "ray"):
        raise InputError(f"{option('engine')}: takes local or ray, not {as_given(engine)}")
    if engine == "local":
        if workers is not None:
            raise InputError(f"{option('workers')}: is for {option('engine', 'ray')}: the local engine has one")
        return answer_here
    if workers is not None:
        check_count("workers", workers)
    require("a Ray cluster", RAY)
    from lxmert_export.predicting.on_ray import RayEngine

    return RayEngine(workers, threads or 1, time_limit)
