"""The parity report on a terminal, narrow or wide."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lxmert_export.parity.report import Cell, ParityReport

ARITHMETIC = {
    "native": "",
    "emulated": ", every operator's result rounded (emulated)",
    "cpu-fp32-arithmetic": ", computed in float32 by this CPU (cpu-fp32-arithmetic: proves nothing alone)",
}


def print_report(report: ParityReport, console: Console) -> None:
    """One table per runner and opponent, one row per output, with the figures of the inputs that fare worst."""
    for (runner, against, arithmetic), cells in groupby(
        report.worst_cells(), key=lambda cell: (cell.runner, cell.against, cell.arithmetic)
    ):
        table = Table(
            title=f"{escape(runner)} against {escape(against)}{ARITHMETIC[arithmetic]}",
            title_justify="left",
            caption="score = error RMS / noise floor, of the input family that fares worst",
            caption_justify="left",
        )
        for heading in ("output", "inputs"):
            table.add_column(heading, overflow="fold")
        for heading in ("score", "limit", "error RMS", "error max", "floor"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", overflow="fold")
        for cell in cells:
            table.add_row(*_row(cell))
        console.print(table)
    for line in (*report.notes, *_not_run(report)):
        console.print(line, style="dim", highlight=False)
    console.print(report.summary(), style="bold green" if report.passed else "bold red", highlight=False, markup=False)


def _row(cell: Cell) -> tuple[str, ...]:
    figures = (cell.error_rms, cell.error_max, cell.floor)
    return (
        escape(cell.output),
        cell.family,
        "-" if cell.score is None else f"{cell.score:.2f}",
        f"{cell.threshold:g}",
        *("-" if figure is None else f"{figure:.1e}" for figure in figures),
        "[green]pass[/]" if cell.status == "pass" else f"[red]FAIL[/] {escape(cell.reason or '')}".strip(),
    )


def _not_run(report: ParityReport) -> list[str]:
    names = ", ".join(report.families_not_run)
    return [f"not run, for the fixed axes leave no room: {names} inputs"] if names else []
