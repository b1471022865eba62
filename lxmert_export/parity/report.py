"""The measured statement that runners compute the same function: one cell per runner, output and input family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from lxmert_export.parity.decisions import Decisions, clear_choices, percent, wrong_choices
from lxmert_export.parity.recording import Arithmetic, Recording, shapes
from lxmert_export.parity.scores import PAIR_THRESHOLD, THRESHOLD, Errors, Floor, errors, pair_score
from lxmert_export.sample_inputs import SampleInputs
from lxmert_export.signature import CHOICE_OUTPUTS, Signature, TensorSpec

FORMAT_VERSION = 1
REFERENCE = "float64"
Floors = Mapping[tuple[str, str], Floor]


@dataclass(frozen=True)
class Cell:
    """One runner's output under one input family, against the reference or another runner.

    ``score`` is ``error_rms`` over ``floor``; both are None where names, shapes, dtypes or NaN failed before values could be
    compared, and ``reason`` says which. ``status`` is ``pass`` or ``FAIL``, nothing else.
    """

    runner: str
    against: str
    output: str
    family: str
    arithmetic: Arithmetic
    status: Literal["pass", "FAIL"]
    reason: str | None
    score: float | None
    threshold: float
    error_rms: float | None
    error_max: float | None
    floor: float | None
    reference_rms: float | None
    samples: int
    values: int


@dataclass(frozen=True)
class ParityReport:
    """All cells of one check, and what was not run; ``passed`` needs every cell to pass and no proof to be missing.

    ``decisions`` are the answers of each runner to the built-in checkpoint's held-out questions, where it was made from that.
    ``families_not_run`` are those that any runner was not run on, ``not_run`` says of each which.
    """

    cells: tuple[Cell, ...]
    families_not_run: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    # Runners whose precision the emulator proved when they were exported, over files of these very hashes.
    vouched: tuple[str, ...] = ()
    decisions: tuple[Decisions, ...] = ()
    not_run: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def unproven(self) -> list[str]:
        """Runners that only a CPU's float32 arithmetic speaks for, and outputs that nothing was compared for."""
        proven = {cell.runner for cell in self.cells if cell.arithmetic != "cpu-fp32-arithmetic"} | set(self.vouched)
        return sorted({cell.runner for cell in self.cells} - proven)

    @property
    def failures(self) -> list[Cell]:
        """The cells that failed."""
        return [cell for cell in self.cells if cell.status != "pass"]

    @property
    def passed(self) -> bool:
        """True only where something was compared, all of it passed, and no runner is left unproven."""
        decided = all(decisions.passed for decisions in self.decisions)
        return bool(self.cells) and not self.failures and not self.unproven and decided

    def worst_cells(self) -> list[Cell]:
        """For each runner, opponent and output, the cell of the family that fares worst."""
        worst: dict[tuple[str, str, str, str], Cell] = {}
        for cell in self.cells:
            key = (cell.runner, cell.against, cell.arithmetic, cell.output)
            if key not in worst or _badness(cell) > _badness(worst[key]):
                worst[key] = cell
        return list(worst.values())

    def summary(self) -> str:
        """One line: the verdict, how much was compared, and the worst figures or the first failure."""
        if self.failures:
            cell = max(self.failures, key=_badness)
            found = cell.reason or f"score {cell.score:.3g} is above {cell.threshold:g}"
            more = f" (and {len(self.failures) - 1} more cells)" if len(self.failures) > 1 else ""
            return f"parity FAILED: {cell.runner}, {cell.output}, {cell.family} inputs: {found}{more}"
        if not self.cells:
            return "parity FAILED: nothing was compared"
        if self.unproven:
            return (
                f"parity FAILED: no proof for {', '.join(self.unproven)}: a CPU's float32 arithmetic never passes alone"
            )
        if failed := [decisions for decisions in self.decisions if not decisions.passed]:
            return f"parity FAILED: {failed[0].runner}, held-out questions ({failed[0].arithmetic}): {failed[0].reason}"
        top = max(self.cells, key=_badness)
        return (
            f"parity passed: {len(self.cells)} cells, worst score {top.score:.2f} of {top.threshold:g} "
            f"({top.output}, {top.family} inputs)"
        ) + self._least_accurate()

    def _least_accurate(self) -> str:
        if not self.decisions:
            return ""
        least = min((decisions.total for decisions in self.decisions), key=lambda total: total.correct)
        return (
            f"; {least.questions:,} held-out questions: accuracy {percent(least.correct, least.questions)} "
            f"(float64 {percent(least.reference_correct, least.questions)}), "
            f"agreement {percent(least.agreed, least.clear)} but for {least.near_ties} near-ties"
        )

    def to_dict(self) -> dict[str, Any]:
        """The whole report as JSON holds it."""
        return {
            "format": FORMAT_VERSION,
            "passed": self.passed,
            "summary": self.summary(),
            "families_not_run": list(self.families_not_run),
            "not_run": {runner: list(families) for runner, families in self.not_run.items()},
            "notes": list(self.notes),
            "cells": [{k: _finite(v) for k, v in asdict(cell).items()} for cell in self.cells],
            "decisions": [decisions.to_dict() for decisions in self.decisions],
        }


def judge(
    runner: str,
    recording: Recording,
    reference: Recording,
    floors: Floors,
    signature: Signature,
    arithmetic: Arithmetic,
    *,
    against: str = REFERENCE,
    choices_of: SampleInputs | None = None,
) -> list[Cell]:
    """Cells of a runner against the float64 reference, or what else ``against`` names.

    In order: names, shapes and dtypes, NaN and infinity, values.

    int8 is judged by its choices too, where an output holds the scores of some: ``choices_of`` are the inputs of its.
    """
    specs = {spec.name: spec for spec in signature.outputs}
    cells = []
    for (family, output), wanted in reference.items():
        got = recording.get((family, output))
        floor = floors[family, output]
        reason = _structural_fault(got, wanted, specs[output])
        found = errors(wanted, got) if got is not None and reason is None else None
        score = None if found is None else found.rms / floor.rms if floor.rms else float(found.rms > 0) * float("inf")
        cells.append(_cell(runner, against, output, family, arithmetic, reason, score, THRESHOLD, found, floor))
    if choices_of is None:
        return cells
    return [_with_choices(cell, recording, reference, floors, choices_of) for cell in cells]


def _with_choices(
    cell: Cell, recording: Recording, reference: Recording, floors: Floors, samples: SampleInputs
) -> Cell:
    """The cell, failed where too few of its output's clear choices, over all families, are the reference's."""
    if cell.output not in CHOICE_OUTPUTS or cell.reason:
        return cell
    keys = [key for key in reference if key[1] == cell.output and key in recording]
    mask = CHOICE_OUTPUTS[cell.output]
    inputs = {family.name: family.batches for family in samples.families}
    counted = [
        clear_choices(
            recording[key], reference[key], floors[key].rms, [batch[mask] for batch in inputs[key[0]]] if mask else None
        )
        for key in keys
    ]
    known = [counts for counts in counted if counts is not None]
    if len(known) < len(counted):
        return cell
    reason = wrong_choices(sum(agreed for agreed, _ in known), sum(clear for _, clear in known))
    return replace(cell, status="FAIL", reason=reason) if reason else cell


def judge_pair(
    names: tuple[str, str], recordings: tuple[Recording, Recording], floors: tuple[Floors, Floors]
) -> list[Cell]:
    """Cells of two runners against each other, over every output that either has; needs no reference."""
    one, other = recordings
    cells = []
    for family, output in dict.fromkeys((*one, *other)):
        key = (family, output)
        reason = None
        if key not in one or key not in other:
            reason = f"missing from {names[0] if key not in one else names[1]}"
        elif shapes(one[key]) != shapes(other[key]):
            reason = f"shapes differ: {shapes(one[key])[0]} and {shapes(other[key])[0]}"
        elif not _all_finite(one[key]) or not _all_finite(other[key]):
            reason = "NaN or infinity"
        found = errors(one[key], other[key]) if reason is None else None
        both = (floors[0].get(key), floors[1].get(key))
        floor = both[0] or both[1]
        score = pair_score(found, both[0], both[1]) if found and both[0] and both[1] else None
        if reason is None and score is None:
            reason = "no floor is known for this output"
        cells.append(_cell(names[0], names[1], output, family, "native", reason, score, PAIR_THRESHOLD, found, floor))
    return cells


def _structural_fault(got: list[Any] | None, wanted: list[Any], spec: TensorSpec) -> str | None:
    if got is None:
        return "missing output"
    if shapes(got) != shapes(wanted):
        odd = next((g, w) for g, w in zip([*shapes(got), ()], [*shapes(wanted), ()], strict=False) if g != w)
        return f"shape {list(odd[0])}, expected {list(odd[1])}"
    if dtypes := {str(chunk.dtype) for chunk in got} - {spec.dtype}:
        return f"dtype {', '.join(sorted(dtypes))}, expected {spec.dtype}"
    return None if _all_finite(got) else "NaN or infinity"


def _cell(
    runner: str, against: str, output: str, family: str, arithmetic: Arithmetic, reason: str | None,
    score: float | None, threshold: float, found: Errors | None, floor: Floor | None,
) -> Cell:  # fmt: skip
    passed = reason is None and score is not None and score <= threshold
    return Cell(
        runner=runner, against=against, output=output, family=family, arithmetic=arithmetic,
        status="pass" if passed else "FAIL", reason=reason, score=score, threshold=threshold,
        error_rms=found.rms if found else None, error_max=found.maximum if found else None,
        floor=floor.rms if floor else None, reference_rms=floor.reference_rms if floor else None,
        samples=floor.samples if floor else 0, values=found.values if found else 0,
    )  # fmt: skip


def _all_finite(chunks: Iterable[Any]) -> bool:
    return all(bool(np.isfinite(chunk).all()) for chunk in chunks)


def _badness(cell: Cell) -> float:
    if cell.score is None or not np.isfinite(cell.score):
        return float("inf")
    return cell.score / cell.threshold


def _finite(value: Any) -> Any:
    """JSON has no infinity: None, with the reason beside it."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
