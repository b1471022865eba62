"""What all pages of a report share: the matrix of its runners, the cells behind each square, and how figures are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lxmert_export.parity.cells import REFERENCE
from lxmert_export.parity.decisions import asked_of

LAWS = "laws"
# Characters that XML 1.0 and HTML cannot hold. The last output of a crashed runtime may contain some.
NOT_PRINTABLE = re.compile("[^\t\n\r\u0020-\u007e\u0085\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Square:
    """All cells of a runner against one opponent: the reference, the laws or a runner. On the diagonal: its other signatures."""

    cells: tuple[Facts, ...]

    @property
    def failed(self) -> bool:
        """Whether any of its cells did not pass."""
        return any(cell["status"] != "pass" for cell in self.cells)

    @property
    def worst(self) -> Facts:
        """The cell with the largest ``badness``."""
        return max(self.cells, key=badness)

    @property
    def badness(self) -> float:
        """The ``badness`` of the worst cell."""
        return badness(self.worst)

    @property
    def label(self) -> str:
        """``FAIL``, or the worst score."""
        return "FAIL" if self.failed else number(self.worst["score"])


@dataclass(frozen=True)
class Matrix:
    """The matrix. ``runners``: its rows, with their status. ``opponents``: its columns: float64, laws if tried, every runner."""

    runners: Mapping[str, str]
    opponents: tuple[str, ...]
    squares: Mapping[tuple[str, str], Square]


def matrix_of(report: Facts) -> Matrix:
    """Returns the matrix of a report in JSON form. The square of a pair appears on both sides of the diagonal."""
    runners = {facts["name"]: facts["status"] for facts in report["runners"]}
    cells: dict[tuple[str, str], list[Facts]] = {}
    for cell in report["cells"]:
        for place in _places(cell):
            cells.setdefault(place, []).append(cell)
    for runner, _ in cells:
        if runner not in runners:
            failed = any(cell["status"] != "pass" for (name, _), own in cells.items() if name == runner for cell in own)
            runners[runner] = "FAIL" if failed else "pass"
    fixed = [name for name in (REFERENCE, LAWS) if any(against == name for _, against in cells)]
    return Matrix(runners, (*fixed, *runners), {place: Square(tuple(own)) for place, own in cells.items()})


def _places(cell: Facts) -> list[tuple[str, str]]:
    runner, against = cell["runner"], cell["against"]
    if cell["kind"] == "law":
        return [(runner, LAWS)]
    if cell["kind"] == "signature":
        return [(against, against)]
    return [(runner, against)] if cell["kind"] == "reference" else [(runner, against), (against, runner)]


def badness(cell: Facts) -> float:
    """Returns score / threshold, which is 1 at the threshold; infinity if there is no score."""
    score: float | None = cell["score"]
    return float("inf") if score is None or not cell["threshold"] else score / float(cell["threshold"])


def found(cell: Facts) -> str:
    """Returns the reason of a cell or, if it has none, its score and its limit."""
    if cell["score"] is None:
        return cell["reason"] or "its score is not a finite number"
    return cell["reason"] or f"score {number(cell['score'])}, limit {cell['threshold']:g}"


def number(value: float | None) -> str:
    """Formats a score or an error: three digits, or two digits and a power of ten; a dash for None."""
    if value is None:
        return "–"
    if value and not 0.01 <= value < 1000:
        return f"{value:.1e}"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def size(count: int | None) -> str:
    """Formats a number of bytes; a dash for None."""
    if count is None:
        return "–"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} B"


def printable(text: str) -> str:
    """Returns the text with control characters replaced."""
    return NOT_PRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def ran_in(facts: Facts) -> str:
    """Returns what ran a runner, and on which device, as far as that is known: ``openvino on CPU``."""
    return " on ".join(fact for fact in (facts.get("runtime"), facts.get("device")) if fact)


def not_judged(report: Facts) -> list[Facts]:
    """Returns the runners of which nothing was run."""
    return [facts for facts in report["runners"] if facts["not_judged"]]


def failures_beside_cells(report: Facts) -> list[str]:
    """Returns a line for each failure that is not a cell: wrong answers, missing proofs, missing targets, regressions."""
    answers = [
        f"{decided['runner']}, {asked_of(decided['inputs'])}: {decided['reason']}"
        for decided in report["decisions"]
        if decided["status"] != "pass"
    ]
    return [*answers, *unproven(report), *report["missing"], *report["regressions"]]


def unproven(report: Facts) -> list[str]:
    """Returns a line for each half-precision runner that was computed only in float32 by a CPU."""
    arithmetics: dict[str, set[str]] = {}
    for cell in report["cells"]:
        if cell["kind"] != "reference":
            continue
        arithmetics.setdefault(cell["runner"], set()).add(cell["arithmetic"])
    alone = [name for name, kinds in arithmetics.items() if kinds == {"cpu-fp32-arithmetic"}]
    return [
        f"no proof for {name}: computed only in float32 by a CPU, which does not count alone"
        for name in alone
        if name not in report["vouched"]
    ]
