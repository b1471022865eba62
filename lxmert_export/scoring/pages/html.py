"""An evaluation as one HTML page that needs no network, no other file and no script."""

from __future__ import annotations

from lxmert_export.parity.pages.cards import bullets, card, cards_page, facts, note, table
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
    names,
    score_columns,
    score_rows,
    verdict,
)

MOST_FLIPS = 1_000


def evaluation_page(report: Facts) -> str:
    """Returns the page of a report, from its JSON form alone."""
    compared = [table("every set of answers beside the first", COLUMNS, map(comparison_row, report["comparisons"]))]
    sections = [
        card("Answers", table("scores", score_columns(report), score_rows(report))),
        *([card("Question by question", *compared, facts(legend()))] if report["comparisons"] else []),
        *(card(f"Scores {by}", table(by, columns, rows)) for by, columns, rows in kinds_of_scores(report)),
        *(card(f"Flips of {one['second']}", *_flips(one)) for one in report["comparisons"]),
        card("About", facts(about(report))),
        *([card("Notes", bullets(report["notes"]))] if report["notes"] else []),
    ]
    return cards_page(
        heading="Evaluation",
        title=f"{verdict(report)}: {names(report['runners'])}",
        style="",
        verdict=("pass" if report["passed"] else "FAIL", verdict(report), report["summary"]),
        sections=sections,
    )


def _flips(comparison: Facts) -> list[str]:
    if not comparison["flips"]:
        return [note("None: both answer every question alike.")]
    rows, cut = flip_rows(comparison, MOST_FLIPS), cut_flips(comparison, MOST_FLIPS)
    about = f"{len(comparison['flips']):,} questions are answered in another way than by {comparison['first']}; losses come first"
    return [note(about if cut is None else f"{about}; {cut}"), table("flips", FLIP_COLUMNS, rows)]
