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


# Narrower than this, a table shows only what the verdict rests on.
WIDE = 110


def print_report(report: ParityReport, console: Console) -> None:
    """One table per runner and opponent, one row per output, with the figures of the inputs that fare worst."""
    for (runner, against, arithmetic), cells in groupby(
        report.worst_cells(), key=lambda cell: (cell.runner, cell.against, cell.arithmetic)
    ):
        console.print(
            f"{runner} against {against}{ARITHMETIC[arithmetic]}", style="bold", markup=False, highlight=False
        )
        console.print(_table(list(cells), wide=console.width >= WIDE))
    console.print("score: error RMS over noise floor, of the inputs that fare worst", style="dim", highlight=False)
    for line in (*report.notes, *_not_run(report)):
        console.print(line, style="dim", highlight=False, markup=False)
    console.print(report.summary(), style="bold green" if report.passed else "bold red", highlight=False, markup=False)


def _table(cells: list[Cell], *, wide: bool) -> Table:
    table = Table()
    table.add_column("output", overflow="fold")
    table.add_column("inputs", no_wrap=True)
    for heading in ("score", "limit", "error RMS", *(("error max", "noise floor", "values") if wide else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for cell in cells:
        figures = (cell.error_rms, cell.error_max, cell.floor) if wide else (cell.error_rms,)
        table.add_row(
            escape(cell.output),
            cell.family,
            "-" if cell.score is None else f"{cell.score:.2f}",
            f"{cell.threshold:g}",
            *("-" if figure is None else f"{figure:.1e}" for figure in figures),
            *((f"{cell.values:,}",) if wide else ()),
            "[green]pass[/]" if cell.status == "pass" else f"[red]FAIL[/] {escape(cell.reason or '')}".strip(),
        )
    return table


def _not_run(report: ParityReport) -> list[str]:
    names = ", ".join(report.families_not_run)
    return [f"not run, for the fixed axes leave no room: {names} inputs"] if names else []
