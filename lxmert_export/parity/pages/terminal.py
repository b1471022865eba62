"""The parity report on a terminal, narrow or wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lxmert_export.parity.cells import Cell, badness
from lxmert_export.parity.decisions import Decisions, Tally, percent
from lxmert_export.parity.divergence import Divergence
from lxmert_export.parity.pages.overview import Matrix, matrix_of, number
from lxmert_export.parity.report import ParityReport

ARITHMETIC = {
    "native": "",
    "emulated": ", every operator's result rounded (emulated)",
    "cpu-fp32-arithmetic": ", computed in float32 by this CPU (cpu-fp32-arithmetic: proves nothing alone)",
}


# Narrower than this, a table shows only what the verdict rests on.
WIDE = 110
# Columns of the matrix, its lines included: a runner's name at its shortest, its status, a score.
NAME_WIDTH, STATUS_WIDTH, SCORE_WIDTH = 20, 16, 11
STYLES = {"pass": "green", "FAIL": "red", "skipped": "yellow", "built-not-run": "yellow"}


def print_report(report: ParityReport, console: Console, *, verdict: bool = True) -> None:
    """One table per runner and opponent, one row per output, with the figures of the inputs that fare worst; then the matrix.

    ``verdict=False`` leaves out the last line, the summary, where something else says it.
    """
    worst = [cell for cell in report.worst_cells() if cell.kind != "law"]
    for (runner, against, arithmetic), cells in groupby(
        worst, key=lambda cell: (cell.runner, cell.against, cell.arithmetic)
    ):
        console.print(
            f"{runner} against {against}{ARITHMETIC[arithmetic]}", style="bold", markup=False, highlight=False
        )
        console.print(_table(list(cells), wide=console.width >= WIDE))
    console.print("score: error RMS over noise floor, of the inputs that fare worst", style="dim", highlight=False)
    if report.decisions:
        console.print("held-out questions about drawn scenes", style="bold", highlight=False)
        console.print(_decisions_table(report.decisions, wide=console.width >= WIDE))
        console.print(
            "agreement: float64's answer, but for near-ties, which rounding may turn round; accuracy: the true answer",
            style="dim",
            highlight=False,
        )
    if laws := [cell for cell in report.worst_cells() if cell.kind == "law"]:
        console.print("laws, which hold whatever the weights are", style="bold", highlight=False)
        console.print(_laws_table(laws, wide=console.width >= WIDE))
    matrix = matrix_of(report.to_dict())
    if len(matrix.runners) > 1:
        console.print("every runner against every other: worst scores", style="bold", highlight=False)
        console.print(_matrix_table(matrix, console.width))
    for divergence in report.divergences:
        print_divergence(divergence, console)
    for line in (*report.notes, *_not_run(report)):
        console.print(line, style="dim", highlight=False, markup=False)
    for style, line in _not_proven(report):
        console.print(line, style=style, highlight=False, markup=False)
    if verdict:
        style = "bold green" if report.passed else "bold red"
        console.print(report.summary(), style=style, highlight=False, markup=False)


def print_divergence(divergence: Divergence, console: Console) -> None:
    """The first layer that goes wrong and the operator in it, above the drift of every layer."""
    table = Table()
    table.add_column("layer", overflow="fold")
    for heading in ("score", "error RMS", *(("noise floor", "reference RMS") if console.width >= WIDE else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in divergence.curve:
        figures = (row.error_rms, row.floor, row.reference_rms) if console.width >= WIDE else (row.error_rms,)
        table.add_row(
            escape(row.layer),
            "not finite" if row.score is None else f"{row.score:.2f}",
            *("-" if figure is None else f"{figure:.1e}" for figure in figures),
            style="bold red" if row.layer == divergence.layer else None,
        )
    console.print(table)
    style = "bold red" if divergence.found else "bold green"
    console.print(divergence.summary(), style=style, highlight=False, markup=False)


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


def _matrix_table(matrix: Matrix, width: int) -> Table:
    """A row for each runner; where a column for each does not fit, one for the opponent against which it fares worst."""
    fits = NAME_WIDTH + STATUS_WIDTH + SCORE_WIDTH * len(matrix.opponents) <= width
    others = [name for name in matrix.opponents if name not in matrix.runners]
    numbers = {name: str(place) for place, name in enumerate(matrix.runners, 1)}
    table = Table()
    table.add_column("runner", overflow="fold")
    table.add_column("status", no_wrap=True)
    for opponent in (*others, *(numbers.values() if fits else ["pair"])):
        table.add_column(opponent, justify="right", no_wrap=True)
    for runner, status in matrix.runners.items():
        scores = [_score(matrix, runner, other) for other in (*others, *(matrix.runners if fits else ()))]
        pair = () if fits else (_worst_pair(matrix, runner, numbers),)
        table.add_row(f"{numbers[runner]} {escape(runner)}", f"[{STYLES[status]}]{status}[/]", *scores, *pair)
    return table


def _score(matrix: Matrix, runner: str, against: str) -> str:
    square = matrix.squares.get((runner, against))
    if square is None:
        return "-"
    return "[red]FAIL[/]" if square.failed else square.label


def _worst_pair(matrix: Matrix, runner: str, numbers: Mapping[str, str]) -> str:
    """The score against the runner from which one is furthest, and that one's number."""
    against = [other for other in matrix.runners if other != runner and (runner, other) in matrix.squares]
    if not against:
        return "-"
    other = max(against, key=lambda name: matrix.squares[runner, name].badness)
    return f"{_score(matrix, runner, other)} ({numbers[other]})"


def _laws_table(cells: list[Cell], *, wide: bool) -> Table:
    """A row for each runner and law, with the output and inputs that fare worst."""
    worst = {place: max(own, key=badness) for place, own in groupby(sorted(cells, key=_law), key=_law)}
    table = Table()
    for heading in ("runner", "law", *(("output", "inputs") if wide else ())):
        table.add_column(heading, overflow="fold")
    for heading in ("score", "limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for (runner, law), cell in worst.items():
        where = (escape(cell.output), cell.family) if wide else ()
        verdict = "[green]pass[/]" if cell.status == "pass" else f"[red]FAIL[/] {escape(cell.reason or '')}".strip()
        table.add_row(escape(runner), escape(law), *where, number(cell.score), f"{cell.threshold:g}", verdict)
    return table


def _law(cell: Cell) -> tuple[str, str]:
    return cell.runner, cell.against.removeprefix("law: ")


def _not_proven(report: ParityReport) -> list[tuple[str, str]]:
    """A styled line for each runner and law that was not run, and for what is missing or worse than it was."""
    runners = [
        f"{facts.name}: {facts.not_judged}, so not proven ({facts.reason or 'no reason is known'})"
        for facts in report.runners
        if facts.not_judged is not None
    ]
    laws: dict[tuple[str, str], list[str]] = {}
    for law in report.laws_not_run:
        laws.setdefault((law.runner, law.reason), []).append(law.law)
    told = [f"{runner}: laws not run: {', '.join(names)} ({reason})" for (runner, reason), names in laws.items()]
    worse = [*report.missing, *(f"worse than the baseline: {line}" for line in report.regressions)]
    return [*(("yellow", line) for line in (*runners, *told)), *(("red", line) for line in worse)]


def _decisions_table(decided: Sequence[Decisions], *, wide: bool) -> Table:
    table = Table()
    table.add_column("runner", overflow="fold")
    for heading in (*(("questions",) if wide else ()), "accuracy", "float64's", "agreement", "near-ties", "flips"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for decisions in decided:
        # The arithmetic is the last thing to be squeezed out: a column of its own would be empty more often than not.
        name = escape(decisions.runner) + (f" ({decisions.arithmetic})" if decisions.arithmetic != "native" else "")
        verdict = "[green]pass[/]" if decisions.passed else f"[red]FAIL[/] {escape(decisions.reason or '')}"
        table.add_row(name, *_counts(decisions.total, wide=wide), verdict)
        for family, tally in decisions.families.items() if wide else ():
            table.add_row(f"  {escape(family)}", *_counts(tally, wide=wide), "", style="dim")
    return table


def _counts(tally: Tally, *, wide: bool) -> tuple[str, ...]:
    turned = f" ({tally.tied_flips} turned)" if tally.tied_flips else ""
    return (
        *((f"{tally.questions:,}",) if wide else ()),
        percent(tally.correct, tally.questions),
        percent(tally.reference_correct, tally.questions),
        percent(tally.agreed, tally.clear),
        f"{tally.near_ties:,}{turned}",
        f"{tally.flips:,}",
    )


def _not_run(report: ParityReport) -> list[str]:
    """A line for each set of families, which names the runners where these are not all."""
    reason = (
        "no room in the fixed axes or an engine's profiles, other inputs than it was calibrated for, held-out questions "
        "of other weights or that no device is asked, or rows that transformers masks otherwise"
    )
    runners: dict[tuple[str, ...], list[str]] = {}
    for runner, families in report.not_run.items():
        runners.setdefault(families, []).append(runner)
    if len(runners) < 2:
        names = ", ".join(report.families_not_run)
        return [f"not run: {names} inputs ({reason})"] if names else []
    return [
        f"not run by {', '.join(by)}: {', '.join(families)} inputs ({reason})"
        for families, by in runners.items()
        if families
    ]
