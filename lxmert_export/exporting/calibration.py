"""Real inputs: what activations range over is measured on them. Full-integer TFLite is judged on some that are kept back.

They come from a file of the user's, or are questions about scenes of the demo world that nothing else asks.
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
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.sample_inputs import FAMILY_KINDS, LEAST_SAMPLES, LEAST_VALUES, Family, SampleInputs
from lxmert_export.spec.signature import Signature
from lxmert_export.spec.user_inputs import read_user_rows
from lxmert_export.tokenizer.opening import load_tokenizer

# Scenes that neither training (10,000 to 39,999), validation nor the held-out questions (0 to 1,999) have seen.
SCENE_SEEDS = range(50_000, 50_530)
JUDGED_SHARE = 4  # one row in so many is kept back to judge by,
MOST_JUDGED = 128  # and of these no more than so many: their float64 outputs are held at once
BATCH = 16
FAMILY = "calibration"  # what the rows kept back are called among the families of inputs


@dataclass(frozen=True)
class Calibration:
    """Rows of real inputs by name, and where they came from."""

    rows: Arrays
    described: str

    def batches(self, signature: Signature) -> list[Arrays]:
        """The rows to measure ranges on, in batches that the signature takes."""
        return list(self._batches(signature, kept_back=False))

    def judged(self, signature: Signature) -> SampleInputs:
        """The rows kept back, as the only family: on other inputs, ranges say nothing."""
        return SampleInputs(
            (Family(FAMILY, tuple(self._batches(signature, kept_back=True)), whole=True),), tuple(FAMILY_KINDS)
        )

    def _batches(self, signature: Signature, *, kept_back: bool) -> Iterator[Arrays]:
        count = len(next(iter(self.rows.values())))
        # Two rows at a time: a row and its masked copy stay together.
        pairs = [n for n in range(0, count, 2) if (n // 2 % JUDGED_SHARE == 0) == kept_back]
        most = max(MOST_JUDGED, _least_judged(signature) + 1) // 2
        if kept_back and len(pairs) > most:  # spread over all of them
            pairs = [pairs[n * len(pairs) // most] for n in range(most)]
        chosen = np.array([n for pair in pairs for n in (pair, pair + 1) if n < count])
        size = signature.fixed_sizes.get("batch", BATCH)
        for first in range(0, len(chosen) - size + 1, size):
            part = chosen[first : first + size]
            yield {spec.name: self.rows[spec.name][part] for spec in signature.inputs}


def read_calibration(path: str | Path, signature: Signature, limits: InputLimits) -> Calibration:
    """Rows for full-integer, of a file of the user's. ``InputError``: it does not fit, or there are too few of them."""
    rows = read_user_rows(path, signature, limits)
    _check_count(len(rows["input_ids"]), str(path), signature)  # of rows that differ: a masked copy is not one more
    return Calibration(_with_masked_copies(rows), Path(path).name)


def demo_calibration(signature: Signature) -> Calibration:
    """Questions about scenes of the demo world, as the built-in checkpoint is asked them."""
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
    text, room = fixed.get("text", max(map(len, ids))), fixed.get("objects", MOST_SHAPES)
    kept = [n for n in range(len(ids)) if len(ids[n]) <= text and len(objects[n].boxes) <= room]
    described = f"{len(kept)} questions about demo scenes {SCENE_SEEDS.start} to {SCENE_SEEDS.stop - 1}"
    _check_count(len(kept), described, signature)

    def padded(arrays: list[NDArray[np.generic]], size: int) -> NDArray[np.generic]:
        return np.stack([np.pad(a, [(0, size - len(a)), *[(0, 0)] * (a.ndim - 1)]) for a in arrays])

    rows: Arrays = {
        "input_ids": padded([np.array(ids[n]) for n in kept], text),
        "attention_mask": padded([np.ones(len(ids[n])) for n in kept], text),
        "token_type_ids": np.zeros((len(kept), text)),
        "visual_feats": padded([objects[n].features for n in kept], room),
        "visual_pos": padded([objects[n].boxes for n in kept], room),
        "visual_attention_mask": padded([np.ones(len(objects[n].boxes)) for n in kept], room),
    }  # fmt: skip
    typed = {spec.name: rows[spec.name].astype(spec.dtype) for spec in signature.inputs}
    return Calibration(typed, described)


def _with_masked_copies(rows: Arrays) -> Arrays:
    """Rows that mask nothing, again with the later half of their words or objects masked.

    An int8 artifact that has never met a masked key takes none for masked, and would not be judged on any either.
    """
    masks = [name for name, array in rows.items() if name.endswith("attention_mask") and array.all()]
    if not masks:
        return rows
    copies = dict(rows)
    for name in masks:
        length = rows[name].shape[-1]
        copies[name] = (np.arange(length) < max(length // 2, 1)) * rows[name]
    # Each row and its copy side by side, so that both halves get some of either.
    return {
        name: np.stack([rows[name], copies[name].astype(rows[name].dtype)], axis=1).reshape(-1, *rows[name].shape[1:])
        for name in rows
    }


def _check_count(rows: int, described: str, signature: Signature) -> None:
    """``InputError``: too few rows to measure ranges on some, and to judge by as many others as drawn inputs have."""
    needed = JUDGED_SHARE * _least_judged(signature)
    if rows < needed:
        raise InputError(f"{described}: has {rows} rows; full-integer needs {needed} or more that fit the fixed axes")


def _least_judged(signature: Signature) -> int:
    """Rows to judge by, whole batches of them: as many as other families of inputs have."""
    smallest = min(math.prod(size for size in o.axes[1:] if isinstance(size, int)) for o in signature.outputs)
    batch = signature.fixed_sizes.get("batch", BATCH)
    return math.ceil(max(LEAST_SAMPLES, LEAST_VALUES / smallest) / batch) * batch
