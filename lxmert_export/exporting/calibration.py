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
from lxmert_export.files.array_files import read_arrays
from lxmert_export.spec.inputs import Arrays, InputLimits, prepare_inputs
from lxmert_export.spec.sample_inputs import KINDS, LEAST_SAMPLES, LEAST_VALUES, Family, SampleInputs
from lxmert_export.spec.signature import Signature
from lxmert_export.tokenizer.opening import load_tokenizer

# Scenes that neither training (10,000 to 39,999), validation nor the held-out questions (0 to 1,999) have seen.
SCENE_SEEDS = range(50_000, 50_530)
JUDGED_SHARE = 4  # one row in so many is kept back to judge by,
MOST_JUDGED = 128  # and of these no more than so many: their float64 outputs are held at once
# Features and boxes beyond this are no measurements, and near float32's end TensorFlow's calibrator ends the process.
LARGEST_MAGNITUDE = 1e6
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
            (Family(FAMILY, tuple(self._batches(signature, kept_back=True)), whole=True),), tuple(KINDS)
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
    """Rows for full-integer, of a file that ``read_rows`` takes. ``InputError``: there are too few of them."""
    rows = read_rows(path, signature, limits)
    _check_count(len(rows["input_ids"]), str(path), signature)  # of rows that differ: a masked copy is not one more
    return Calibration(_with_masked_copies(rows), Path(path).name)


def read_batches(path: str | Path, signature: Signature, limits: InputLimits) -> list[Arrays]:
    """All rows of a file that ``read_rows`` takes, in batches that the signature takes. ``InputError``: none is filled."""
    rows = read_rows(path, signature, limits)
    count, fixed = len(rows["input_ids"]), signature.fixed_sizes.get("batch")
    size = fixed or BATCH
    if count < (fixed or 1):
        raise InputError(f"{path}: has {count} rows; the batch axis is fixed to {size}")
    firsts = range(0, count - size + 1 if fixed else count, size)
    return [{name: array[first : first + size] for name, array in rows.items()} for first in firsts]


def read_rows(path: str | Path, signature: Signature, limits: InputLimits) -> Arrays:
    """Real inputs of a ``.npz`` or ``.safetensors`` file: an array [rows, …] for each, masks and token types optional.

    ``InputError``: a file that cannot be read, or rows that the signature does not take.
    """
    file = Path(path)
    arrays = read_arrays(file, "calibration inputs")
    try:
        rows = prepare_inputs(arrays, signature.of_any_batch(), limits)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    if wrong := [name for name, array in rows.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]:
        raise InputError(f"{file}: {', '.join(wrong)} holds NaN or infinity, of which no range can be measured")
    if wrong := [name for name, array in rows.items() if np.abs(array).max() > LARGEST_MAGNITUDE]:
        raise InputError(
            f"{file}: {wrong[0]} reaches {np.abs(rows[wrong[0]]).max():.3g}; real inputs stay below {LARGEST_MAGNITUDE:g}"
        )
    masks = {name: array for name, array in rows.items() if name.endswith("attention_mask")}
    if wrong := [name for name, mask in masks.items() if not np.isin(mask, (0, 1)).all()]:
        raise InputError(f"{file}: {', '.join(wrong)} holds other values than 0 and 1; 1 is seen, 0 is masked")
    return rows


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
