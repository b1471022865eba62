"""The command that answers whole files of questions: `lxmert-export predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lxmert_export.api.predict import BATCH, TIME_LIMIT, TOP
from lxmert_export.cli import options
from lxmert_export.cli.answering_options import (
    BatchOption,
    DatasetOption,
    EngineOption,
    SkipMissingFlag,
    ThreadsOption,
    TimeLimitOption,
    WorkersOption,
)
from lxmert_export.cli.features import BoxesOption
from lxmert_export.cli.printing import print_json, say, shown_progress


def predict(
    artifact: options.RunnableArgument,
    features: Annotated[Path, typer.Option(metavar="F", help="The features of the pictures: a file or a directory.")],
    questions: Annotated[Path, typer.Option(metavar="Q", help="The questions: of VQA, GQA, NLVR2, or your own.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The answers: .json (VQA, GQA) or .csv (NLVR2) as their servers take them, or .jsonl with the likeliest "
            "answers and their probabilities.",
        ),
    ],
    dataset: DatasetOption = None,
    boxes: BoxesOption = None,
    top: Annotated[int, typer.Option(min=1, help="How many answers to each question a .jsonl holds.")] = TOP,
    batch: BatchOption = BATCH,
    skip_missing: SkipMissingFlag = False,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    time_limit: TimeLimitOption = TIME_LIMIT,
    provider: options.ProviderOption = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace an existing FILE, and what an unfinished run of other inputs left beside it."
        ),
    ] = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Answer a file of questions about pictures, and write the answers.

    A run that was stopped, even killed, goes on where it stopped when the same command is given again, and writes the same bytes.
    """
    from lxmert_export.api import predict as api
    from lxmert_export.runners.onnx.providers import CPU

    with shown_progress(unit="questions") as progress:
        predicted = api.predict(
            artifact, features, questions, output, dataset=dataset, boxes=boxes, top=top, batch=batch, threads=threads,
            providers=provider or (CPU,), skip_missing=skip_missing, engine=engine, workers=workers, time_limit=time_limit,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(predicted.to_dict())
        return
    if predicted.cut:
        say(f"{predicted.cut:,} questions were longer than the artifact takes, and were cut")
    typer.echo(f"wrote {output}: {predicted.answered:,} answers ({predicted.dataset}, {predicted.format})")
