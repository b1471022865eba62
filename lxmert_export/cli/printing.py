"""What the commands print. Messages, reports and progress go to stderr, results to stdout."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from lxmert_export.errors import InputWarning

if TYPE_CHECKING:
    from lxmert_export.artifact.directory import Artifact
    from lxmert_export.parity.report import ParityReport
    from lxmert_export.progress import Progress
PARITY_FAILED = 3  # exit code


def say(message: str) -> None:
    """Prints one line on stderr."""
    typer.echo(message, err=True)


@contextmanager
def input_warnings_said() -> Iterator[None]:
    """Prints the first warning of each input as one line; Python would print it wherever it arises, with a line of code."""
    said = set()
    by_python = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, InputWarning):
            by_python(message, category, *place, **more)
        elif (name := str(message).partition(" ")[0]) not in said:  # each batch has numbers of its own
            said.add(name)
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = show
        yield


def show_report(report: ParityReport | None, *, verdict: bool = True, verbose: bool = False) -> None:
    """Prints a parity report: the tables of what fails (``verbose``: all tables), and its verdict unless ``verdict`` is False.

    Prints nothing if there is no report.
    """
    if report is None:
        return
    from rich.console import Console

    from lxmert_export.parity.pages.terminal import print_report

    print_report(report, Console(stderr=True), verdict=verdict, verbose=verbose)


@contextmanager
def shown_progress(unit: str | None = None) -> Iterator[Progress]:
    """Shows progress bars on stderr if that is a terminal, else nothing. ``unit``: also how many are done, and the rate."""
    from lxmert_export.progress import silent

    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from lxmert_export.cli.rate_column import RateColumn

    columns = (*Progress.get_default_columns(), *([RateColumn(unit)] if unit else []))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield advance


def _say_islands(options: Mapping[str, Any]) -> None:
    """Prints the float32 islands that a search found, one per line."""
    islands = options.get("fp32_islands_added", options.get("fp32_islands"))
    if islands is None:
        return
    kept = "the standard ones, and " if "fp32_islands_added" in options else ""
    needed = (
        "each is needed" if options["fp32_islands_minimal"] else "the search ran out of time; some may not be needed"
    )
    say(f"float32 islands: {kept}{len(islands)} nodes" + (f" ({needed})" if islands else ", none is needed"))
    for name in islands:
        say(f"  {name}")


def say_origin(artifact: Artifact) -> None:
    """Prints which checkpoint was used, which of its heads were not, and the float32 islands that were found."""
    origin = artifact.manifest.checkpoint
    read = origin.get("files", [])
    files = f", {read[0]}" + (f" and {len(read) - 1} more" if len(read) > 1 else "") if read else ""
    hashed = f", sha256 {origin['sha256'][:12]}" if origin["sha256"] else ""
    say(f"checkpoint {origin['name']} ({origin['dialect']} dialect{files}{hashed})")
    if origin["unused_heads"]:
        say(f"not used by task {artifact.manifest.task}: {', '.join(origin['unused_heads'])}")
    _say_islands(artifact.manifest.options)


def print_json(values: Mapping[str, Any]) -> None:
    """Prints one JSON object on stdout."""
    typer.echo(json.dumps(values, indent=2, allow_nan=False))
