"""An evaluation on a terminal, narrow or wide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lxmert_export.parity.pages.terminal import WIDE
from lxmert_export.scoring.pages.words import (
    COLUMNS,
    FLIP_COLUMNS,
    about,
    comparison_row,
    cut_flips,
    flip_rows,
    kinds_of_scores,
    score_columns,
    score_rows,
)
from lxmert_export.scoring.report import EvaluationReport

MOST_FLIPS = 10
NAMES = 1  # of a row of scores; of flips the first columns are texts


def print_evaluation(report: EvaluationReport, console: Console) -> None:
    """Prints the scores, each set of answers beside the first, the worst flips, and a summary."""
    values = report.to_dict()
    for name, value in about(values):
        console.print(f"{name}: {value}", style="dim", markup=False, highlight=False)
    console.print(_table(score_columns(values), score_rows(values), texts=2))
    for _, columns, rows in kinds_of_scores(values) if console.width >= WIDE else ():
        console.print(_table(columns, rows))
    if report.comparisons:
        console.print(_table(COLUMNS, map(comparison_row, values["comparisons"])))
    for comparison in values["comparisons"]:
        if comparison["flips"]:
            console.print(f"flips of {comparison['second']}", style="bold", markup=False, highlight=False)
            console.print(_table(FLIP_COLUMNS, flip_rows(comparison, MOST_FLIPS), texts=len(FLIP_COLUMNS) - 1))
        if cut := cut_flips(comparison, MOST_FLIPS):
            console.print(cut, style="dim", markup=False, highlight=False)
    for line in report.notes:
        console.print(line, style="dim", markup=False, highlight=False)
    style = "bold green" if report.passed else "bold red"
    console.print(report.summary(), style=style, markup=False, highlight=False)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], texts: int = NAMES) -> Table:
    table = Table()
    for place, heading in enumerate(columns):
        table.add_column(escape(heading), justify="left" if place < texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
