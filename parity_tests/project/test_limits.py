"""What keeps the code readable: no function over 80 lines, no file over 400, rooms in one order and on the map."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from docs.map import circles_of, floors_of, read_rooms
from parity_tests.fixtures.command import ROOT

pytestmark = pytest.mark.quick

LONGEST_FUNCTION, LONGEST_FILE = 80, 400
# The arithmetic reads in one piece, and the script travels to a device in one file.
EXCEPTIONS = {"lxmert_export/model/lxmert.py", "lxmert_export/engines/on_device/build_and_verify.py"}
FILES = sorted(
    file.relative_to(ROOT).as_posix()
    for folder in ("lxmert_export", "converters", "benchmarks", "docs", "parity_tests")
    for file in (ROOT / folder).rglob("*.py")
)


def long_functions(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            if (lines := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION:
                yield f"{node.name} has {lines} lines"


@pytest.mark.parametrize("file", FILES)
def test_nothing_is_too_long(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert list(long_functions(text)) == []
    assert len(text.splitlines()) <= LONGEST_FILE or file in EXCEPTIONS


def test_the_check_above_sees_a_long_function() -> None:
    body = "\n".join(f"    x{n} = {n}" for n in range(80))
    assert list(long_functions(f"def long() -> None:\n{body}\n")) == ["long has 81 lines"]


def test_rooms_stand_in_one_order() -> None:
    rooms = {name: room.imports for name, room in read_rooms(ROOT).items()}
    assert circles_of(rooms) == []
    floors = floors_of(rooms)
    assert all(floors[name] > floors[other] for name, imports in rooms.items() for other in imports)


def test_the_check_above_sees_a_circle() -> None:
    assert circles_of({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) == [frozenset("abc")]
    assert floors_of({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})["d"] == 2


def test_contributing_names_every_room_and_no_other() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| Room | ")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\| `([a-z_]+)/?`", table, re.MULTILINE))
    kept_names = {"fp16_linter", "activation_ranges"}  # two modules that only keep old import paths alive
    assert named == set(read_rooms(ROOT)) - kept_names


def test_contributing_names_every_room_of_the_tests() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = {place.name for place in (ROOT / "parity_tests").iterdir() if (place / "__init__.py").is_file()}
    assert rooms <= set(re.findall(r"`([a-z_]+)/`", text.partition("## How tests are written")[2]))
