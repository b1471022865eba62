"""The report on a terminal, as narrow as 60 columns: the matrix, the laws, and all that is not proven."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from lxmert_export.parity.pages.terminal import print_report
from lxmert_export.parity.report import ParityReport
from parity_tests.fixtures.sample_reports import NASTY, full_report, nothing_compared, passing_report

pytestmark = pytest.mark.quick


def printed(report: ParityReport, width: int, *, verbose: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_report(report, console, verbose=verbose)
    return console.file.getvalue()  # type: ignore[attr-defined]


def plain_report() -> ParityReport:
    """The full one, without the runner whose name is longer than any line."""
    return replace(full_report(), runners=full_report().runners[:-1], notes=())


def cells_of(text: str, row: str) -> list[str]:
    """The entries of the matrix' row that begins with these words."""
    return next(re.split(r"\s*│\s*", line.strip("│ ")) for line in text.splitlines() if line.startswith(f"│ {row} "))


def test_a_wide_matrix_has_a_column_for_every_runner() -> None:
    text = printed(plain_report(), 130)
    assert cells_of(text, "1 onnx-fp32") == ["1 onnx-fp32", "pass", "1.15", "0.70", "1.15", "1.09", "FAIL", "-"]
    assert cells_of(text, "3 faulty") == ["3 faulty", "FAIL", "FAIL", "FAIL", "FAIL", "FAIL", "-", "-"]
    assert cells_of(text, "4 engine") == ["4 engine", "built-not-run", *"------"]


def test_a_narrow_matrix_has_the_worst_pair_alone() -> None:
    text = printed(plain_report(), 60)
    assert cells_of(text, "1 onnx-fp32") == ["1 onnx-fp32", "pass", "1.15", "0.70", "FAIL (3)"]
    assert cells_of(text, "4 engine") == ["4 engine", "built-not-run", "-", "-", "-"]


@pytest.mark.parametrize("width", [60, 80, 130])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    for report in (plain_report(), passing_report(), replace(nothing_compared(), runners=plain_report().runners[3:])):
        for verbose in (False, True):
            assert max(map(len, printed(report, width, verbose=verbose).splitlines())) <= width


@pytest.mark.parametrize("width", [60, 130])
def test_what_is_not_proven_is_told_with_its_reason(width: int) -> None:
    told = " ".join(printed(full_report(), width).split())
    for line in (
        "engine: built-not-run, so not proven (no GPU)",
        "skipped, so not proven (no TensorFlow:",
        "tflite-fp32: laws not run: thread counts (one thread alone)",
        "tensorrt is required, but engine is built-not-run (no GPU)",
        "worse than the baseline: onnx-fp32, pooled_output: score 1.10",
        "parity FAILED: faulty, pooled_output, plain inputs: missing output",
    ):
        assert line in told


def test_what_passes_is_quiet() -> None:
    """The matrix and the verdict; ``verbose`` shows every table."""
    quiet, loud = (printed(passing_report(), 100, verbose=verbose) for verbose in (False, True))
    assert "every runner against every other" in quiet and "\nparity passed" in quiet
    for table in ("onnx-fp32 against float64", "held-out questions about"):
        assert table not in quiet and table in loud


def test_what_fails_has_its_tables_alone() -> None:
    quiet, loud = (printed(plain_report(), 130, verbose=verbose) for verbose in (False, True))
    assert "faulty against float64" in quiet and "onnx-fp32 against float64" not in quiet
    assert "onnx-fp32 against float64" in loud
    laws = quiet[quiet.index("laws, which") :]
    assert "│ faulty" in laws.partition("every runner")[0] and "│ onnx-fp32" not in laws.partition("every runner")[0]


def test_laws_have_one_table() -> None:
    text = printed(full_report(), 130, verbose=True)
    assert text.count("laws, which hold whatever the weights are") == 1 and "against law" not in text
    text = text[text.index("laws, which") :]
    assert cells_of(text, "faulty")[:2] == ["faulty", "fully masked row"]
    assert cells_of(text, "faulty")[-3:] == ["812", "8", "FAIL"]


def test_one_runner_alone_has_no_matrix() -> None:
    one = passing_report()
    alone = replace(one, cells=tuple(cell for cell in one.cells if cell.runner == "onnx-fp32" and cell.kind != "pair"),
                    runners=one.runners[:1])  # fmt: skip
    assert "every runner against every other" not in printed(alone, 100)
    assert "every runner against every other" in printed(one, 100)


def test_markup_in_names_is_text() -> None:
    assert "odd|name </script>" in printed(full_report(), 200) and NASTY.startswith("odd|name")
