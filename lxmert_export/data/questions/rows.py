"""The rows of a file of questions or answers, whatever holds them: JSON, JSON lines or CSV.

A fault in a row is one line with the file, the row and the question's id.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxmert_export.errors import InputError, as_given
from lxmert_export.files.json_files import parse_json, read_bytes
from lxmert_export.files.lfs_pointers import not_copied
from lxmert_export.files.limits import LARGEST_DATA_FILE, MOST_DATA_VALUES

BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"  # spreadsheets write it before a CSV


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``kind`` and ``number``: where it stands, such as line 3. ``key``: its key, if the file is a JSON object."""

    values: Mapping[str, Any]
    path: Path
    kind: str
    number: int
    key: str | None = None

    def fault(self, what: str, id: str | None = None) -> InputError:
        """Returns the error of this row."""
        asked = self.key if id is None else id
        about = "" if asked is None else f" (question {asked!r})"
        return InputError(f"{self.path}: {self.kind} {self.number}{about}: {what}")

    def text(self, field: str, id: str | None = None) -> str:
        """Returns a field that holds a text. ``InputError``: it is missing, empty or something else."""
        value = self.values.get(field)
        if not isinstance(value, str):
            raise self.fault(f"{field} {_instead(value, field in self.values, 'a text')}", id)
        if not value.strip():
            raise self.fault(f"{field} is empty", id)
        self._check_encodable(field, value, id)
        return value

    def answer(self, field: str, id: str | None = None) -> str:
        """Returns a field that holds an answer: a text, which may be empty. ``InputError``: it is something else."""
        value = self.values.get(field)
        if not isinstance(value, str):
            raise self.fault(f"{field} {_instead(value, field in self.values, 'a text')}", id)
        self._check_encodable(field, value, id)
        return value

    def identifier(self, field: str, id: str | None = None) -> str:
        """Returns a field that holds an id, a whole number or a text, as text. ``InputError``: it is something else."""
        value = self.values.get(field)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise self.fault(f"{field} {_instead(value, field in self.values, 'an id: a whole number or a text')}", id)
        return self.text(field, id)

    def _check_encodable(self, field: str, value: str, id: str | None) -> None:
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                raise self.fault(f"{field} holds half of a surrogate pair, which is no character", id) from None


def _instead(value: Any, given: bool, wanted: str) -> str:
    return f"is {as_given(value)}, not {wanted}" if given else "is missing"


@dataclass(frozen=True)
class Rows:
    """The rows of a file, and what stood around them: the other fields of a JSON object that holds a list of rows."""

    rows: Sequence[Row]
    around: Mapping[str, Any]


def ids_of(rows: Sequence[Row], field: str | None) -> list[str]:
    """Returns the ids of the questions that rows are about. ``field``: that of the format; None if it has none.

    ``InputError``: a row has no id, or something else in its place.
    """
    if (chosen := id_field(rows, field)) is not None:
        return [row.identifier(chosen) for row in rows]
    return [str(place) if row.key is None else row.key for place, row in enumerate(rows, 1)]


def id_field(rows: Sequence[Row], field: str | None) -> str | None:
    """Returns the field that holds the ids; None if they are the rows' keys, or else their places, from 1 on.

    A format without a field for them takes ``id``: if one row has it, all must.
    """
    if field is not None or rows[0].key is not None:
        return field
    return "id" if any("id" in row.values for row in rows) else None


def read_content(path: Path, what: str) -> str:
    """Reads a text file. ``what`` says in messages what it is for. ``InputError``: it cannot be read, is empty, or not UTF-8."""
    try:
        content = read_bytes(path, largest=LARGEST_DATA_FILE)
    except OSError as error:
        raise InputError(f"{path}: the {what} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: the {what} cannot be read: it {error}") from error
    if problem := not_copied(content):
        raise InputError(f"{path}: the {what} cannot be read: it {problem}")
    try:
        text = content.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line}: the {what} cannot be read: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from error
    if not text.strip():
        raise InputError(f"{path}: the {what} cannot be read: it holds nothing but white space")
    return text


def read_rows(
    path: Path,
    what: str,
    *,
    lists: Sequence[str] = (),
    no_header: Sequence[str] = (),
    named: frozenset[str] = frozenset(),
) -> Rows:
    """Reads the rows of a file; its content tells what it is, not its name.

    | content | rows |
    |---|---|
    | a JSON list of objects | its entries |
    | a JSON object with one of the fields ``lists``, which holds a list | that list's entries |
    | any other JSON object of objects | its values, with their keys |
    | JSON lines | its lines |
    | anything else | lines of CSV, with a header |

    A CSV with as many columns as ``no_header`` has no header, unless a name in its first line is one of ``named``.

    ``InputError``: the file cannot be read, or a row is no object.
    """
    text = read_content(path, what)
    if text.lstrip()[0] not in "[{":
        return Rows(list(_csv_rows(path, text, what, no_header, named)), {})
    if _holds_lines(text, lists):
        return Rows(list(_json_lines(path, text)), {})
    values = parse_whole(path, text, what)
    if isinstance(values, dict):
        if field := next((name for name in lists if isinstance(values.get(name), list)), None):
            return Rows(list(_entries(path, values.pop(field))), values)
        return Rows(list(_keyed(path, values)), {})
    return Rows(list(_entries(path, values)), {})


def parse_whole(path: Path, text: str, what: str) -> Any:
    """Parses a file of one JSON value. ``InputError``: it is not JSON; a file that was cut is told by its end."""
    try:
        return parse_json(text, most_values=MOST_DATA_VALUES)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        where = f"line {error.lineno}, column {error.colno}"
        mend = "it ends in the middle; copy or download it again" if cut else f"{error.msg} at {where}"
        raise InputError(f"{path}: line {error.lineno}: the {what} cannot be read: {mend}") from error
    except ValueError as error:
        raise InputError(f"{path}: the {what} cannot be read: it {error}") from error


def _holds_lines(text: str, lists: Sequence[str]) -> bool:
    """Whether a file that begins with a bracket has a JSON object on its first line, and more lines or no rows inside it."""
    first, _, others = text.lstrip().partition("\n")
    if not first.startswith("{"):
        return False
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return False
    holds_rows = any(name in value for name in lists) or all(isinstance(part, dict) for part in value.values())
    return bool(others.strip()) or not holds_rows


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = parse_json(line)
        except ValueError as error:
            raise InputError(f"{path}: line {number}: is no JSON object: {error}; was the line cut?") from error
        yield _row(values, path, "line", number)


def _entries(path: Path, values: Sequence[Any]) -> Iterator[Row]:
    for number, value in enumerate(values, 1):
        yield _row(value, path, "entry", number)


def _keyed(path: Path, values: Mapping[str, Any]) -> Iterator[Row]:
    for number, (key, value) in enumerate(values.items(), 1):
        yield _row(value, path, "entry", number, key)


def _row(values: Any, path: Path, kind: str, number: int, key: str | None = None) -> Row:
    if not isinstance(values, dict):
        at = "" if key is None else f" ({key!r})"
        raise InputError(f"{path}: {kind} {number}{at}: is {as_given(values)}, not an object with named fields")
    return Row(values, path, kind, number, key)


def _csv_rows(path: Path, text: str, what: str, no_header: Sequence[str], named: frozenset[str]) -> Iterator[Row]:
    """The lines of a CSV. Quoted fields may hold line breaks; a row is named by the line on which it ends."""
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: Sequence[str] = ()
    try:
        for fields in lines:
            if not any(field.strip() for field in fields):
                continue
            if not header:
                names = [name.strip() for name in fields]
                headless = len(fields) == len(no_header) and named.isdisjoint(names)
                header = no_header if headless else names
                if not headless:
                    _check_header(path, header, what)
                    continue
            if len(fields) != len(header):
                raise InputError(
                    f"{path}: line {lines.line_num}: has {len(fields)} fields, not {len(header)} ({', '.join(header)})"
                )
            yield Row(dict(zip(header, fields, strict=True)), path, "line", lines.line_num)
    except csv.Error as error:
        raise InputError(f"{path}: line {lines.line_num}: the {what} cannot be read as CSV: {error}") from error


def _check_header(path: Path, header: Sequence[str], what: str) -> None:
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise InputError(f"{path}: line 1: the {what} cannot be read: the column {twice!r} stands there twice")
