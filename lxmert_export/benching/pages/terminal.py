"""The report of a bench on a terminal, narrow or wide."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lxmert_export.benching.agreement import Agreement
from lxmert_export.benching.pages.words import QUIET, differs, figure, giga, share, speed_legend
from lxmert_export.benching.report import BenchReport, MatmulRate, Result, difference
from lxmert_export.benching.workload_run import WorkloadRun
from lxmert_export.parity.pages.overview import size
from lxmert_export.parity.pages.terminal import WIDE


def print_bench(report: BenchReport, console: Console) -> None:
    """Prints the contestants, a table for each setting, who answers something else, and a summary."""
    console.print(_contestants(report, wide=console.width >= WIDE))
    rates = {rate.setting: rate for rate in report.matmul}
    for setting in report.settings:
        console.print(f"{setting}{_machine_rate(rates.get(setting))}", style="bold", markup=False, highlight=False)
        console.print(_table(report.at(setting), wide=console.width >= WIDE))
    if report.workload is not None:
        console.print(_workload_title(report.workload), style="bold", markup=False, highlight=False)
        console.print(_workload_table(report.workload, wide=console.width >= WIDE))
    for line in (*_how(report), *report.notes):
        console.print(line, style="dim", markup=False, highlight=False)
    for name, where, agreement in report.disagreeing:
        line = f"{name}, {where}: {difference(agreement)}"
        console.print(line, style="red", markup=False, highlight=False)
    style = "bold green" if report.passed else "bold red"
    console.print(report.summary(), style=style, markup=False, highlight=False)


def _contestants(report: BenchReport, *, wide: bool) -> Table:
    table = Table()
    table.add_column("contestant", overflow="fold")
    for heading in ("runtime", "precision"):
        table.add_column(heading, no_wrap=wide)
    for heading in ("start-up s", "peak memory", *(("file",) if wide else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for entrant in report.entrants:
        facts = entrant.facts
        table.add_row(
            escape(entrant.name), facts["runtime"], facts["precision"], f"{entrant.startup_seconds:.2f}",
            size(entrant.peak_bytes), *((size(facts["bytes"]),) if wide else ()),
        )  # fmt: skip
    return table


def _machine_rate(rate: MatmulRate | None) -> str:
    return "" if rate is None else f" (this machine's matrix products: {rate.rate.median / 1e9:.3g} GFLOP/s)"


def _table(results: list[Result], *, wide: bool) -> Table:
    counted = any(result.operations is not None for result in results)
    table = Table()
    table.add_column("contestant", overflow="fold")
    more = (*(("p95", "p99", "spread") if wide else ("p95",)), "rows/s", "speed")
    for heading in ("p50 ms", *more, *(("GFLOP", "of matmul") if wide and counted else ()), "differs by"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        latency, work = result.latency, (giga(result.operations), share(result.matmul_share))
        table.add_row(
            escape(result.name), figure(latency.p50), figure(latency.p95),
            *((figure(latency.p99), f"{latency.spread:.0%}") if wide else ()),
            figure(result.rows_a_second), str(result.speed), *(work if wide and counted else ()),
            _differs(result.agreement),
        )  # fmt: skip
    return table


def _differs(agreement: Agreement) -> str:
    shown = escape(differs({**asdict(agreement), "agrees": agreement.agrees}))
    return shown if agreement.agrees else f"[red]{shown}[/]"


def _workload_title(run: WorkloadRun) -> str:
    workload, tokens = run.workload, int(run.workload.question_lengths.sum())
    return (
        f"the workload: {workload.questions:,} questions of {tokens:,} tokens about {workload.images:,} images of "
        f"{workload.objects} objects; speed here: times as fast as {run.baseline}, of passes"
    )


def _workload_table(run: WorkloadRun, *, wide: bool) -> Table:
    table = Table()
    table.add_column("contestant", overflow="fold")
    table.add_column("batches", overflow="fold")
    for heading in ("questions/s", "speed", *(("calls", "tokens") if wide else ()), "differs by"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in run.results:
        table.add_row(
            escape(result.name), result.plan, figure(result.questions_a_second.median), str(result.speed),
            *((f"{result.calls:,}", f"{result.padded_tokens:,}") if wide else ()), _differs(result.agreement),
        )  # fmt: skip
    return table


def _how(report: BenchReport) -> list[str]:
    """How it was measured, and on what."""
    method, machine = report.method, report.machine
    return [
        f"{speed_legend(report.entrants[0].name, method['rounds'])}; spread: between quartiles; differs by: the largest "
        f"difference of an output from {report.entrants[0].name}'s",
        *_unquiet(report),
        f"one process and {_counted(method['threads'], 'thread')} each; one call at a time, in rotation, after "
        f"{method['rest']:g} s of rest; {_counted(method['warm_up'], 'call')} to warm up; {machine['processor']}, "
        f"{_counted(machine['cores'], 'core')}, {machine['date']}",
        *(f"{one.name}: {setting}" for one in report.entrants for setting in one.facts["settings"]),
    ]


def _unquiet(report: BenchReport) -> list[str]:
    """Says that the machine was not quiet, if a spread shows it."""
    most = max(report.results, key=lambda result: result.latency.spread)
    if most.latency.spread <= QUIET:
        return []
    return [f"the machine was not quiet: spread {most.latency.spread:.0%} of {most.name} at {most.setting}"]


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
