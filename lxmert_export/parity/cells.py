"""One cell for each runner, output and input family: what was measured, and whether it passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from lxmert_export.parity.decisions import clear_choices, wrong_choices
from lxmert_export.parity.figures import Figures, measure_figures
from lxmert_export.parity.recording import Arithmetic, Recording, shapes
from lxmert_export.parity.scores import (
    EPS,
    PAIR_THRESHOLD,
    THRESHOLD,
    Chunks,
    Errors,
    Floor,
    errors,
    largest_share,
    pair_score,
    score_of,
    without_ties,
)
from lxmert_export.spec.sample_inputs import FAMILY_KINDS, SampleInputs
from lxmert_export.spec.signature import CHOICE_OUTPUTS, Signature, TensorSpec

REFERENCE = "float64"
Floors = Mapping[tuple[str, str], Floor]
# Only `pass` is a pass. Cells are `pass` or `FAIL`. A runner of which nothing was run is `built-not-run` or `skipped`.
Status = Literal["pass", "FAIL", "built-not-run", "skipped"]
# What a cell compares a runner with: the reference, another runner, its own first signature, or a law that it must obey.
CellKind = Literal["reference", "pair", "signature", "law"]


@dataclass(frozen=True)
class Cell:
    """One output of a runner in one input family, compared with the reference, another runner or a law.

    ``score`` is ``error_rms`` / ``floor``. Both ``score`` and ``error_rms`` are None if no values were compared, because names,
    shapes, dtypes or NaN failed first; ``reason`` says which. ``status`` is ``pass`` or ``FAIL``. ``figures``: further measures.
    """

    runner: str
    against: str
    output: str
    family: str
    arithmetic: Arithmetic
    status: Status
    reason: str | None
    score: float | None
    threshold: float
    error_rms: float | None
    error_max: float | None
    floor: float | None
    reference_rms: float | None
    samples: int
    values: int
    kind: CellKind = "reference"
    figures: Figures | None = None


def judge(
    runner: str,
    recording: Recording,
    reference: Recording,
    floors: Floors,
    signature: Signature,
    arithmetic: Arithmetic,
    *,
    precision: str,
    samples: SampleInputs | None = None,
    against: str = REFERENCE,
    kind: CellKind = "reference",
) -> list[Cell]:
    """Returns the cells of a runner against the float64 reference, or against the runner that ``against`` names.

    Checks, in this order: names, shapes and dtypes, NaN and infinity, values. Integers must be equal where the reference is
    not near a tie. An int8 runner must also make the reference's choices, in outputs that hold scores to choose by. The masks in
    ``samples`` say which rows have a choice.
    """
    specs = {spec.name: spec for spec in signature.outputs}
    cells = []
    for (family, output), whole in reference.items():
        computed = recording.get((family, output))
        floor = floors[family, output]
        reason = _structural_fault(computed, whole, specs[output]) or _unusable(floor, precision, family)
        found = figures = score = None
        wanted: Chunks = ()
        got: Chunks = ()
        if computed is not None and reason is None:
            wanted, got = without_ties(whole, floor), without_ties(computed, floor)
            reason = _inexact(wanted, got, floor)
        if reason is None:
            found = errors(wanted, got)
            score = score_of(found.rms, floor.rms)
            masks = _masks(samples, family, output)
            chosen = output in CHOICE_OUTPUTS
            figures = measure_figures(wanted, got, floor.rms, precision, masks=masks, chosen=chosen)
        cells.append(
            _cell(runner, against, output, family, arithmetic, kind, reason, score, THRESHOLD, found, floor, figures)
        )
    if precision != "int8" or samples is None:
        return cells
    return [_with_choices(cell, recording, reference, floors, samples) for cell in cells]


def _masks(samples: SampleInputs | None, family: str, output: str) -> Chunks | None:
    """Returns, for each batch of a family, the mask of rows that have a choice; None if all have one."""
    mask = CHOICE_OUTPUTS.get(output)
    if mask is None or samples is None:
        return None
    return next([batch[mask] for batch in known.batches] for known in samples.families if known.name == family)


def _with_choices(
    cell: Cell, recording: Recording, reference: Recording, floors: Floors, samples: SampleInputs
) -> Cell:
    """Returns the cell as FAIL if too few clear choices of its output, over all families, are the reference's."""
    if cell.output not in CHOICE_OUTPUTS or cell.reason:
        return cell
    keys = [
        key for key in reference
        if key[1] == cell.output and key in recording and shapes(recording[key]) == shapes(reference[key])
    ]  # fmt: skip
    counted = [clear_choices(recording[key], reference[key], floors[key].rms, _masks(samples, *key)) for key in keys]
    known = [counts for counts in counted if counts is not None]
    if len(known) < len(counted):
        return cell
    reason = wrong_choices(sum(agreed for agreed, _ in known), sum(clear for _, clear in known))
    return replace(cell, status="FAIL", reason=reason) if reason else cell


def judge_pair(
    names: tuple[str, str],
    recordings: tuple[Recording, Recording],
    floors: tuple[Floors, Floors],
    precisions: tuple[str, str],
    samples: SampleInputs | None = None,
) -> list[Cell]:
    """Returns the cells of two runners against each other, over every output that either has. Needs no reference."""
    one, other = recordings
    coarser = max(precisions, key=lambda precision: EPS[precision])
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
        both = (floors[0].get(key), floors[1].get(key))
        floor = both[0] or both[1]
        found = score = figures = None
        if reason is None:
            reason = _unusable(both[0], precisions[0], family) or _unusable(both[1], precisions[1], family)
        if reason is None and both[0] and both[1]:
            floor = joint_floor(both[0], both[1])
            left, right = without_ties(one[key], floor), without_ties(other[key], floor)
            reason = _inexact(right, left, floor)
        if reason is None and both[0] and both[1] and floor:
            found = errors(right, left)
            score = pair_score(found, both[0], both[1])
            masks = _masks(samples, family, output)
            figures = measure_figures(right, left, floor.rms, coarser, masks=masks, chosen=output in CHOICE_OUTPUTS)
        cells.append(
            _cell(*names, output, family, "native", "pair", reason, score, PAIR_THRESHOLD, found, floor, figures)
        )
    return cells


def joint_floor(one: Floor, other: Floor) -> Floor:
    """Returns the floor of the difference of two runners; near a tie for either is near a tie for both."""
    ties = None
    if one.ties is not None and other.ties is not None:
        ties = tuple(mine | theirs for mine, theirs in zip(one.ties, other.ties, strict=True))
    return replace(one, rms=float(np.hypot(one.rms, other.rms)), ties=ties)


def _inexact(wanted: Chunks, got: Chunks, floor: Floor) -> str | None:
    """Returns what is wrong with an output of integers, compared where the reference is not near a tie; None if nothing is."""
    if floor.ties is None:
        return None
    compared = sum(chunk.size for chunk in wanted)
    if not compared:
        return "every value is near a tie: nothing was compared"
    wrong = sum(int((left != right).sum()) for left, right in zip(wanted, got, strict=True))
    return f"{wrong} of {compared} integers differ that are not near a tie" if wrong else None


def _unusable(floor: Floor | None, precision: str, family: str) -> str | None:
    """Returns why a floor cannot be used, or None: it is missing, or so large that errors of any size would pass."""
    if floor is None:
        return "no floor is known for this output"
    if not np.isfinite(floor.rms):
        return "its noise floor is not finite"
    # Inputs that are not drawn, such as a user's own, may hold rows that are masked as a whole.
    limit = largest_share(precision, masked_rows=family not in FAMILY_KINDS or FAMILY_KINDS[family].masked_row)
    if not floor.reference_rms or floor.rms <= limit * floor.reference_rms:
        return None
    share = floor.rms / floor.reference_rms
    return f"its noise floor is {share:.2%} of the output, above {limit:.2%}: so much noise hides every fault"


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
    runner: str, against: str, output: str, family: str, arithmetic: Arithmetic, kind: CellKind, reason: str | None,
    score: float | None, threshold: float, found: Errors | None, floor: Floor | None, figures: Figures | None,
) -> Cell:  # fmt: skip
    passed = reason is None and score is not None and score <= threshold
    return Cell(
        runner=runner, against=against, output=output, family=family, arithmetic=arithmetic,
        status="pass" if passed else "FAIL", reason=reason, score=score, threshold=threshold,
        error_rms=found.rms if found else None, error_max=found.maximum if found else None,
        floor=floor.rms if floor else None, reference_rms=floor.reference_rms if floor else None,
        samples=floor.samples if floor else 0, values=found.values if found else 0,
        kind=kind, figures=figures,
    )  # fmt: skip


def _all_finite(chunks: Iterable[Any]) -> bool:
    return all(bool(np.isfinite(chunk).all()) for chunk in chunks)


def badness(cell: Cell) -> float:
    """Returns score / threshold, which is 1 at the threshold; infinity if there is no finite score."""
    if cell.score is None or not np.isfinite(cell.score) or not cell.threshold:
        return float("inf")
    return cell.score / cell.threshold
