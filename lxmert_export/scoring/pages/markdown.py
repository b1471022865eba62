"""An evaluation as Markdown, short enough for the summary of a GitHub step."""

from __future__ import annotations

from lxmert_export.parity.pages.markdown_parts import MOST_BYTES, fitted, plain, table
from lxmert_export.scoring.pages.words import (
    COLUMNS,
    FLIP_COLUMNS,
    Facts,
    about,
    comparison_row,
    cut_flips,
    flip_rows,
    kinds_of_scores,
    legend,
    score_columns,
    score_rows,
    verdict,
)

MOST_FLIPS = 50


def markdown_page(report: Facts, *, most_bytes: int = MOST_BYTES) -> str:
    """Returns the report in at most ``most_bytes`` of UTF-8. If lines do not fit, the last line says which were cut."""
    sign = "✅ " if report["passed"] else "❌ "
    head = [f"## {sign if report['max_drop'] is not None else ''}{verdict(report)}", "", plain(report["summary"]), ""]
    sections = [
        ("Answers", table(list(map(plain, score_columns(report))), score_rows(report))),
        ("Question by question", table(COLUMNS, [comparison_row(one) for one in report["comparisons"]])),
        *(
            (f"Scores {plain(by)}", table(list(map(plain, columns)), rows))
            for by, columns, rows in kinds_of_scores(report)
        ),
        *((f"Flips of {plain(one['second'])}", _flips(one)) for one in report["comparisons"]),
        ("About", [f"- {name}: {plain(value)}" for name, value in about(report)]),
        ("Notes", [f"- {plain(line)}" for line in report["notes"]]),
        (
            "What the columns hold",
            [f"- **{name}**: {plain(text)}" for name, text in legend()] if report["comparisons"] else [],
        ),
    ]
    return fitted(head, sections, most_bytes)


def _flips(comparison: Facts) -> list[str]:
    lines = table(FLIP_COLUMNS, flip_rows(comparison, MOST_FLIPS))
    cut = cut_flips(comparison, MOST_FLIPS)
    return lines if cut is None else [*lines, "", f"{cut}."]
