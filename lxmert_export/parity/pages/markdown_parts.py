"""What the Markdown of all reports is made of: tables, text that stays text, and a length that fits a step's summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lxmert_export.parity.pages.overview import printable

# The summary of a GitHub step may hold 1 MiB. The rest is room for other text of the step.
MOST_BYTES = 1_000_000
NOTICE_BYTES = 400
Section = tuple[str, list[str]]  # a heading, and lines that may be cut from the end


def fitted(head: Sequence[str], sections: Sequence[Section], most_bytes: int) -> str:
    """Returns a page in at most ``most_bytes`` of UTF-8: the head, then as many lines as fit, in order.

    The last line says how many were cut from each section.
    """
    kept: list[str] = []
    cut: list[str] = []
    room = most_bytes - _bytes(head) - NOTICE_BYTES
    for heading, lines in sections:
        fits = 0
        room -= _bytes([f"### {heading}", "", ""]) if lines else 0
        for line in lines:
            room -= _bytes([line])
            fits += room >= 0
        if fits:
            kept += [f"### {heading}", "", *lines[:fits], ""]
        if fits < len(lines):
            cut.append(f"{len(lines) - fits:,} lines of “{heading}”")
    if cut:
        kept += [f"**Cut, because they do not fit: {', '.join(cut)}.** The JSON and HTML reports hold everything.", ""]
    return "\n".join([*head, *kept])


def _bytes(lines: Iterable[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; none if it has no rows."""
    if not rows:
        return []
    lines = [columns, ["---"] * len(columns), *([plain(entry) for entry in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def plain(text: str) -> str:
    """Text that Markdown shows unchanged and on one line, inside a table and outside."""
    return (
        re.sub(r"([\\`*_\[\]|~#])", r"\\\1", " ".join(printable(text).split()))
        .replace("&", "&amp;")
        .replace("<", "&lt;")
    )
