"""The words of a report and what they mean, for every kind of page and for ``parity --help``."""

from __future__ import annotations

import re
from importlib.resources import files

LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")


def read_glossary() -> dict[str, str]:
    """Returns the meaning of each word, in one line without links, from ``glossary.md``."""
    text = files("lxmert_export.parity.pages").joinpath("glossary.md").read_text(encoding="utf-8")
    _, *entries = text.split("\n## ")
    words = (entry.partition("\n") for entry in entries)
    return {word: " ".join(LINK.sub(r"\1", meaning).split()) for word, _, meaning in words}
