"""Judges a runner by the laws: runs the calls of a trial, aligns their outputs with the base call's, and scores the difference.

The score is that of a pair: the RMS difference / (sqrt(2) x floor). The floor of an output is

    in the golden file    the floor of the base call's family
    not there             an estimate from the runner: how far the output moves if features and boxes move by one rounding step

The network amplifies such a step about as much as its own rounding (benchmarks/laws.md has the measured ratio). An estimate is at
least the least floor. Outputs that no feature reaches (states of the language layers, which come before the cross-modality
layers) have the least floor.

A fully masked row adds -10000 to every attention score. Near 10000, float32 has steps of 2^-10. Rounding to these steps changes a
score by 2^-10 / sqrt(12) (RMS), and so each attention weight by this share of itself. The weighted mean changes by no larger
share. This share of the output's RMS is therefore added (as a root sum of squares) to an estimated floor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lxmert_export.errors import ArtifactError
from lxmert_export.parity.cells import Cell, Floors
from lxmert_export.parity.laws import BASE, UNMASKED, Subject, Trial, compared, laid_over
from lxmert_export.parity.recording import Arithmetic, Run
from lxmert_export.parity.scores import (
    EPS,
    PAIR_THRESHOLD,
    Errors,
    Floor,
    errors,
    int8_floor,
    measure_floor,
    pair_score,
)
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import TensorSpec

DRAWS = 2  # the number of nudged calls for an estimate
SCORE_ROUNDING = 2.0**-10 / 12**0.5  # RMS rounding error in float32 of a softmax's scores near -10000


def law_floors(run: Run, subject: Subject, bases: Mapping[str, Arrays], precision: str, golden: Floors) -> Floors:
    """Returns the floor of every output of each base call, by (base, output).

    ``bases``: the outputs of the base calls. ``golden``: the floors of a golden file by (family, output); may be empty.
    """
    floors = {}
    for base, outputs in bases.items():
        family = subject.family if base == BASE else "masked-row"
        known = {name for name in outputs if (family, name) in golden and golden[family, name].ties is None}
        if missing := {name: array for name, array in outputs.items() if name not in known}:
            for name, floor in estimate_floors(run, subject.bases[base], missing, precision).items():
                floors[base, name] = _beside_mask_bias(floor) if base == UNMASKED else floor
        floors |= {(base, name): golden[family, name] for name in known}
    return floors


def estimate_floors(run: Run, inputs: Arrays, outputs: Arrays, precision: str) -> dict[str, Floor]:
    """Estimates floors without a reference: how far ``outputs`` move if features and boxes of ``inputs`` move by one step.

    The step is that of the precision. int8's floor is not estimated, but ``int8_floor``, as everywhere. Integers that another
    call gives differently are near a tie.
    """
    if precision == "int8":
        return {name: int8_floor([array]) for name, array in outputs.items()}
    moved = [run(nudged(inputs, EPS[precision], seed)) for seed in range(DRAWS)]
    floors = {
        name: measure_floor([array] * DRAWS, [call[name] for call in moved], precision)
        for name, array in outputs.items()
    }
    return {name: _of_one_call(floor) for name, floor in floors.items()}


def _of_one_call(floor: Floor) -> Floor:
    return floor if floor.ties is None else replace(floor, ties=(np.logical_or.reduce(floor.ties),))


def _beside_mask_bias(floor: Floor) -> Floor:
    return replace(floor, rms=math.hypot(floor.rms, SCORE_ROUNDING * floor.reference_rms))


def nudged(inputs: Arrays, step: float, seed: int) -> Arrays:
    """Returns the inputs with each feature and box value changed by ± ``step`` x its own size."""
    generator = np.random.default_rng(seed)
    moved = dict(inputs)
    for name, array in inputs.items():
        if array.dtype.kind == "f" and not name.endswith("attention_mask"):
            signs = generator.choice([-step, step], array.shape)
            moved[name] = (array * (1 + signs)).astype(array.dtype)
    return moved


@dataclass(frozen=True)
class Examined:
    """A runner to be judged by the laws in one arithmetic. ``bases``: outputs of its base calls. ``floors``: their floors."""

    runner: str
    arithmetic: Arithmetic
    subject: Subject
    bases: Mapping[str, Arrays]
    floors: Floors


def judge_trial(examined: Examined, trial: Trial, run: Run) -> list[Cell]:
    """Returns a cell for every output. Checks, in this order: names, shapes, NaN and infinity, values.

    ``run`` is the examined runner's, or that of a runner of the same artifact with another number of threads. If a call raises
    ``ArtifactError``, every cell fails.
    """
    names = [spec.name for spec in examined.subject.signature.outputs]
    try:
        found = [run(call) for call in trial.calls]
    except ArtifactError as error:
        return [law_cell(examined, trial, name, str(error), None) for name in names]
    return [_judge_output(examined, trial, name, found) for name in names]


def _judge_output(examined: Examined, trial: Trial, name: str, found: Sequence[Arrays]) -> Cell:
    base, axes = examined.bases[trial.base], examined.subject.axes[name]
    if reason := _structural_fault(examined, trial, name, found):
        return law_cell(examined, trial, name, reason, None)
    got = laid_over(np.concatenate([outputs[name] for outputs in found]), axes, trial.places)
    belongs = compared(base[name].shape, axes, trial.seen)
    if (floor := examined.floors.get((trial.base, name))) and floor.ties is not None:
        belongs = belongs & ~floor.ties[0]
    wanted, got = base[name][belongs], got[belongs]
    if not wanted.size:
        reason = "nothing was compared"
    elif not (np.isfinite(wanted).all() and np.isfinite(got).all()):
        reason = "NaN or infinity"
    elif trial.to_the_bit and (moved := int(differ_in_bits(wanted, got).sum())):
        reason = f"{moved} of {wanted.size} values are not bit for bit those of the first call"
    return law_cell(examined, trial, name, reason, errors([wanted], [got]))


def differ_in_bits(wanted: NDArray[np.generic], got: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Tells which values differ, zeros of different signs among them."""
    bits = f"u{wanted.itemsize}"
    differ: NDArray[np.bool_] = wanted.view(bits) != got.view(bits)
    return differ


def _structural_fault(examined: Examined, trial: Trial, name: str, found: Sequence[Arrays]) -> str | None:
    """Returns what is wrong with the name or shape of an output, in the base call or the trial's calls."""
    subject = examined.subject
    base = (subject.bases[trial.base], examined.bases[trial.base])
    for inputs, outputs in (base, *zip(trial.calls, found, strict=True)):
        if name not in outputs:
            return "missing output"
        batch, text = inputs["input_ids"].shape
        sizes = {"batch": batch, "text": text, "objects": inputs["visual_feats"].shape[-2]}
        expected = TensorSpec(name, "", subject.axes[name]).shape(sizes)
        if (shape := outputs[name].shape) != expected:
            return f"shape {list(shape)}, expected {list(expected)}"
    return None


def law_cell(examined: Examined, trial: Trial, output: str, reason: str | None, found: Errors | None) -> Cell:
    """Returns a law's cell of the report: ``against`` names the law, ``family`` its variation."""
    floor = examined.floors.get((trial.base, output))
    if reason is None and floor is None:
        reason = "no floor is known for this output"
    score = pair_score(found, floor, floor) if found and floor else None
    passed = reason is None and score is not None and score <= PAIR_THRESHOLD
    return Cell(
        runner=examined.runner, against=f"law: {trial.law}", output=output, family=trial.variation,
        arithmetic=examined.arithmetic, status="pass" if passed else "FAIL", reason=reason,
        score=score, threshold=PAIR_THRESHOLD,
        error_rms=found.rms if found else None, error_max=found.maximum if found else None,
        floor=float(np.hypot(floor.rms, floor.rms)) if floor else None, reference_rms=floor.reference_rms if floor else None,
        samples=examined.subject.rows, values=found.values if found else 0, kind="law",
    )  # fmt: skip
