"""A parity report as one HTML page that needs no network and no other file."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from lxmert_export.parity.figures import HISTOGRAM_POWERS
from lxmert_export.parity.pages.glossary import read_glossary
from lxmert_export.parity.pages.overview import Facts

SCRIPTS = ("elements.js", "charts.js", "matrix.js", "sections.js", "page.js")  # joined in this order into one script


def html_page(report: Facts) -> str:
    """Returns the page of a report, from its JSON form alone."""
    parts = {
        "title": html.escape(f"Parity {'passed' if report['passed'] else 'FAILED'}"),
        "summary": html.escape(report["summary"]),
        "style": page_part("page.css"),
        "report": _embedded(report),
        "constants": _embedded({"histogram_powers": HISTOGRAM_POWERS, "glossary": read_glossary()}),
        "script": "\n".join(map(page_part, SCRIPTS)),
    }
    return filled(page_part("page.html"), parts)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """Returns a template with a part in the place of each ``{{name}}``.

    The template is split only once, so that braces inside a part are never taken for a placeholder.
    """
    page = []
    for piece in template.split("{{"):
        name, closed, rest = piece.partition("}}")
        page += [parts[name], rest] if closed else [piece]
    return "".join(page)


def page_part(name: str) -> str:
    """Returns a file of the page, such as its style."""
    return files("lxmert_export.parity.pages").joinpath(name).read_text(encoding="utf-8")


def _embedded(values: Any) -> str:
    """JSON for a script element: ``<`` is escaped, so that no text in it can end the element."""
    return json.dumps(values, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
