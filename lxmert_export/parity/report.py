"""The measured statement that runners compute the same function: all cells of one check, and the verdict on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from lxmert_export.errors import LxmertExportError
from lxmert_export.parity.cells import Cell, Status, badness
from lxmert_export.parity.decisions import Decisions, percent
from lxmert_export.parity.divergence import Divergence

FORMAT_VERSION = 2
RunnerKind = Literal["artifact", "canonical", "transformers", "recorded", "device"]


@dataclass(frozen=True)
class RunnerFacts:
    """One row of the matrix: what a runner is, how large, and where it came from.

    ``not_judged`` is its status where nothing of it was run (``skipped`` or ``built-not-run``), and ``reason`` says why.
    ``bytes`` is the size of all its files, ``source`` the checkpoint that it was made from, ``tools`` the versions that made it.
    """

    name: str
    kind: RunnerKind
    target: str
    precision: str
    not_judged: Status | None = None
    reason: str | None = None
    bytes: int | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LawNotRun:
    """A reference-free law that a runner could not be held to, and why: never a pass."""

    runner: str
    law: str
    reason: str


@dataclass(frozen=True)
class ParityReport:
    """All cells of one check, and what was not run; ``passed`` needs every cell to pass and no proof to be missing.

    ``decisions`` are the answers of each runner to the built-in checkpoint's held-out questions, where it was made from that.
    ``families_not_run`` are those that any runner was not run on, ``not_run`` says of each which. ``required`` are the targets of
    which a runner must be there, and all must pass. ``regressions`` tell where it is worse than a baseline.
    ``divergences`` are where runners leave the reference, as ``--locate`` found them; ``provenance`` is what it was run by, on
    what, against what.
    """

    cells: tuple[Cell, ...]
    families_not_run: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    # Runners whose precision the emulator proved when they were exported, over files of these very hashes.
    vouched: tuple[str, ...] = ()
    decisions: tuple[Decisions, ...] = ()
    not_run: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    runners: tuple[RunnerFacts, ...] = ()
    laws_not_run: tuple[LawNotRun, ...] = ()
    required: tuple[str, ...] = ()
    regressions: tuple[str, ...] = ()
    divergences: tuple[Divergence, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unproven(self) -> list[str]:
        """Runners that only a CPU's float32 arithmetic speaks for."""
        judged = [cell for cell in self.cells if cell.kind == "reference"]
        proven = {cell.runner for cell in judged if cell.arithmetic != "cpu-fp32-arithmetic"} | set(self.vouched)
        return sorted({cell.runner for cell in judged} - proven)

    @property
    def failures(self) -> list[Cell]:
        """The cells that failed."""
        return [cell for cell in self.cells if cell.status == "FAIL"]

    @property
    def passed(self) -> bool:
        """True only where something was compared, all of it passed, and nothing that was asked for is missing."""
        decided = all(decisions.passed for decisions in self.decisions)
        sound = bool(self.cells) and not self.failures and not self.unproven and decided
        return sound and not self.untouched and not self.missing and not self.regressions

    @property
    def untouched(self) -> list[str]:
        """Runners that were to be judged, and of which nothing was compared: no family of inputs was theirs."""
        compared = {name for cell in self.cells for name in (cell.runner, cell.against)}
        return [facts.name for facts in self.runners if facts.not_judged is None and facts.name not in compared]

    @property
    def missing(self) -> list[str]:
        """A line for each required target that no runner proves, or that some runner of it does not."""
        lines = []
        for target in self.required:
            found = [facts for facts in self.runners if facts.target == target]
            short = [facts for facts in found if self.status_of(facts.name) != "pass"]
            lines += [f"{target} is required, and no runner of it was named"] if not found else []
            lines += [f"{target} is required, and {f.name} is {self.status_of(f.name)}{_because(f)}" for f in short]
        return lines

    def status_of(self, runner: str) -> Status:
        """A runner's own status: ``pass`` only where all that it takes part in was compared and passed.

        A pair that fails speaks against both, unless one alone fails by itself: then against that one.
        """
        for facts in self.runners:
            if facts.name == runner and facts.not_judged is not None:
                return facts.not_judged
        its_own = [cell for cell in self.cells if runner in (cell.runner, cell.against)]
        opponents = {
            opponent
            for cell in its_own
            if cell.kind == "pair" and cell.status == "FAIL"
            for opponent in (cell.runner, cell.against)
            if opponent != runner
        }
        failed = self._fails_by_itself(runner) or not all(map(self._fails_by_itself, opponents))
        return "pass" if its_own and not failed else "FAIL"

    def _fails_by_itself(self, runner: str) -> bool:
        """Against the reference, a law, its own first signature or in its decisions; or for want of a proof."""
        cells = [cell for cell in self.failures if cell.kind != "pair" and runner in (cell.runner, cell.against)]
        decided = any(decided.runner == runner and not decided.passed for decided in self.decisions)
        return bool(cells) or decided or runner in self.unproven

    def worst_cells(self) -> list[Cell]:
        """For each runner, opponent and output, the cell of the family that fares worst."""
        worst: dict[tuple[str, str, str, str], Cell] = {}
        for cell in self.cells:
            key = (cell.runner, cell.against, cell.arithmetic, cell.output)
            if key not in worst or badness(cell) > badness(worst[key]):
                worst[key] = cell
        return list(worst.values())

    def summary(self) -> str:
        """One line: the verdict, how much was compared, and the worst figures or the first failure."""
        if fault := self._fault():
            return f"parity FAILED: {fault}"
        top = max(self.cells, key=badness)
        return (
            f"parity passed: {len(self.cells)} cells, worst score {top.score:.2f} of {top.threshold:g} "
            f"({top.output}, {top.family} inputs)"
        ) + (self._least_accurate() + self._not_judged())

    def _fault(self) -> str | None:
        if self.failures:
            cell = max(self.failures, key=badness)
            found = cell.reason or _too_much(cell)
            others = len(self.failures) - 1
            more = f" (and {others} more cell{'s' * (others > 1)})" if others else ""
            return f"{_named(cell)}, {cell.output}, {cell.family} inputs: {found}{more}"
        if not self.cells:
            because = "; ".join(f"{facts.name} is {facts.not_judged}{_because(facts)}" for facts in self.runners)
            return "nothing was compared" + (f": {because}" if because else "")
        if self.unproven:
            return f"no proof for {', '.join(self.unproven)}: a CPU's float32 arithmetic never passes alone"
        if failed := [decisions for decisions in self.decisions if not decisions.passed]:
            return f"{failed[0].runner}, held-out questions ({failed[0].arithmetic}): {failed[0].reason}"
        if self.untouched:
            return f"nothing was compared of {', '.join(self.untouched)}"
        return next(iter((*self.missing, *self.regressions)), None)

    def _least_accurate(self) -> str:
        if not self.decisions:
            return ""
        worst = min(self.decisions, key=lambda decisions: decisions.total.correct)
        least, several = worst.total, len({decisions.runner for decisions in self.decisions}) > 1
        return (
            f"; {least.questions:,} held-out questions: accuracy {percent(least.correct, least.questions)} "
            f"(float64 {percent(least.reference_correct, least.questions)}), "
            f"agreement {percent(least.agreed, least.clear)} but for {least.near_ties} near-ties"
        ) + (f" (the least accurate: {worst.runner})" if several else "")

    def _not_judged(self) -> str:
        """A pass speaks of what was run alone: what was not is named beside it."""
        left = [f"{facts.name} {facts.not_judged}" for facts in self.runners if facts.not_judged is not None]
        return f"; not judged: {', '.join(left)}" if left else ""

    def to_dict(self) -> dict[str, Any]:
        """The whole report as JSON holds it; ``report.schema.json`` describes it."""
        return {
            name: finite(value)
            for name, value in {
                "format": FORMAT_VERSION,
                "passed": self.passed,
                "summary": self.summary(),
                "provenance": dict(self.provenance),
                "required": list(self.required),
                "missing": self.missing,
                "regressions": list(self.regressions),
                "runners": [{**asdict(facts), "status": self.status_of(facts.name)} for facts in self.runners],
                "families_not_run": list(self.families_not_run),
                "not_run": {runner: list(families) for runner, families in self.not_run.items()},
                "laws_not_run": [asdict(law) for law in self.laws_not_run],
                "notes": list(self.notes),
                "vouched": list(self.vouched),
                "cells": [asdict(cell) for cell in self.cells],
                "decisions": [decisions.to_dict() for decisions in self.decisions],
                "divergences": [divergence.to_dict() for divergence in self.divergences],
            }.items()
        }


def _because(facts: RunnerFacts) -> str:
    return f" ({facts.reason})" if facts.reason else ""


def _too_much(cell: Cell) -> str:
    if cell.score is None or not np.isfinite(cell.score):
        return "its score is no finite number"
    return f"score {cell.score:.3g} is above {cell.threshold:g}"


def _named(cell: Cell) -> str:
    return cell.runner if cell.kind == "reference" else f"{cell.runner} against {cell.against}"


def finite(value: Any) -> Any:
    """JSON has no infinity and no tuples: None and lists, all the way down."""
    if isinstance(value, Mapping):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, Iterable | Sequence) and not isinstance(value, str):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


class ParityError(LxmertExportError):
    """An artifact does not compute what its reference computes; ``report`` has every figure."""

    def __init__(self, message: str, report: ParityReport) -> None:
        super().__init__(message)
        self.report = report
