"""The command that scores answers and compares who gave them: `lxmert-export evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lxmert_export.api.predict import BATCH, TIME_LIMIT
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
from lxmert_export.cli.parity import STDOUT
from lxmert_export.cli.printing import PARITY_FAILED, print_json, shown_progress

RunnersArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ANSWERS|ARTIFACT[@RUNTIME]...",
        help="Files of answers (VQA's or GQA's JSON, NLVR2's CSV, JSON lines), and artifacts, which answer the questions "
        "first. Every other one is compared with the first.",
    ),
]
QuestionsOption = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="The questions: VQA's, GQA's or NLVR2's file, airsplay's, or your own JSON lines or CSV (image, question).",
    ),
]
FeaturesOption = Annotated[
    Path | None,
    typer.Option(metavar="F", help="The features of the pictures, a file or a directory: artifacts need them."),
]
AnnotationsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The true answers. Default: those in the file of questions. Without any, agreement alone is told.",
    ),
]
ChoicesOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="GQA's file of choices, for validity and plausibility."),
]
MaxDropOption = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        metavar="POINTS",
        help="Exit with 3 if a set of answers scores more than this many points below the first.",
    ),
]


def evaluate(
    questions: QuestionsOption,
    runners: RunnersArgument = None,
    features: FeaturesOption = None,
    annotations: AnnotationsOption = None,
    choices: ChoicesOption = None,
    dataset: DatasetOption = None,
    boxes: BoxesOption = None,
    max_drop: MaxDropOption = None,
    skip_missing: SkipMissingFlag = False,
    batch: BatchOption = BATCH,
    threads: ThreadsOption = None,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    time_limit: TimeLimitOption = TIME_LIMIT,
    provider: options.ProviderOption = None,
    json_file: options.JsonFileOption = None,
    junit: options.JunitOption = None,
    markdown: options.MarkdownOption = None,
    html: options.HtmlOption = None,
) -> None:
    """Score answers as the official programs do, and compare who gave them question by question.

    VQA: soft accuracy by type of question and answer. GQA: accuracy, consistency, validity, plausibility, distribution. NLVR2:
    accuracy and consistency. The exit code is 3 if the score drops by more than --max-drop.
    """
    from lxmert_export.api import evaluate as api
    from lxmert_export.parity.pages.writing import check_report_paths
    from lxmert_export.runners.onnx.providers import CPU
    from lxmert_export.scoring.pages.writing import write_evaluation

    files = {"json": None if json_file == STDOUT else json_file, "junit": junit, "markdown": markdown, "html": html}
    check_report_paths(files.values(), reads=(*(runners or ()), questions, features, annotations, choices))
    with shown_progress(unit="questions") as progress:
        report = api.evaluate(
            runners or (), questions=questions, features=features, annotations=annotations, choices=choices,
            dataset=dataset, boxes=boxes, max_drop=max_drop, skip_missing=skip_missing, batch=batch, threads=threads,
            providers=provider or (CPU,), engine=engine, workers=workers, time_limit=time_limit, progress=progress,
        )  # fmt: skip
    values = report.to_dict()
    write_evaluation(values, **files)
    if json_file == STDOUT:
        print_json(values)
    from rich.console import Console

    from lxmert_export.scoring.pages.terminal import print_evaluation

    print_evaluation(report, Console(stderr=True))
    if not report.passed:
        raise typer.Exit(PARITY_FAILED)
