"""Pages of cards, without a script: a verdict, then tables and plots, each in a card. Text of a report stays text."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from lxmert_export.parity.pages.html import filled, page_part
from lxmert_export.parity.pages.overview import printable


def cards_page(*, heading: str, title: str, style: str, verdict: tuple[str, str, str], sections: Iterable[str]) -> str:
    """Returns a page. ``style``: beside that of all reports. ``verdict``: ``pass`` or ``FAIL``, a word, and the summary."""
    status, word, summary = verdict
    parts = {
        "heading": safe(heading),
        "title": safe(title),
        "style": page_part("page.css") + style,
        "verdict": f'<div class="verdict {status}"><strong>{safe(word)}</strong><span>{safe(summary)}</span></div>',
        "sections": "\n".join(sections),
    }
    return filled(page_part("cards.html"), parts)


def card(title: str, *parts: str) -> str:
    """A card with a title."""
    return f'<section class="card"><h2>{safe(title)}</h2>{"".join(parts)}</section>'


def table(label: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose rows begin with their name. ``label``: says what it is to a screen reader."""
    head = "".join(f'<th scope="col">{safe(column)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{safe(name)}</th>{"".join(f"<td>{safe(value)}</td>" for value in values)}</tr>'
        for name, *values in rows
    )
    return scrolled(label, f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def scrolled(label: str, part: str) -> str:
    """A part that is wider than a phone scrolls in its own box; the page does not scroll sideways."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{safe(label)}">{part}</div>'


def facts(named: Iterable[tuple[str, str]]) -> str:
    """Names, each with what belongs to it."""
    rows = "".join(f"<div><dt>{safe(name)}</dt><dd>{safe(value)}</dd></div>" for name, value in named)
    return f'<dl class="facts">{rows}</dl>'


def bullets(lines: Iterable[str]) -> str:
    """A list of lines."""
    return f"<ul>{''.join(f'<li>{safe(line)}</li>' for line in lines)}</ul>"


def note(text: str) -> str:
    """A small line of explanation."""
    return f'<p class="note">{safe(text)}</p>'


def safe(text: str) -> str:
    """Returns text that HTML takes for text."""
    return html.escape(printable(text))
