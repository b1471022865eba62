"""Random sample inputs for parity, in families (named sets) that each exercise another part of the model.

Families are judged separately, because their noise floors differ by orders of magnitude: a fully masked row's is a thousand
times a plain row's. Sizes are small: a fault that changes twenty words also changes eight.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray

from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import Signature, TensorSpec

# A noise floor is pooled over at least so many samples and values. With fewer, scores would vary and fail by chance.
LEAST_SAMPLES = 16
LEAST_VALUES = 256
# In both shapes text differs from objects, so that swapped axes are noticed. The second shape shows whether a trace of the
# first one has fixed any size.
SHAPES = ({"text": 8, "objects": 5}, {"text": 6, "objects": 9})
LARGEST_BATCH = 64


@dataclass(frozen=True)
class FamilyKind:
    """How a family differs from plain inputs.

    | field | meaning |
    |---|---|
    | ``text``, ``objects`` | the number of words or objects; if the axis is fixed to more, the rest is masked |
    | ``ragged`` | each row masks another number of words and objects |
    | ``masked_row`` | even rows mask all their words, odd rows all their objects |
    | ``token_types`` | a second segment begins somewhere in each row |
    | ``row_alone`` | the last of the first rows is a batch of its own: a trace may have fixed that there are several |
    | ``zero_padded`` | ragged, with zeros for all numbers of the rest; odd rows mask the rest, even rows see it |
    """

    text: int | None = None
    objects: int | None = None
    ragged: bool = False
    masked_row: bool = False
    token_types: bool = True
    zero_padded: bool = False
    row_alone: bool = False

    def fits(self, fixed: Mapping[str, int]) -> bool:
        """Whether the fixed axes are large enough for the family."""
        least = {"text": self.text or (2 if self.ragged or self.token_types else 1), "objects": 2 if self.ragged else 1}
        return all(fixed.get(axis, size) >= size for axis, size in least.items())


FAMILY_KINDS = {
    "plain": FamilyKind(token_types=False, row_alone=True),
    "ragged": FamilyKind(ragged=True),
    "token-types": FamilyKind(),
    "one-object": FamilyKind(objects=1),
    "two-tokens": FamilyKind(text=2),
    "masked-row": FamilyKind(masked_row=True),
    "zero-padded": FamilyKind(ragged=True, zero_padded=True),
}


@dataclass(frozen=True)
class Family:
    """Batches of inputs of one kind.

    The first batches hold ``LEAST_SAMPLES`` rows, and every output is compared on them. Later batches are used only for outputs
    that have too few values so far. In a ``whole`` family every output is compared on every batch. ``labels``: the number of the
    true answer of each row (int64 [rows of all batches]), if it is known.
    """

    name: str
    batches: tuple[Arrays, ...]
    whole: bool = False
    labels: NDArray[np.int64] | None = None

    @property
    def rows(self) -> list[int]:
        """The number of rows of each batch."""
        return [len(batch["input_ids"]) for batch in self.batches]

    @property
    def first_batches(self) -> int:
        """The number of batches that hold the first ``LEAST_SAMPLES`` rows; in a whole family, the number of all batches."""
        if self.whole:
            return len(self.batches)
        return int(np.searchsorted(np.cumsum(self.rows), LEAST_SAMPLES) + 1)

    def pools(self, batch: int, output: TensorSpec) -> bool:
        """Whether an output is compared on a batch: always on the first ones, later only while it has too few values."""
        values_per_row = math.prod(size for size in output.axes[1:] if isinstance(size, int))
        rows_before = sum(self.rows[:batch])
        return batch < self.first_batches or rows_before * values_per_row < LEAST_VALUES


@dataclass(frozen=True)
class SampleInputs:
    """The families of sample inputs.

    ``not_run`` names the families for which the fixed axes are too small, and those that were left out.
    """

    families: tuple[Family, ...]
    not_run: tuple[str, ...]


def sample_inputs(
    signature: Signature, config: LxmertConfig, *, seed: int = 0, without: Collection[str] = ()
) -> SampleInputs:
    """Draws every family that fits the signature, but for those of ``without``.

    The same signature, config and seed give the same arrays, whatever is left out.
    """
    families = []
    for number, (name, kind) in enumerate(FAMILY_KINDS.items()):
        if kind.fits(signature.fixed_sizes) and name not in without:
            generator = np.random.default_rng((seed, number))
            sizes = _batch_sizes(kind, signature, config)
            families.append(Family(name, tuple(draw_batch(kind, signature, config, s, generator) for s in sizes)))
    run = {family.name for family in families}
    return SampleInputs(tuple(families), tuple(name for name in FAMILY_KINDS if name not in run))


def _batch_sizes(kind: FamilyKind, signature: Signature, config: LxmertConfig) -> Iterator[dict[str, int]]:
    """Sizes of the batches, in both shapes by turns, until there are enough samples and enough values of the smallest output."""
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
    wanted = max(LEAST_SAMPLES, math.ceil(LEAST_VALUES / smallest))
    rows = 0
    for number, few in enumerate(chain(_first_rows(kind), repeat(LARGEST_BATCH))):
        if rows >= wanted:
            return
        batch = fixed.get("batch", min(few, wanted - rows))
        yield {"batch": batch, **shapes[number % len(shapes)]}
        rows += batch


def _first_rows(kind: FamilyKind) -> list[int]:
    """How many rows each of the first batches has, both shapes by turns: ``LEAST_SAMPLES`` in all."""
    half = LEAST_SAMPLES // 2
    return [half, half - 1, 1] if kind.row_alone else [half, half]


def draw_batch(
    kind: FamilyKind,
    signature: Signature,
    config: LxmertConfig,
    sizes: Mapping[str, int],
    generator: np.random.Generator,
) -> Arrays:
    """Draws one batch of a kind, as the signature has it. ``sizes`` are those of batch, text and objects."""
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
    drawn["input_ids"] = np.where(words | kind.masked_row, drawn["input_ids"], 0)  # masked words are [PAD]
    if kind.zero_padded:
        for name in ("visual_feats", "visual_pos"):
            drawn[name] = np.where(objects[..., None], drawn[name], 0)
        drawn["attention_mask"], drawn["visual_attention_mask"] = words.copy(), objects.copy()
        drawn["attention_mask"][::2] = drawn["visual_attention_mask"][::2] = True
    for spec in signature.inputs:
        if spec.name not in drawn:  # an input of a user's own module
            normal = generator.standard_normal(shapes[spec.name])
            drawn[spec.name] = normal if np.dtype(spec.dtype).kind == "f" else np.zeros(shapes[spec.name])
    return {spec.name: drawn[spec.name].astype(spec.dtype) for spec in signature.inputs}


def _seen(
    kind: FamilyKind, text_shape: tuple[int, ...], object_shape: tuple[int, ...], generator: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of the words [rows, text] and the objects [rows, (2,) objects] that are seen: the first ones of each row."""
    longest, most = text_shape[-1], object_shape[-1]
    words = np.full(text_shape[:-1], min(kind.text or longest, longest))
    objects = np.full(object_shape[:-1], min(kind.objects or most, most))
    if kind.ragged:
        words = generator.integers(2, longest + 1, words.shape)
        objects = generator.integers(1, most + 1, objects.shape)
        words.flat[0], objects.flat[0] = max(longest - 1, 1), most - 1  # the first row always masks one of each
    if kind.masked_row:
        words[::2], objects[1::2] = 0, 0
    return np.arange(longest) < words[..., None], np.arange(most) < objects[..., None]


def _token_ids(config: LxmertConfig, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.int64]:
    ids = generator.integers(min(1, config.vocab_size - 1), config.vocab_size, shape)
    ids[:, 0] = 101 if config.vocab_size > 101 else config.vocab_size - 1  # 101 is [CLS] in BERT's vocabulary
    return ids


def _token_types(
    kind: FamilyKind, config: LxmertConfig, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.int64]:
    if not kind.token_types:
        return np.zeros(shape, dtype=np.int64)
    begins = generator.integers(1, max(shape[1], 2), (shape[0], 1))
    return np.where(np.arange(shape[1]) >= begins, config.type_vocab_size - 1, 0)


def _features(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
    """Features like a detector's: not negative, sparse, some large. fp16 holds them exactly, and golden files store them so."""
    rectified = np.maximum(generator.standard_normal(shape), 0) * generator.gamma(2.0, 0.5, (*shape[:-1], 1))
    return rectified.astype(np.float16).astype(np.float32)


def _boxes(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
    """Corners (x1, y1, x2, y2) in [0, 1] with x1 <= x2 and y1 <= y2; for another ``visual_pos_dim`` uniform numbers."""
    uniform = generator.random(shape)
    if shape[-1] == 4:
        first, second = uniform[..., :2], uniform[..., 2:]
        uniform = np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1)
    return uniform.astype(np.float16).astype(np.float32)
