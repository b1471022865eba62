"""Reads JSON that others wrote: bounded, each key once, finite numbers; and holds it to a schema of the package."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from lxmert_export.files.json_schema import first_problem
from lxmert_export.files.lfs_pointers import not_copied
from lxmert_export.files.limits import LARGEST_JSON, LONGEST_INTEGER, MOST_JSON_VALUES

BEFORE_A_VALUE = "[{,"  # each value but the outermost follows one of these


def read_json(path: Path, *, largest: int = LARGEST_JSON) -> Any:
    """Reads and parses a JSON file. ``OSError`` or ``ValueError``: it cannot be read, is larger, or is no sound JSON."""
    return parse_json(read_text(path, largest=largest))


def read_text(path: Path, *, largest: int = LARGEST_JSON) -> str:
    """Reads a UTF-8 file of at most ``largest`` bytes.

    ``OSError`` or ``ValueError``: it cannot be read, is larger or empty, or is a pointer of Git LFS.
    """
    content = read_bytes(path, largest=largest)
    if problem := not_copied(content):
        raise ValueError(problem)
    return content.decode("utf-8")


def read_bytes(path: Path, *, largest: int) -> bytes:
    """Reads a file of at most ``largest`` bytes. ``OSError`` or ``ValueError``: it cannot be read, or is larger."""
    if (size := path.stat().st_size) > largest:
        raise ValueError(f"has {size} bytes, more than the {largest} that such a file may have")
    return path.read_bytes()


def parse_json(text: str, *, most_values: int | None = None) -> Any:
    """Parses JSON of at most ``most_values`` values, or as many as files of configs and reports may have.

    ``ValueError``: it is not JSON, repeats a key, holds NaN or too large a number, or is nested too deep, or holds more values
    than fit into the memory that such a file may take.
    """
    limit = MOST_JSON_VALUES if most_values is None else most_values
    if (most := sum(map(text.count, BEFORE_A_VALUE))) > limit:
        raise ValueError(f"holds up to {most} values, more than the {limit} that such a file may have")
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_bounded
        )
    except RecursionError:
        raise ValueError("is nested too deep") from None


def check_schema(values: Any, resource: str) -> None:
    """Holds parsed JSON to a schema of the package, such as ``parity/report.schema.json``.

    ``ValueError`` names the first place that is wrong, what stands there, and what should.
    """
    if problem := first_problem(values, _schema(resource)):
        raise ValueError(problem)


@cache
def _schema(resource: str) -> Any:
    return json.loads(files("lxmert_export").joinpath(resource).read_text(encoding="utf-8"))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"holds the key {repeated!r} twice")
    return found


def _no_constant(word: str) -> float:
    raise ValueError(f"holds {word}, which is no JSON number")


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"holds a number that is too large: {digits[:20]}")
    return value


def _bounded(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise ValueError(f"holds a number of {len(digits)} digits")
    return int(digits)
