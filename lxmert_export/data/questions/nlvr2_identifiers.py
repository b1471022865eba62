"""NLVR2's identifiers: split-set-pair-sentence, such as dev-850-0-1."""

from __future__ import annotations

from lxmert_export.data.questions.rows import Row

PARTS = 4


def parts_of(row: Row, identifier: str) -> list[str]:
    """Returns the four parts of a row's identifier. ``InputError``: it has another form."""
    parts = identifier.split("-")
    if len(parts) != PARTS:
        raise row.fault("identifier is not of the form split-set-pair-sentence, such as dev-850-0-1", identifier)
    return parts
