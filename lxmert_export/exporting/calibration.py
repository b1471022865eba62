"""Calibration inputs: real inputs on which int8 measures the ranges of activations.

A quarter of the rows is held back to judge the artifact on. The rows come from a user's file of inputs, or from files of features
and questions, or are questions about scenes of the demo world that nothing else uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lxmert_export.data.features.opening import open_features
from lxmert_export.data.pictures import PictureSource
from lxmert_export.data.questions.question_set import Question
from lxmert_export.data.questions.reading import read_questions
from lxmert_export.errors import InputError
from lxmert_export.exporting.model_to_export import ModelToExport
from lxmert_export.files import hub
from lxmert_export.option_names import option
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.sample_inputs import FAMILY_KINDS, LEAST_SAMPLES, LEAST_VALUES, Family, SampleInputs
from lxmert_export.spec.signature import Signature, TensorSpec
from lxmert_export.spec.user_inputs import read_user_rows
from lxmert_export.tokenizer.opening import load_tokenizer
from lxmert_export.tokenizer.pretrained import PreTrainedLxmertTokenizer

# Scenes that are used neither for training (10,000 to 39,999) nor for validation or the held-out questions (0 to 1,999).
SCENE_SEEDS = range(50_000, 50_530)
JUDGED_SHARE = 4  # one row in four is held back to judge the artifact on
MOST_JUDGED = 128  # or more if a noise floor needs them: the float64 outputs of all these rows are in memory at once
BATCH = 16
FAMILY = "calibration"  # the family of the rows held back
MOST_PICTURED = 256  # questions that are taken from a file: their features are in memory at once
ORDER_SEED = 19  # of the order in which a file's questions are tried


class Seen(NamedTuple):
    """Features [objects, width] and boxes [objects, 4] of a picture."""

    features: NDArray[np.generic]
    boxes: NDArray[np.generic]


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


def pictured_calibration(
    features: str | Path, questions: str | Path, model: ModelToExport, signature: Signature
) -> Calibration:
    """Returns questions of a file about pictures of a file of features, tokenised with the checkpoint's own tokenizer.

    At most ``MOST_PICTURED`` are taken (or as many as are needed), from all over the file. Raises ``InputError`` if a file cannot
    be read or does not fit the model, if too few questions have pictures, or if the checkpoint has no tokenizer.
    """
    tokenizer = _tokenizer_of(model)
    with open_features(features) as source:
        if source.feature_width != model.config.visual_feat_dim:
            raise InputError(
                f"{features}: its features are {source.feature_width} wide, and {model.name} takes {model.config.visual_feat_dim}"
            )
        asked = read_questions(Path(questions)).spelled_as_in(set(source.ids)).questions
        wanted = 2 if signature.lxmert_task == "nlvr2" else 1
        known = [one for one in asked if len(one.pictures) == wanted and all(name in source for name in one.pictures)]
        most = max(MOST_PICTURED, JUDGED_SHARE * _least_judged(signature))
        longest = signature.fixed_sizes.get("text", model.config.max_position_embeddings)
        fitting = list(islice(_fitting(known, source, tokenizer, longest, signature), most))
    described = f"{len(fitting)} questions of {Path(questions).name} about pictures of {Path(features).name}"
    _check_count(len(fitting), described, signature)
    found = _rows(fitting, signature)
    _check_differ(found, described)
    return Calibration(_with_masked_copies(found), described)


def _fitting(
    known: Sequence[Question],
    source: PictureSource,
    tokenizer: PreTrainedLxmertTokenizer,
    longest: int,
    signature: Signature,
) -> Iterator[tuple[list[int], tuple[Seen, ...]]]:
    """Yields token ids and pictures of questions that fit the fixed axes, from all over the file, always in the same order."""
    order = Random(ORDER_SEED).sample(range(len(known)), len(known))
    for start in range(0, len(order), MOST_PICTURED):
        part = [known[number] for number in order[start : start + MOST_PICTURED]]
        ids: list[list[int]] = tokenizer([one.text for one in part])["input_ids"]
        for tokens, one in zip(ids, part, strict=True):
            if len(tokens) > longest:
                continue
            pictures = [source.read(name) for name in one.pictures]
            seen = tuple(Seen(picture.features, picture.boxes) for picture in pictures)
            if _fits(tokens, seen, signature.fixed_sizes):
                yield tokens, seen


def _tokenizer_of(model: ModelToExport) -> PreTrainedLxmertTokenizer:
    """``InputError``: no tokenizer lay beside the weights."""
    if not model.companions.have_tokenizer:
        raise InputError(
            f"{model.name}: has no tokenizer for {option('questions')}: put its vocab.txt beside the weights, or give inputs "
            f"with token ids as {option('calibration')} alone"
        )
    with TemporaryDirectory(prefix="lxmert-export-tokenizer-") as place:
        model.companions.write(Path(place))
        return load_tokenizer(place)


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
    asked = [(tokens, (Seen(one.features, one.boxes),)) for tokens, one in zip(ids, objects, strict=True)]
    fitting = [one for one in asked if _fits(*one, signature.fixed_sizes)]
    described = f"{len(fitting)} questions about demo scenes {SCENE_SEEDS.start} to {SCENE_SEEDS.stop - 1}"
    _check_count(len(fitting), described, signature)
    return Calibration(_rows(fitting, signature, most_objects=MOST_SHAPES), described)


def _fits(ids: Sequence[int], seen: Sequence[Seen], fixed: Mapping[str, int]) -> bool:
    """Whether a question and its pictures fit the fixed axes."""
    most = max(len(one.boxes) for one in seen)
    return len(ids) <= fixed.get("text", len(ids)) and most <= fixed.get("objects", most)


def _rows(
    asked: Sequence[tuple[Sequence[int], Sequence[Seen]]], signature: Signature, *, most_objects: int = 1
) -> Arrays:
    """The inputs of questions, one row each, padded to one length: token ids, and what is seen of one picture or two.

    Objects are padded to at least ``most_objects``, or the fixed axis.
    """
    fixed = signature.fixed_sizes
    text = fixed.get("text", max(len(ids) for ids, _ in asked))
    objects = fixed.get("objects", max(most_objects, *(len(one.boxes) for _, seen in asked for one in seen)))

    def padded(array: NDArray[np.generic], size: int) -> NDArray[np.generic]:
        return np.pad(array, [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)])

    def pictured(arrays: Callable[[Seen], NDArray[np.generic]]) -> NDArray[np.generic]:
        found = np.stack([np.stack([padded(arrays(one), objects) for one in seen]) for _, seen in asked])
        return found if found.shape[1] > 1 else found[:, 0]  # nlvr2's inputs have an axis of two pictures

    rows: Arrays = {
        "input_ids": np.stack([padded(np.array(ids), text) for ids, _ in asked]),
        "attention_mask": np.stack([padded(np.ones(len(ids)), text) for ids, _ in asked]),
        "token_type_ids": np.zeros((len(asked), text)),
        "visual_feats": pictured(lambda one: one.features),
        "visual_pos": pictured(lambda one: one.boxes),
        "visual_attention_mask": pictured(lambda one: np.ones(len(one.boxes))),
    }
    return {spec.name: rows[spec.name].astype(spec.dtype) for spec in signature.inputs}


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
