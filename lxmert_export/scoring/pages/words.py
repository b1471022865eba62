"""How the pages of an evaluation write its figures, from its JSON form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lxmert_export.parity.pages.overview import ran_in
from lxmert_export.scoring.comparing import COVERAGE, RESAMPLES

Facts = Mapping[str, Any]
# The statistic of GQA's answers' distribution is no share: the lower, the better.
NO_SHARES = frozenset(("distribution",))
COLUMNS = ("against the first", "difference", f"{COVERAGE} % interval", "better", "worse", "p (McNemar)", "agreement")
FLIP_COLUMNS = ("question", "pictures", "asked", "first answers", "answers", "points")


def plain_scores(report: Facts) -> list[str]:
    """The names of the scores that are one number each, in the order of the first set of answers."""
    return [name for name, value in report["runners"][0]["scores"].items() if not isinstance(value, Mapping)]


def score_rows(report: Facts) -> list[tuple[str, ...]]:
    """A row for each set of answers: its name, where it comes from, and its scores."""
    names = plain_scores(report)
    return [
        (one["name"], origin(one), *(figure(one["scores"].get(name)) for name in names)) for one in report["runners"]
    ]


def origin(runner: Facts) -> str:
    """Where answers come from: a file, or what ran an artifact, its precision, and its arithmetic if that is another."""
    if runner["kind"] == "answers":
        return "file"
    arithmetic = "" if runner["arithmetic"] == "native" else f" ({runner['arithmetic']})"
    return f"{ran_in(runner)}, {runner['precision']}{arithmetic}"


def score_columns(report: Facts) -> list[str]:
    """The headings of ``score_rows``."""
    return ["answers", "from", *(name if name in NO_SHARES else f"{name} %" for name in plain_scores(report))]


def kinds_of_scores(report: Facts) -> Iterator[tuple[str, list[str], list[tuple[str, ...]]]]:
    """The scores by type: what they are by, headings, and a row for each type with every set's score."""
    for name, by_type in report["runners"][0]["scores"].items():
        if isinstance(by_type, Mapping):
            columns = [name.removeprefix("by_").replace("_", " "), *(f"{one['name']} %" for one in report["runners"])]
            rows = [
                (kind or "–", *(figure(one["scores"][name].get(kind)) for one in report["runners"])) for kind in by_type
            ]
            yield name.replace("_", " "), columns, rows


def comparison_row(comparison: Facts) -> tuple[str, ...]:
    """A row of ``COLUMNS``."""
    difference = comparison["difference"]
    agreement = f"{figure(comparison['agreement'])} %"
    if difference is None:
        return (comparison["second"], *["–"] * 5, agreement)
    interval, mcnemar = difference["interval"], difference["mcnemar"]
    return (
        comparison["second"],
        signed(difference["points"]),
        f"{signed(interval['low'])} to {signed(interval['high'])}",
        f"{mcnemar['better']:,}",
        f"{mcnemar['worse']:,}",
        chance(mcnemar["p_value"]),
        agreement,
    )


def flip_rows(comparison: Facts, most: int) -> list[tuple[str, ...]]:
    """Rows of ``FLIP_COLUMNS``: the worst losses first."""
    return [
        (
            flip["id"], ", ".join(flip["pictures"]), flip["question"], *(answer or "–" for answer in flip["answers"]),
            "–" if flip["scores"] is None else f"{flip['scores'][0]:g} → {flip['scores'][1]:g}",
        )
        for flip in comparison["flips"][:most]
    ]  # fmt: skip


def cut_flips(comparison: Facts, most: int) -> str | None:
    """Says how many flips a page leaves out; None if it shows all."""
    left_out = len(comparison["flips"]) - most
    return None if left_out <= 0 else f"{left_out:,} more are in the JSON report"


def legend() -> list[tuple[str, str]]:
    """What the columns hold."""
    return [
        (
            "difference",
            "points by which the mean score over the same questions is above that of the first set of answers",
        ),
        (
            f"{COVERAGE} % interval",
            f"of the difference, by the paired bootstrap: {RESAMPLES:,} resamples of the questions, always the same ones",
        ),
        ("better, worse", "questions that score higher, and lower, than in the first set"),
        (
            "p (McNemar)",
            "how likely so uneven a split is if both were equally good: exact for few questions, the normal distribution for "
            "many; with partial credit it is the sign test",
        ),
        ("agreement", "share of the questions that both answer alike; the others are the flips"),
    ]


def about(report: Facts) -> list[tuple[str, str]]:
    """What was asked, and how it was scored."""
    asked, scored_by = report["asked"], report["scored_by"]
    by = (
        "there are no true answers: agreement alone"
        if scored_by is None
        else f"{scored_by['name']}, by {scored_by['file']}"
    )
    gate = "none" if report["max_drop"] is None else f"at most {report['max_drop']:g} points below the first"
    return [
        ("questions", f"{asked['count']:,} of {asked['file']} ({asked['format']}, data set {report['dataset']})"),
        ("scored by", by),
        ("gate", gate),
    ]


def figure(value: float | None) -> str:
    """A score: two digits, as the official programs print them; a dash for None."""
    return "–" if value is None else f"{value:.2f}"


def signed(points: float) -> str:
    """A difference in points, with its sign."""
    return f"{points:+.2f}".replace("-", "−")


def chance(p_value: float) -> str:
    """A p-value."""
    return "< 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"


def verdict(report: Facts) -> str:
    """The verdict in a word or two."""
    if report["max_drop"] is None:
        return "Evaluation"
    return "Evaluation passed" if report["passed"] else "Evaluation FAILED"


def names(runners: Sequence[Facts]) -> str:
    """All names in one line."""
    return ", ".join(one["name"] for one in runners)
