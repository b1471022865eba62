"""What every page of a report begins with: the matrix of its runners, and what stands behind each of its squares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lxmert_export.parity.cells import REFERENCE

LAWS = "laws"
# What neither XML 1.0 nor a page can hold: a crashed runtime's last words may.
NOT_PRINTABLE = re.compile("[^\t\n\r\u0020-\u007e\u0085\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Square:
    """All cells of a runner against the reference, a runner or the laws; on the diagonal those of its further signatures."""

    cells: tuple[Facts, ...]

    @property
    def failed(self) -> bool:
        """Whether any of its cells did not pass."""
        return any(cell["status"] != "pass" for cell in self.cells)

    @property
    def worst(self) -> Facts:
        """The cell that is nearest to failing, or has failed furthest."""
        return max(self.cells, key=badness)

    @property
    def badness(self) -> float:
        """How near the worst of its cells is to failing."""
        return badness(self.worst)

    @property
    def label(self) -> str:
        """``FAIL``, or the worst score."""
        return "FAIL" if self.failed else number(self.worst["score"])


@dataclass(frozen=True)
class Matrix:
    """``runners`` are its rows, each with its status; ``opponents`` its columns: float64, the laws where tried, every runner."""

    runners: Mapping[str, str]
    opponents: tuple[str, ...]
    squares: Mapping[tuple[str, str], Square]


def matrix_of(report: Facts) -> Matrix:
    """The matrix of a report as JSON holds it; a pair's square stands on both sides of the diagonal."""
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
    """How near a cell is to failing: 1 at its threshold, infinite where nothing could be compared."""
    score: float | None = cell["score"]
    return float("inf") if score is None or not cell["threshold"] else score / float(cell["threshold"])


def found(cell: Facts) -> str:
    """What a cell says: its reason, or its score beside the threshold."""
    if cell["score"] is None:
        return cell["reason"] or "its score is no finite number"
    return cell["reason"] or f"score {number(cell['score'])} of at most {cell['threshold']:g}"


def number(value: float | None) -> str:
    """A score or an error for people: three digits, or two and their power of ten; a dash for none."""
    if value is None:
        return "–"
    if value and not 0.01 <= value < 1000:
        return f"{value:.1e}"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def size(count: int | None) -> str:
    """A number of bytes for people."""
    if count is None:
        return "–"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} B"


def printable(text: str) -> str:
    """Text whose control characters are replaced."""
    return NOT_PRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def not_judged(report: Facts) -> list[Facts]:
    """Runners of which nothing was run."""
    return [facts for facts in report["runners"] if facts["not_judged"]]


def failures_beside_cells(report: Facts) -> list[str]:
    """Why a report did not pass, of what is no cell: missing proofs, targets and answers, and what is worse than a baseline."""
    decided = [
        f"{one['runner']}, held-out questions: {one['reason']}"
        for one in report["decisions"]
        if one["status"] != "pass"
    ]
    return [*decided, *unproven(report), *report["missing"], *report["regressions"]]


def unproven(report: Facts) -> list[str]:
    """A line for each runner that only a CPU's float32 arithmetic speaks for."""
    speaking: dict[str, set[str]] = {}
    for cell in report["cells"]:
        if cell["kind"] != "reference":
            continue
        speaking.setdefault(cell["runner"], set()).add(cell["arithmetic"])
    alone = [name for name, kinds in speaking.items() if kinds == {"cpu-fp32-arithmetic"}]
    return [
        f"no proof for {name}: a CPU's float32 arithmetic never passes alone"
        for name in alone
        if name not in report["vouched"]
    ]
