"""docs/what-is-checked.md: each row names a test that there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "what-is-checked.md"
ROW = re.compile(r"^\| (?!what is wrong|-).* \|$", re.MULTILINE)
NAMED = re.compile(r"\| `(\S+\.py)::(test_\w+)` \|$")


def test_every_row_is_a_test() -> None:
    rows = [row for row in ROW.findall(PAGE.read_text(encoding="utf-8")) if not row.startswith("|-")]
    assert len(rows) > 40
    missing = []
    for row in rows:
        named = NAMED.search(row)
        if named is None or named[2] not in names_in(TESTS / named[1]):
            missing.append(row)
    assert missing == []


def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
