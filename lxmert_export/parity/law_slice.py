"""A slice of the laws, for every gate: most of them together in one call, one row alone, and the same call again.

All calls vary a batch that the gate has already run. The whole set of laws (``laws``) takes twenty calls, and says which law is
broken; these take two and a half, and say that one is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lxmert_export.parity import laws
from lxmert_export.parity.cells import Cell, Floors
from lxmert_export.parity.law_scores import Examined, estimate_floors, judge_trial
from lxmert_export.parity.laws import BASE, NotRun, Subject, Trial
from lxmert_export.parity.recording import Arithmetic, Recording, Run
from lxmert_export.parity.scores import errors, score_of, without_ties
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.sample_inputs import FAMILY_KINDS, Family, SampleInputs, draw_batch
from lxmert_export.spec.signature import IMAGES_PER_SENTENCE, Signature

TOGETHER, ONE_ROW = "laws together", "one row alone"
# What an artifact computes from one input may differ by so many noise floors from run to run. Sound ones differ by no bit.
REPEATED = 1.0
PARTS: tuple[Callable[[Subject], Trial | str], ...] = (
    laws.masked_words, laws.masked_features, laws.masked_boxes, laws.permuted_objects, laws.padded_words, laws.padded_objects,
    laws.rows_reversed,
)  # fmt: skip


def repeated_cells(
    runner: str, arithmetic: Arithmetic, run: Run, samples: SampleInputs, recording: Recording, floors: Floors
) -> list[Cell]:
    """Runs a plain batch again: a cell for each output, which fails if it moves by more than ``REPEATED`` floors.

    Without plain inputs, one of another family; the floor of masked rows would hide noise.
    """
    family = next((family for family in samples.families if family.name == "plain"), samples.families[0])
    again = run(family.batches[0])
    return [
        _repeated(runner, arithmetic, family, output, recording[family.name, output][0], again, floors)
        for name, output in recording
        if name == family.name and (name, output) in floors
    ]


def _repeated(
    runner: str, arithmetic: Arithmetic, family: Family, output: str, first: np.ndarray, again: Arrays, floors: Floors
) -> Cell:  # fmt: skip
    floor = floors[family.name, output]
    ties = None if floor.ties is None or floor.ties[0].shape != first.shape else floor.ties[:1]
    fits = output in again and again[output].shape == first.shape
    found = None
    if fits:
        one = replace(floor, ties=ties)
        found = errors(without_ties([first], one), without_ties([again[output]], one))
    score = score_of(found.rms, floor.rms) if found and np.isfinite(found.rms) else None
    passed = score is not None and score <= REPEATED
    reason = None if score is not None else "NaN or infinity" if fits else "missing or of another shape"
    return Cell(
        runner=runner, against=f"law: {laws.DETERMINISM}", output=output, family=f"{family.name} again", arithmetic=arithmetic,
        status="pass" if passed else "FAIL", reason=reason, score=score, threshold=REPEATED,
        error_rms=found.rms if found else None, error_max=found.maximum if found else None,
        floor=floor.rms, reference_rms=floor.reference_rms, samples=len(first), values=found.values if found else 0, kind="law",
    )  # fmt: skip


def slice_subject(signature: Signature, config: LxmertConfig, samples: SampleInputs) -> Subject | None:
    """Returns a batch that was run, to vary; None if none of the families that have masks to vary was run."""
    families = {family.name: family for family in samples.families}
    family = next((families[name] for name in ("ragged", "token-types", "plain") if name in families), None)
    if family is None:
        return None
    batch = family.batches[0]
    sizes = {
        "batch": len(batch["input_ids"]),
        "text": batch["input_ids"].shape[1],
        "objects": batch["visual_feats"].shape[-2],
    }
    kind = replace(FAMILY_KINDS["token-types"], token_types=sizes["text"] > 1)
    other = draw_batch(kind, signature, config, sizes, np.random.default_rng(0))
    axes = laws.named_axes(signature, config)
    return Subject(signature, config, bases={BASE: batch}, other=other, family=family.name, axes=axes)


def sliced_trials(subject: Subject, outputs: Arrays) -> list[tuple[Subject, Arrays, Trial | NotRun]]:
    """Returns the trials, each with the rows that it varies and what these rows gave."""
    rows = subject.rows if "batch" in subject.fixed else max(subject.rows // 2, 1)
    some, alone = _first_rows(subject, outputs, rows), _first_rows(subject, outputs, 1)
    found: list[tuple[Subject, Arrays, Trial | NotRun]] = [(*some, together(some[0]))]
    if "batch" in subject.fixed:
        return [*found, (*alone, NotRun(laws.BATCH, ONE_ROW, f"batch is fixed to {subject.rows}"))]
    trial = Trial((alone[0].inputs,), seen=alone[0].masks, law=laws.BATCH, variation=ONE_ROW)
    return [*found, (*alone, trial)]


def together(subject: Subject) -> Trial | NotRun:
    """Other masked inputs, objects in another order, padding, and rows in reverse, in one call; without what does not fit."""
    varied, places = subject, dict[str, np.ndarray]()
    for make in PARTS:
        made = make(varied)
        if isinstance(made, Trial):
            varied = replace(varied, bases={BASE: made.calls[0]})
            places = {**made.places, **places}
    if varied is subject:
        return NotRun(TOGETHER, "all", "the fixed axes leave no room for any of them")
    return Trial((varied.inputs,), places=places, seen=subject.masks, law=TOGETHER, variation="all")


def _first_rows(subject: Subject, outputs: Arrays, rows: int) -> tuple[Subject, Arrays]:
    """Returns the first rows of the base call and of its outputs."""
    images = IMAGES_PER_SENTENCE * rows
    kept = {name: array[: images if subject.axes[name][0] == "images" else rows] for name, array in outputs.items()}
    inputs, other = ({name: array[:rows] for name, array in call.items()} for call in (subject.inputs, subject.other))
    return replace(subject, bases={BASE: inputs}, other=other), kept


def sliced_cells(
    runner: str, arithmetic: Arithmetic, run: Run, subject: Subject, outputs: Arrays, floors: Floors | None, precision: str,
    fits: Callable[[Arrays], bool],
) -> tuple[list[Cell], list[NotRun]]:  # fmt: skip
    """Judges the slice. ``floors``: by (family, output); None: they are estimated, with two calls more."""
    cells: list[Cell] = []
    not_run: list[NotRun] = []
    for some, kept, trial in sliced_trials(subject, outputs):
        if isinstance(trial, NotRun):
            not_run.append(trial)
        elif not all(map(fits, trial.calls)):
            not_run.append(NotRun(trial.law, trial.variation, "its calls are outside the engine's profiles"))
        else:
            if floors is None:
                floors = _estimated(run, some, kept, precision)
            known = {(BASE, name): floors[some.family, name] for name in kept}
            cells += judge_trial(Examined(runner, arithmetic, some, {BASE: kept}, known), trial, run)
    return cells, not_run


def _estimated(run: Run, subject: Subject, outputs: Arrays, precision: str) -> Floors:
    estimates = estimate_floors(run, subject.inputs, outputs, precision)
    return {(subject.family, name): floor for name, floor in estimates.items()}
