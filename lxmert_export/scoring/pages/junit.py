"""An evaluation as JUnit XML, which GitLab, Jenkins and GitHub's test reporters read."""

from __future__ import annotations

from lxmert_export.parity.pages.junit_parts import Element, add_suite, case_of, fail, finished, say
from lxmert_export.scoring.pages.words import (
    COLUMNS,
    FLIP_COLUMNS,
    Facts,
    comparison_row,
    flip_rows,
    plain_scores,
    score_rows,
)

MOST_FLIPS = 20  # of a failed case


def junit_xml(report: Facts) -> str:
    """Returns a case for each set of answers, and one for each beside the first, which fails if its score drops too far."""
    root = Element("testsuites", name="lxmert-export evaluate")
    add_suite(root, "scores", [_scored(row, plain_scores(report)) for row in score_rows(report)])
    if report["comparisons"]:
        add_suite(
            root, f"against {report['runners'][0]['name']}", [_compared(one, report) for one in report["comparisons"]]
        )
    return finished(root)


def _scored(row: tuple[str, ...], names: list[str]) -> Element:
    case = case_of(row[0])
    say(case, "\n".join(f"{name}: {score}" for name, score in zip(("from", *names), row[1:], strict=True)))
    return case


def _compared(comparison: Facts, report: Facts) -> Element:
    """A case whose name is the same in every run, so that CI systems can follow it."""
    _, *figures = comparison_row(comparison)
    described = "\n".join(f"{column}: {value}" for column, value in zip(COLUMNS[1:], figures, strict=True))
    case = case_of(comparison["second"])
    if not comparison["passed"]:
        flips = [" | ".join(row) for row in (FLIP_COLUMNS, *flip_rows(comparison, MOST_FLIPS))]
        points = comparison["difference"]["points"]
        message = f"{comparison['second']} scores {-points:.2f} points less, and {report['max_drop']:g} are allowed"
        fail(case, message, "\n".join([described, "", *flips]), kind="ScoreDropped")
    say(case, described)
    return case
