"""Writes docs/api.md and docs/cli.md from the code; ``--check`` fails if they are out of date."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import lxmert_export
from lxmert_export.cli.main import app

DOCS = Path(__file__).parent


def main() -> None:
    """Writes both files, or compares them."""
    pages = {"api.md": api_page(), "cli.md": cli_page(), "glossary.md": glossary_page()}
    stale = [name for name, text in pages.items() if not _is_current(DOCS / name, text)]
    if "--check" in sys.argv[1:]:
        if stale:
            sys.exit(f"docs/{', docs/'.join(stale)} do not match the code: run 'make docs'")
        return
    for name in stale:
        (DOCS / name).write_text(pages[name], encoding="utf-8")


def api_page() -> str:
    """Returns the page of all public names: signature, docstring and public methods of each."""
    sections = [
        "# Python interface\n\nWritten by `make docs` from the docstrings. Everything is importable from `lxmert_export`.\n"
    ]
    for name in sorted(lxmert_export.__all__, key=str.lower):
        if not name.startswith("__"):
            sections.append(_section(name, getattr(lxmert_export, name)))
    return "\n".join(sections)


def cli_page() -> str:
    """Returns the page with the help of the tool and of each of its commands."""
    parts = ["# Command line\n\nWritten by `make docs` from `--help`. Exit codes: 0 done, 1 an error you can act on, 2 usage, "
             "3 parity failed.\n"]  # fmt: skip
    for arguments in ((), *_commands()):
        parts.append(f"## `{' '.join(('lxmert-export', *arguments))}`\n\n```\n{_help(arguments)}\n```\n")
    return "\n".join(parts)


def glossary_page() -> str:
    """The words of a report, as the reports themselves hold them."""
    return files("lxmert_export.parity.pages").joinpath("glossary.md").read_text(encoding="utf-8")


def _section(name: str, thing: object) -> str:
    lines = [f"## `{name}`\n"]
    if inspect.isfunction(thing) or inspect.isclass(thing):
        lines.append(f"```python\n{name}{_signature(thing)}\n```\n")
        lines.append(f"{inspect.cleandoc(thing.__doc__ or '')}\n")
    else:  # a type alias
        value = str(thing).removeprefix("typing.").replace("'", '"')
        lines.append(f"```python\n{name} = {value}\n```\n")
    if inspect.isclass(thing) and not issubclass(thing, Exception):
        for method, function in inspect.getmembers(thing):
            # Methods that a class inherits from PyTorch or dataclasses are documented there.
            if (
                not method.startswith("_")
                and "lxmert_export" in str(getattr(function, "__module__", ""))
                and function.__doc__
            ):
                first = inspect.cleandoc(function.__doc__).split("\n\n")[0].replace("\n", " ")
                lines.append(f"- `{method}{_signature(function)}`: {first}")
        lines.append("")
    return "\n".join(lines)


def _signature(thing: object) -> str:
    try:
        text = str(inspect.signature(thing)).replace("'", "")  # type: ignore[arg-type]
        return re.sub(r"<function (\w+) at \w+>", r"\1", text)
    except (TypeError, ValueError):
        return ""


def _commands() -> list[tuple[str, ...]]:
    """Returns the words of each command, in the order in which the tool lists them; those of groups come last."""
    groups = [((), app), *(((group.name,), group.typer_instance) for group in app.registered_groups)]
    return [
        (*words, command.name or command.callback.__name__)
        for words, inner in groups
        if inner is not None
        for command in inner.registered_commands
        if command.callback is not None
    ]


def _help(arguments: tuple[str, ...]) -> str:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    code = "import sys; sys.argv[0] = 'lxmert-export'; from lxmert_export.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--help"], capture_output=True, text=True, check=True, env=environment
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def _is_current(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    main()
