"""The parity report on a terminal, narrow or wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lxmert_export.errors import PACKAGE
from lxmert_export.parity.cells import Cell, badness
from lxmert_export.parity.decisions import SCENES, Decisions, Tally, percent
from lxmert_export.parity.divergence import Divergence
from lxmert_export.parity.pages.overview import Matrix, matrix_of, number
from lxmert_export.parity.recording import Arithmetic
from lxmert_export.parity.report import ParityReport

ARITHMETIC = {
    "native": "",
    "emulated": ", every operator's result rounded (emulated)",
    "cpu-fp32-arithmetic": ", computed in float32 by this CPU (cpu-fp32-arithmetic), so this table alone does not count",
}


# On a narrower terminal, a table shows only the columns that the verdict needs.
WIDE = 110
# Least widths of the matrix' columns, with their lines: a runner's name, its status, a score.
NAME_WIDTH, STATUS_WIDTH, SCORE_WIDTH = 20, 16, 11
STYLES = {"pass": "green", "FAIL": "red", "skipped": "yellow", "built-not-run": "yellow"}


def print_report(report: ParityReport, console: Console, *, verdict: bool = True, verbose: bool = False) -> None:
    """Prints the tables of what fails, the matrix of several runners, what was not run, and the verdict.

    ``verbose``: all tables, of what passes too. ``verdict=False`` leaves out the last line, the summary.
    """
    tables = _print_scores(report, console, verbose=verbose)
    tables += _print_decisions(report, console, verbose=verbose)
    tables += _print_laws(report, console, verbose=verbose)
    matrix = matrix_of(report.to_dict())
    if len(matrix.runners) > 1:
        console.print("every runner against every other: worst scores", style="bold", highlight=False)
        console.print(_matrix_table(matrix, console.width))
    for divergence in report.divergences:
        print_divergence(divergence, console)
    for line in (*report.notes, *_not_run(report)):
        console.print(line, style="dim", highlight=False, markup=False)
    if tables or len(matrix.runners) > 1:
        console.print(f"what the words mean: {PACKAGE} parity --help", style="dim", highlight=False)
    for style, line in _not_proven(report):
        console.print(line, style=style, highlight=False, markup=False)
    if verdict:
        style = "bold green" if report.passed else "bold red"
        console.print(report.summary(), style=style, highlight=False, markup=False)


def _print_scores(report: ParityReport, console: Console, *, verbose: bool) -> int:
    """Prints a table for each runner, opponent and arithmetic of which a cell failed. Returns the number of tables."""
    failing = {_opponents(cell) for cell in report.failures}
    worst = [cell for cell in report.worst_cells() if cell.kind != "law" and (verbose or _opponents(cell) in failing)]
    limits = sorted({cell.threshold for cell in worst})
    tables = [(key, list(cells)) for key, cells in groupby(worst, key=_opponents)]
    for (runner, against, arithmetic), cells in tables:
        console.print(
            f"{runner} against {against}{ARITHMETIC[arithmetic]}", style="bold", markup=False, highlight=False
        )
        console.print(_table(cells, wide=console.width >= WIDE))
    if tables:
        above = f"{limits[0]:g}" if len(limits) == 1 else "its limit"
        console.print(
            f"score = RMS error ÷ noise floor, shown for the worst inputs; above {above} fails",
            style="dim",
            highlight=False,
        )
    return len(tables)


def _opponents(cell: Cell) -> tuple[str, str, Arithmetic]:
    return cell.runner, cell.against, cell.arithmetic


def _print_decisions(report: ParityReport, console: Console, *, verbose: bool) -> int:
    shown = [decisions for decisions in report.decisions if verbose or not decisions.passed]
    for inputs in dict.fromkeys(decisions.inputs for decisions in shown):
        title = (
            "held-out questions about drawn scenes"
            if inputs == SCENES
            else f"answers to {inputs} inputs, by their labels"
        )
        console.print(title, style="bold", highlight=False, markup=False)
        table = _decisions_table([one for one in shown if one.inputs == inputs], wide=console.width >= WIDE)
        console.print(table)
    if shown:
        console.print(
            "agreement: share of answers equal to float64's, near-ties aside; accuracy: share that is true",
            style="dim",
            highlight=False,
        )
    return len(shown)


def _print_laws(report: ParityReport, console: Console, *, verbose: bool) -> int:
    broken = {_law(cell) for cell in report.failures if cell.kind == "law"}
    laws = [cell for cell in report.worst_cells() if cell.kind == "law" and (verbose or _law(cell) in broken)]
    if laws:
        console.print("laws, which hold whatever the weights are", style="bold", highlight=False)
        console.print(_laws_table(laws, wide=console.width >= WIDE))
    return len(laws)


def print_divergence(divergence: Divergence, console: Console) -> None:
    """Prints the drift of every layer, then the first layer that goes wrong and the operator in it."""
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
    for heading in ("score", *(("limit",) if wide else ()), "error RMS", "noise floor"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("error max", "values") if wide else ():
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for cell in cells:
        figures = (cell.error_rms, cell.floor, *((cell.error_max,) if wide else ()))
        table.add_row(
            escape(cell.output),
            cell.family,
            "-" if cell.score is None else f"{cell.score:.2f}",
            *((f"{cell.threshold:g}",) if wide else ()),
            *("-" if figure is None else f"{figure:.1e}" for figure in figures),
            *((f"{cell.values:,}",) if wide else ()),
            "[green]pass[/]" if cell.status == "pass" else f"[red]FAIL[/] {escape(cell.reason or '')}".strip(),
        )
    return table


def _matrix_table(matrix: Matrix, width: int) -> Table:
    """A row for each runner. If a column for each runner does not fit, one column shows the runner with the worst score."""
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
    """The runner's worst score against another runner, and the number of that runner."""
    against = [other for other in matrix.runners if other != runner and (runner, other) in matrix.squares]
    if not against:
        return "-"
    other = max(against, key=lambda name: matrix.squares[runner, name].badness)
    return f"{_score(matrix, runner, other)} ({numbers[other]})"


def _laws_table(cells: list[Cell], *, wide: bool) -> Table:
    """A row for each runner and law, with the output and inputs of the worst score."""
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
    """A styled line for each runner and law that was not run, each missing target and each regression."""
    runners = [
        f"{facts.name}: {facts.not_judged}, so not proven ({facts.reason or 'no reason is known'})"
        for facts in report.runners
        if facts.not_judged is not None
    ]
    laws: dict[tuple[str, str], list[str]] = {}
    for law in report.laws_not_run:
        laws.setdefault((law.runner, law.reason), []).append(law.law)
    skipped = [f"{runner}: laws not run: {', '.join(names)} ({reason})" for (runner, reason), names in laws.items()]
    worse = [*report.missing, *(f"worse than the baseline: {line}" for line in report.regressions)]
    return [*(("yellow", line) for line in (*runners, *skipped)), *(("red", line) for line in worse)]


def _decisions_table(decided: Sequence[Decisions], *, wide: bool) -> Table:
    table = Table()
    table.add_column("runner", overflow="fold")
    for heading in (*(("questions",) if wide else ()), "accuracy", "float64's", "agreement", "near-ties", "flips"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for decisions in decided:
        # The arithmetic stands beside the name, because a column for it would mostly be empty.
        name = escape(decisions.runner) + (f" ({decisions.arithmetic})" if decisions.arithmetic != "native" else "")
        verdict = "[green]pass[/]" if decisions.passed else f"[red]FAIL[/] {escape(decisions.reason or '')}"
        table.add_row(name, *_counts(decisions.total, wide=wide), verdict)
        for family, tally in decisions.families.items() if wide else ():
            table.add_row(f"  {escape(family)}", *_counts(tally, wide=wide), "", style="dim")
    return table


def _counts(tally: Tally, *, wide: bool) -> tuple[str, ...]:
    swapped = f" ({tally.tied_flips} swapped)" if tally.tied_flips else ""
    return (
        *((f"{tally.questions:,}",) if wide else ()),
        percent(tally.correct, tally.questions),
        percent(tally.reference_correct, tally.questions),
        percent(tally.agreed, tally.clear),
        f"{tally.near_ties:,}{swapped}",
        f"{tally.flips:,}",
    )


def _not_run(report: ParityReport) -> list[str]:
    """A line for each set of families that was not run, with its runners unless these are all, and the possible reasons."""
    reasons = (
        "no room in the fixed axes or an engine's profiles; inputs unlike those of the calibration; "
        "held-out questions about other weights, or on a device"
    )
    masks_differently = {facts.name for facts in report.runners if facts.kind == "transformers"}
    runners: dict[tuple[str, ...], list[str]] = {}
    lines = []
    for runner, families in report.not_run.items():
        if runner in masks_differently and "masked-row" in families:
            lines.append(f"not run by {runner}: masked-row inputs (it masks such rows differently)")
            families = tuple(family for family in families if family != "masked-row")
        runners.setdefault(families, []).append(runner)
    if len(runners) < 2:
        names = ", ".join(next(iter(runners), report.families_not_run))
        return [*lines, *([f"not run: {names} inputs ({reasons})"] if names else [])]
    return lines + [
        f"not run by {', '.join(by)}: {', '.join(families)} inputs ({reasons})"
        for families, by in runners.items()
        if families
    ]
