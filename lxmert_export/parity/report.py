"""The parity report: all cells of one check, what was not run, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from lxmert_export.errors import LxmertExportError
from lxmert_export.parity.cells import Cell, Status, badness
from lxmert_export.parity.decisions import Decisions, percent
from lxmert_export.parity.divergence import Divergence
from lxmert_export.parity.prediction import Prediction

FORMAT_VERSION = 2
LATER_FACTS = ("settings", "runtime", "device", "gpu")
RunnerKind = Literal["artifact", "canonical", "transformers", "recorded", "device"]


@dataclass(frozen=True)
class RunnerFacts:
    """One row of the matrix: what a runner is, how large it is, and what it was made from.

    not_judged    None, or the status of a runner of which nothing was run (``skipped``, ``built-not-run``); ``reason`` says why
    bytes         the size of all its files
    source        the checkpoint that it was made from
    tools         the versions of the tools that made it
    settings      what its runtime was told that changes its arithmetic (``TF32 off``)
    runtime       what ran it (``onnxruntime``, ``openvino-bf16``), on which ``device``; None if that is not known
    gpu           of a GPU: its name, compute capability and driver, and the CUDA of its runtime
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
    settings: tuple[str, ...] = ()
    runtime: str | None = None
    device: str | None = None
    gpu: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON values; the last four only where they are known: reports of earlier versions lack them."""
        return {name: value for name, value in asdict(self).items() if name not in LATER_FACTS or value}


@dataclass(frozen=True)
class LawNotRun:
    """A law that could not be tried on a runner, and the reason. This is not a pass."""

    runner: str
    law: str
    reason: str


@dataclass(frozen=True)
class ParityReport:
    """All cells of one check, and what was not run. ``passed`` needs every cell to pass and no proof to be missing.

    families_not_run    families that at least one runner was not run on; ``not_run`` lists them by runner
    decisions           answers to the built-in checkpoint's held-out questions, and to a user's inputs with labels
    required            targets (``onnx``, or in one precision ``onnx:fp16``) that need a runner, and whose runners must all pass
    regressions         a line for each way in which the report is worse than its baseline
    divergences         where runners leave the reference, as ``--locate`` found
    provenance          the versions, the machine and the reference of the check
    predictions         half precision on a device: the errors that the emulator predicted, and those that were measured
    """

    cells: tuple[Cell, ...]
    families_not_run: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    # Runners that passed in the emulator at export (recorded in their manifest), with files of the same hashes as now.
    vouched: tuple[str, ...] = ()
    decisions: tuple[Decisions, ...] = ()
    not_run: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    runners: tuple[RunnerFacts, ...] = ()
    laws_not_run: tuple[LawNotRun, ...] = ()
    required: tuple[str, ...] = ()
    regressions: tuple[str, ...] = ()
    divergences: tuple[Divergence, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    predictions: tuple[Prediction, ...] = ()

    @property
    def unproven(self) -> list[str]:
        """Half-precision runners that were computed only in float32 by a CPU, which does not count alone."""
        judged = [cell for cell in self.cells if cell.kind == "reference"]
        proven = {cell.runner for cell in judged if cell.arithmetic != "cpu-fp32-arithmetic"} | set(self.vouched)
        return sorted({cell.runner for cell in judged} - proven)

    @property
    def failures(self) -> list[Cell]:
        """The cells that failed."""
        return [cell for cell in self.cells if cell.status == "FAIL"]

    @property
    def passed(self) -> bool:
        """True if something was compared, all of it passed, and nothing that is required is missing."""
        decided = all(decisions.passed for decisions in self.decisions)
        sound = bool(self.cells) and not self.failures and not self.unproven and decided
        return sound and not self.untouched and not self.missing and not self.regressions

    @property
    def untouched(self) -> list[str]:
        """Runners that were to be judged but were not compared with anything, because no family of inputs fits them."""
        compared = {name for cell in self.cells for name in (cell.runner, cell.against)}
        return [facts.name for facts in self.runners if facts.not_judged is None and facts.name not in compared]

    @property
    def missing(self) -> list[str]:
        """A line for each required target without a runner, and for each runner of a required target that did not pass."""
        lines = []
        for required in self.required:
            target, _, precision = required.partition(":")
            runners = [f for f in self.runners if f.target == target and precision in ("", f.precision)]
            short = [facts for facts in runners if self.status_of(facts.name) != "pass"]
            what = "target and precision" if precision else "target"
            lines += [f"{required} is required, but no runner of this {what} was named"] if not runners else []
            lines += [f"{required} is required, but {f.name} is {self.status_of(f.name)}{_because(f)}" for f in short]
        return lines

    def status_of(self, runner: str) -> Status:
        """Returns a runner's status: ``pass`` only if something of it was compared and all of its cells passed.

        A failed pair counts against both of its runners. Exception: if exactly one of the two also fails without pairs, the
        pair counts against that one only.
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
        """Whether it fails without pairs: against the reference, a law or its first signature, in decisions, or unproven."""
        cells = [cell for cell in self.failures if cell.kind != "pair" and runner in (cell.runner, cell.against)]
        decided = any(decided.runner == runner and not decided.passed for decided in self.decisions)
        return bool(cells) or decided or runner in self.unproven

    def worst_cells(self) -> list[Cell]:
        """For each runner, opponent, arithmetic and output, the cell with the worst score of all families."""
        worst: dict[tuple[str, str, str, str], Cell] = {}
        for cell in self.cells:
            key = (cell.runner, cell.against, cell.arithmetic, cell.output)
            if key not in worst or badness(cell) > badness(worst[key]):
                worst[key] = cell
        return list(worst.values())

    def summary(self) -> str:
        """One line: the verdict, then the number of cells and the worst score, or the worst failure."""
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
            return f"no proof for {', '.join(self.unproven)}: computed only in float32 by a CPU, which does not count alone"
        if failed := [decisions for decisions in self.decisions if not decisions.passed]:
            return f"{failed[0].runner}, {failed[0].asked} ({failed[0].arithmetic}): {failed[0].reason}"
        if self.untouched:
            return f"{', '.join(self.untouched)}: nothing was compared"
        return next(iter((*self.missing, *self.regressions)), None)

    def _least_accurate(self) -> str:
        """The answers of the least accurate runner, on each family of inputs that was answered."""
        kinds = dict.fromkeys(decisions.inputs for decisions in self.decisions)
        return "".join(_accuracy([one for one in self.decisions if one.inputs == inputs]) for inputs in kinds)

    def _not_judged(self) -> str:
        """Names what was not run, because a pass says nothing about it."""
        left = [f"{facts.name} {facts.not_judged}" for facts in self.runners if facts.not_judged is not None]
        return f"; not judged: {', '.join(left)}" if left else ""

    def to_dict(self) -> dict[str, Any]:
        """The whole report as JSON values; ``report.schema.json`` describes them."""
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
                "runners": [{**facts.to_dict(), "status": self.status_of(facts.name)} for facts in self.runners],
                "families_not_run": list(self.families_not_run),
                "not_run": {runner: list(families) for runner, families in self.not_run.items()},
                "laws_not_run": [asdict(law) for law in self.laws_not_run],
                "notes": list(self.notes),
                "vouched": list(self.vouched),
                "cells": [asdict(cell) for cell in self.cells],
                "decisions": [decisions.to_dict() for decisions in self.decisions],
                "divergences": [divergence.to_dict() for divergence in self.divergences],
                "predictions": [prediction.to_dict() for prediction in self.predictions],
            }.items()
            if name != "predictions" or value
        }


def _accuracy(decided: Sequence[Decisions]) -> str:
    worst = min(decided, key=lambda decisions: decisions.total.correct)
    least, several = worst.total, len({decisions.runner for decisions in decided}) > 1
    return (
        f"; {least.questions:,} {worst.asked}: accuracy {percent(least.correct, least.questions)} "
        f"(float64 {percent(least.reference_correct, least.questions)}), "
        f"agreement {percent(least.agreed, least.clear)}, {least.near_ties} near-ties aside"
    ) + (f" (least accurate runner: {worst.runner})" if several else "")


def _because(facts: RunnerFacts) -> str:
    return f" ({facts.reason})" if facts.reason else ""


def _too_much(cell: Cell) -> str:
    if cell.score is None or not np.isfinite(cell.score):
        return "its score is not a finite number"
    return f"score {cell.score:.3g} is above {cell.threshold:g}"


def _named(cell: Cell) -> str:
    return cell.runner if cell.kind == "reference" else f"{cell.runner} against {cell.against}"


def finite(value: Any) -> Any:
    """Returns the value with None for infinity and NaN, and lists for tuples, at every depth: JSON has neither."""
    if isinstance(value, Mapping):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, Iterable | Sequence) and not isinstance(value, str):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


class ParityError(LxmertExportError):
    """An artifact does not compute what its reference computes; ``report`` holds every figure."""

    def __init__(self, message: str, report: ParityReport) -> None:
        super().__init__(message)
        self.report = report
