"""The command that scores answers and compares who gave them: `lxmert-export evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lxmert_export.cli import options
from lxmert_export.cli.parity import STDOUT
from lxmert_export.cli.printing import PARITY_FAILED, print_json


def evaluate(
    runners: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ANSWERS...",
            help="Files of answers: VQA's or GQA's JSON, NLVR2's CSV, or our JSON lines. Every other one is compared with the "
            "first.",
        ),
    ] = None,
    questions: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The questions: VQA's, GQA's or NLVR2's file, airsplay's, or your own JSON lines or CSV (image, question).",
        ),
    ] = ...,  # type: ignore[assignment]
    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The true answers. Default: those in the file of questions. Without any, agreement alone is told.",
        ),
    ] = None,
    choices: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="GQA's file of choices, for validity and plausibility."),
    ] = None,
    dataset: Annotated[
        Literal["vqa", "gqa", "nlvr2", "own"] | None,
        typer.Option(help="Default: recognised from the file of questions."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="POINTS",
            help="Exit with 3 if a set of answers scores more than this many points below the first.",
        ),
    ] = None,
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
    from lxmert_export.scoring.pages.writing import write_evaluation

    files = {"json": None if json_file == STDOUT else json_file, "junit": junit, "markdown": markdown, "html": html}
    check_report_paths(files.values())
    report = api.evaluate(
        runners or (), questions=questions, annotations=annotations, choices=choices, dataset=dataset, max_drop=max_drop
    )
    values = report.to_dict()
    write_evaluation(values, **files)
    if json_file == STDOUT:
        print_json(values)
    from rich.console import Console

    from lxmert_export.scoring.pages.terminal import print_evaluation

    print_evaluation(report, Console(stderr=True))
    if not report.passed:
        raise typer.Exit(PARITY_FAILED)
