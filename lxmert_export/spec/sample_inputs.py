"""Sample inputs for parity: seeded, lively, and in families that each reach another part of the model.

Families are judged apart, as their noise floors differ by orders of magnitude (a fully masked row's is a thousand
times a plain one's). Sizes are small: what a fault does to eight words it does to twenty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import Signature, TensorSpec

# A pool smaller than this makes a noisy floor, and a score that alarms by chance.
LEAST_SAMPLES = 16
LEAST_VALUES = 256
# Text differs from objects in both shapes, so that a swapped axis cannot go unseen; the second shape exercises what the
# first one's trace might have frozen.
SHAPES = ({"text": 8, "objects": 5}, {"text": 6, "objects": 9})
LARGEST_BATCH = 64


@dataclass(frozen=True)
class FamilyKind:
    """How a family differs from plain inputs.

    ``text`` and ``objects`` limit what is seen (where the axis is fixed, the rest is padding); ``ragged`` masks a different
    number of words and objects in each row; ``masked_row`` masks all words of even rows and all objects of odd ones.
    """

    text: int | None = None
    objects: int | None = None
    ragged: bool = False
    masked_row: bool = False
    token_types: bool = True

    def fits(self, fixed: Mapping[str, int]) -> bool:
        """Whether fixed axes leave room for what makes the family what it is."""
        least = {"text": self.text or (2 if self.ragged or self.token_types else 1), "objects": 2 if self.ragged else 1}
        return all(fixed.get(axis, size) >= size for axis, size in least.items())


FAMILY_KINDS = {
    "plain": FamilyKind(token_types=False),
    "ragged": FamilyKind(ragged=True),
    "token-types": FamilyKind(),
    "one-object": FamilyKind(objects=1),
    "two-tokens": FamilyKind(text=2),
    "masked-row": FamilyKind(masked_row=True),
}


@dataclass(frozen=True)
class Family:
    """Batches of one kind; the first few hold ``LEAST_SAMPLES`` rows, later ones only serve outputs of few values.

    Of a ``whole`` family every batch serves every output.
    """

    name: str
    batches: tuple[Arrays, ...]
    whole: bool = False

    @property
    def rows(self) -> list[int]:
        """Rows of each batch."""
        return [len(batch["input_ids"]) for batch in self.batches]

    @property
    def first_batches(self) -> int:
        """How many batches it takes to reach ``LEAST_SAMPLES`` rows; all of a whole family."""
        if self.whole:
            return len(self.batches)
        return int(np.searchsorted(np.cumsum(self.rows), LEAST_SAMPLES) + 1)

    def pools(self, batch: int, output: TensorSpec) -> bool:
        """Whether an output of a batch is compared: in all first batches, later only while its values are too few."""
        values_per_row = math.prod(size for size in output.axes[1:] if isinstance(size, int))
        rows_before = sum(self.rows[:batch])
        return batch < self.first_batches or rows_before * values_per_row < LEAST_VALUES


@dataclass(frozen=True)
class SampleInputs:
    """All families, and the names of those for which fixed axes leave no room."""

    families: tuple[Family, ...]
    not_run: tuple[str, ...]


def sample_inputs(signature: Signature, config: LxmertConfig, *, seed: int = 0) -> SampleInputs:
    """Draws every family that the signature has room for: the same arrays for the same signature, config and seed."""
    families = []
    for number, (name, kind) in enumerate(FAMILY_KINDS.items()):
        if kind.fits(signature.fixed_sizes):
            generator = np.random.default_rng((seed, number))
            sizes = _batch_sizes(kind, signature, config)
            families.append(Family(name, tuple(draw_batch(kind, signature, config, s, generator) for s in sizes)))
    run = {family.name for family in families}
    return SampleInputs(tuple(families), tuple(name for name in FAMILY_KINDS if name not in run))


def _batch_sizes(kind: FamilyKind, signature: Signature, config: LxmertConfig) -> Iterator[dict[str, int]]:
    """Sizes of the batches: both shapes until there are samples enough, then until the smallest output has values enough."""
    fixed = signature.fixed_sizes
    longest = config.max_position_embeddings
    shapes = [
        {
            "text": fixed.get("text", min(kind.text or shape["text"], longest)),
            "objects": fixed.get("objects", kind.objects or shape["objects"]),
        }
        for shape in SHAPES
    ]
    smallest = min(math.prod(size for size in output.axes[1:] if isinstance(size, int)) for output in signature.outputs)
    rows, wanted, number = 0, max(LEAST_SAMPLES, math.ceil(LEAST_VALUES / smallest)), 0
    while rows < wanted:
        few = LEAST_SAMPLES // len(SHAPES)
        batch = fixed.get("batch", few if rows < LEAST_SAMPLES else min(LARGEST_BATCH, wanted - rows))
        yield {"batch": batch, **shapes[number % len(shapes)]}
        rows, number = rows + batch, number + 1


def draw_batch(
    kind: FamilyKind,
    signature: Signature,
    config: LxmertConfig,
    sizes: Mapping[str, int],
    generator: np.random.Generator,
) -> Arrays:
    """One batch of a kind, of the sizes given to batch, text and objects."""
    shapes = {spec.name: spec.shape(sizes) for spec in signature.inputs}
    words, objects = _seen(kind, shapes["input_ids"], shapes["visual_feats"][:-1], generator)
    drawn: Arrays = {
        "input_ids": _token_ids(config, shapes["input_ids"], generator),
        "attention_mask": words,
        "token_type_ids": _token_types(kind, config, shapes["input_ids"], generator),
        "visual_feats": _features(shapes["visual_feats"], generator),
        "visual_pos": _boxes((*shapes["visual_feats"][:-1], config.visual_pos_dim), generator),
        "visual_attention_mask": objects,
    }
    drawn["input_ids"] = np.where(words | kind.masked_row, drawn["input_ids"], 0)  # [PAD] where nothing is seen
    for spec in signature.inputs:
        if spec.name not in drawn:  # an input of a user's own module
            normal = generator.standard_normal(shapes[spec.name])
            drawn[spec.name] = normal if np.dtype(spec.dtype).kind == "f" else np.zeros(shapes[spec.name])
    return {spec.name: drawn[spec.name].astype(spec.dtype) for spec in signature.inputs}


def _seen(
    kind: FamilyKind, text_shape: tuple[int, ...], object_shape: tuple[int, ...], generator: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which words [rows, text] and which objects [rows, (2,) objects] are seen: a prefix of each."""
    longest, most = text_shape[-1], object_shape[-1]
    words = np.full(text_shape[:-1], min(kind.text or longest, longest))
    objects = np.full(object_shape[:-1], min(kind.objects or most, most))
    if kind.ragged:
        words = generator.integers(2, longest + 1, words.shape)
        objects = generator.integers(1, most + 1, objects.shape)
        words.flat[0], objects.flat[0] = max(longest - 1, 1), most - 1  # at least one row is masked, whatever the draw
    if kind.masked_row:
        words[::2], objects[1::2] = 0, 0
    return np.arange(longest) < words[..., None], np.arange(most) < objects[..., None]


def _token_ids(config: LxmertConfig, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.int64]:
    ids = generator.integers(min(1, config.vocab_size - 1), config.vocab_size, shape)
    ids[:, 0] = 101 if config.vocab_size > 101 else config.vocab_size - 1  # [CLS] of BERT's vocabulary
    return ids


def _token_types(
    kind: FamilyKind, config: LxmertConfig, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.int64]:
    if not kind.token_types:
        return np.zeros(shape, dtype=np.int64)
    # The second segment begins somewhere after the first word.
    begins = generator.integers(1, max(shape[1], 2), (shape[0], 1))
    return np.where(np.arange(shape[1]) >= begins, config.type_vocab_size - 1, 0)


def _features(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
    """Like pooled detector features: never negative, sparse, some of them large; exact in fp16, so stored as such."""
    rectified = np.maximum(generator.standard_normal(shape), 0) * generator.gamma(2.0, 0.5, (*shape[:-1], 1))
    return rectified.astype(np.float16).astype(np.float32)


def _boxes(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
    """Corners (x1, y1, x2, y2) within [0, 1], x1 < x2 and y1 < y2; other widths get plain uniform numbers."""
    uniform = generator.random(shape)
    if shape[-1] == 4:
        first, second = uniform[..., :2], uniform[..., 2:]
        uniform = np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1)
    return uniform.astype(np.float16).astype(np.float32)
