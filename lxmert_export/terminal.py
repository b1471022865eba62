"""What the commands say on the terminal: messages, reports and progress go to stderr, results to stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lxmert_export.judging import Progress
    from lxmert_export.parity.divergence import Divergence
    from lxmert_export.parity.report import ParityReport


def say(message: str) -> None:
    """One line on stderr."""
    typer.echo(message, err=True)


def show_report(report: ParityReport | None, *, verdict: bool = True) -> None:
    """The tables of a parity report, and its verdict unless an error says that; nothing of none."""
    if report is None:
        return
    from rich.console import Console

    from lxmert_export.parity.terminal import print_report

    print_report(report, Console(stderr=True), verdict=verdict)


def show_divergence(divergence: Divergence) -> None:
    """Where an artifact goes wrong, and how far each of its layers drifts."""
    from rich.console import Console

    from lxmert_export.parity.terminal import print_divergence

    print_divergence(divergence, Console(stderr=True))


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A bar on stderr where that is a terminal; silence elsewhere."""
    from lxmert_export.judging import silent

    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield advance
