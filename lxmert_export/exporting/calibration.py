"""Calibration inputs: real inputs on which int8 measures the ranges of activations.

A quarter of the rows is held back to judge the artifact on. The rows come from a user's file, or are questions about scenes
of the demo world that nothing else uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from lxmert_export.errors import InputError
from lxmert_export.files import hub
from lxmert_export.option_names import option
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.sample_inputs import FAMILY_KINDS, LEAST_SAMPLES, LEAST_VALUES, Family, SampleInputs
from lxmert_export.spec.signature import Signature, TensorSpec
from lxmert_export.spec.user_inputs import read_user_rows
from lxmert_export.tokenizer.opening import load_tokenizer

# Scenes that are used neither for training (10,000 to 39,999) nor for validation or the held-out questions (0 to 1,999).
SCENE_SEEDS = range(50_000, 50_530)
JUDGED_SHARE = 4  # one row in four is held back to judge the artifact on
MOST_JUDGED = 128  # or more if a noise floor needs them: the float64 outputs of all these rows are in memory at once
BATCH = 16
FAMILY = "calibration"  # the family of the rows held back


@dataclass(frozen=True)
class Calibration:
    """Rows of real inputs (input name → array with one row per sample), and a description of where they came from."""

    rows: Arrays
    described: str

    def batches(self, signature: Signature) -> list[Arrays]:
        """Returns the rows to measure ranges on, in whole batches of the signature's batch size (16 if it is dynamic)."""
        return list(self._batches(signature, held_back=False))

    def judged(self, signature: Signature) -> SampleInputs:
        """Returns the rows held back, as the only family: the measured ranges do not hold for other families."""
        return SampleInputs(
            (Family(FAMILY, tuple(self._batches(signature, held_back=True)), whole=True),), tuple(FAMILY_KINDS)
        )

    def _batches(self, signature: Signature, *, held_back: bool) -> Iterator[Arrays]:
        count = len(next(iter(self.rows.values())))
        # Two rows at a time: a row and its masked copy stay together.
        pairs = [n for n in range(0, count, 2) if (n // 2 % JUDGED_SHARE == 0) == held_back]
        most = max(MOST_JUDGED, _least_judged(signature) + 1) // 2
        if held_back and len(pairs) > most:  # spread evenly over all rows
            pairs = [pairs[n * len(pairs) // most] for n in range(most)]
        chosen = np.array([n for pair in pairs for n in (pair, pair + 1) if n < count])
        size = signature.fixed_sizes.get("batch", BATCH)
        for first in range(0, len(chosen) - size + 1, size):
            part = chosen[first : first + size]
            yield {spec.name: self.rows[spec.name][part] for spec in signature.inputs}


def read_calibration(path: str | Path, signature: Signature, limits: InputLimits) -> Calibration:
    """Reads the rows of a user's file.

    Raises ``InputError`` if the rows do not fit the signature, do not differ, or if there are too few of them.
    """
    rows = read_user_rows(path, signature, limits)
    _check_differ(rows, str(path))
    _check_count(len(rows["input_ids"]), str(path), signature)  # masked copies do not count
    return Calibration(_with_masked_copies(rows), Path(path).name)


def demo_calibration(signature: Signature) -> Calibration:
    """Returns questions about scenes of the demo world, as inputs of the built-in checkpoint.

    Raises ``InputError`` if too few of them fit the fixed axes.
    """
    from lxmert_export.demo.drawing import draw_scene
    from lxmert_export.demo.features import find_objects
    from lxmert_export.demo.questions import draw_question
    from lxmert_export.demo.scenes import scene_of_seed
    from lxmert_export.demo.words import MOST_SHAPES

    tokenizer = load_tokenizer(hub.DEMO_DIRECTORY)
    scenes = [scene_of_seed(seed) for seed in SCENE_SEEDS]
    objects = [find_objects(draw_scene(scene)) for scene in scenes]
    ids = [
        tokenizer.encode(draw_question(scene, Random(seed)).text)
        for scene, seed in zip(scenes, SCENE_SEEDS, strict=True)
    ]
    fixed = signature.fixed_sizes
    text_size, objects_size = fixed.get("text", max(map(len, ids))), fixed.get("objects", MOST_SHAPES)
    fitting = [n for n in range(len(ids)) if len(ids[n]) <= text_size and len(objects[n].boxes) <= objects_size]
    described = f"{len(fitting)} questions about demo scenes {SCENE_SEEDS.start} to {SCENE_SEEDS.stop - 1}"
    _check_count(len(fitting), described, signature)

    def padded(arrays: list[NDArray[np.generic]], size: int) -> NDArray[np.generic]:
        return np.stack([np.pad(a, [(0, size - len(a)), *[(0, 0)] * (a.ndim - 1)]) for a in arrays])

    rows: Arrays = {
        "input_ids": padded([np.array(ids[n]) for n in fitting], text_size),
        "attention_mask": padded([np.ones(len(ids[n])) for n in fitting], text_size),
        "token_type_ids": np.zeros((len(fitting), text_size)),
        "visual_feats": padded([objects[n].features for n in fitting], objects_size),
        "visual_pos": padded([objects[n].boxes for n in fitting], objects_size),
        "visual_attention_mask": padded([np.ones(len(objects[n].boxes)) for n in fitting], objects_size),
    }  # fmt: skip
    typed = {spec.name: rows[spec.name].astype(spec.dtype) for spec in signature.inputs}
    return Calibration(typed, described)


def _with_masked_copies(rows: Arrays) -> Arrays:
    """If no row masks words (or objects), adds a copy of every row that masks the later half of its words (or objects).

    An int8 artifact that is calibrated without masked words or objects ignores masks, and nothing would test it on them.
    """
    masks = [name for name, array in rows.items() if name.endswith("attention_mask") and array.all()]
    if not masks:
        return rows
    copies = dict(rows)
    for name in masks:
        length = rows[name].shape[-1]
        copies[name] = (np.arange(length) < max(length // 2, 1)) * rows[name]
    # Each row stands beside its copy, so that rows of both kinds are measured and rows of both kinds are held back.
    return {
        name: np.stack([rows[name], copies[name].astype(rows[name].dtype)], axis=1).reshape(-1, *rows[name].shape[1:])
        for name in rows
    }


def _check_differ(rows: Arrays, described: str) -> None:
    """``InputError``: an input is the same in all rows. Their ranges would say nothing of other inputs."""
    for name in ("input_ids", "visual_feats"):
        if len(rows[name]) > 1 and (rows[name] == rows[name][:1]).all():
            raise InputError(
                f"{described}: {name} is the same in all {len(rows[name])} rows; calibration measures ranges on many different "
                f"inputs: give real ones as {option('calibration')}"
            )


def _check_count(rows: int, described: str, signature: Signature) -> None:
    """Raises ``InputError`` if the quarter that is held back would be too small to judge on."""
    needed = JUDGED_SHARE * _least_judged(signature)
    if rows < needed:
        output = min(signature.outputs, key=_values_of_a_row)
        fitting = " that fit the fixed axes" if signature.fixed_sizes else ""
        raise InputError(
            f"{described}: has {rows} rows; calibration needs at least {needed}{fitting}, because {output.name} has few values "
            f"({_values_of_a_row(output)} a row): give more as {option('calibration')}"
        )


def _least_judged(signature: Signature) -> int:
    """The least number of rows to judge on, in whole batches: as many as other families have."""
    smallest = min(map(_values_of_a_row, signature.outputs))
    batch = signature.fixed_sizes.get("batch", BATCH)
    return math.ceil(max(LEAST_SAMPLES, LEAST_VALUES / smallest) / batch) * batch


def _values_of_a_row(output: TensorSpec) -> int:
    """The values that an output has for a row at least: its dynamic axes may be 1."""
    return math.prod(size for size in output.axes[1:] if isinstance(size, int))
