"""From a shard of questions to the inputs of the calls that answer it: tokens, pictures, batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact.companions import tokenizer_of
from lxmert_export.artifact.directory import Artifact
from lxmert_export.data.pictures import Picture, PictureSource
from lxmert_export.errors import InputError
from lxmert_export.predicting.plan import Shard
from lxmert_export.runners.batches import Batch, sorted_batches
from lxmert_export.spec.inputs import Arrays

Shape = tuple[int, ...]
FEATURES, BOXES, SEEN = VISUAL = ("visual_feats", "visual_pos", "visual_attention_mask")
Takes = Callable[[dict[str, Shape]], bool]  # whether the runtime takes a call with these shapes of its inputs


@dataclass(frozen=True)
class Call:
    """One call for a shard: of a split artifact's vision half, or for some of its questions.

    ``rows``: numbers of the shard's looks (``sees``) or of its questions; further rows of ``inputs`` fill a fixed batch.
    ``looks``: the look of each row of ``inputs``. ``cut``: how many questions of the shard were cut.
    ``last``: its last call.
    """

    shard: Shard
    rows: tuple[int, ...]
    inputs: Arrays
    looks: NDArray[np.int64]
    sees: bool = False
    cut: int = 0
    last: bool = False


@dataclass(frozen=True)
class Seen:
    """The looks of a shard: its pictures, or pairs of pictures, each once.

    ``objects``: the number of each look, of a pair the larger one. ``look_of``: the look of each question.
    """

    looks: Sequence[tuple[Picture, ...]]
    objects: NDArray[np.int64]
    look_of: NDArray[np.int64]

    def inputs(self, looks: NDArray[np.int64], objects: int, names: Collection[str] = VISUAL) -> Arrays:
        """Returns some inputs of some looks [looks, (2 of a pair,) objects, …]; what a picture has fewer is masked."""
        first = self.looks[0][0]
        widths = {FEATURES: first.features.shape[1:], BOXES: first.boxes.shape[1:], SEEN: ()}
        shape = (len(looks), len(self.looks[0]), objects)
        found = {name: np.zeros((*shape, *widths[name]), np.float32) for name in VISUAL if name in names}
        for row, look in enumerate(looks.tolist()):
            for side, picture in enumerate(self.looks[look]):
                values = {FEATURES: picture.features, BOXES: picture.boxes, SEEN: 1}
                for name, array in found.items():
                    array[row, side, : len(picture.features)] = values[name]
        return {name: array if shape[1] > 1 else array[:, 0] for name, array in found.items()}


class ShardCalls:
    """Makes the calls of shards, for one artifact and one file of features."""

    def __init__(self, artifact: Artifact, source: PictureSource, batch: int, takes: Takes) -> None:
        self._artifact, self._source, self._batch, self._takes = artifact, source, batch, takes
        self._tokenizer, self._halves = tokenizer_of(artifact), artifact.halves
        signature, config = artifact.manifest.signature, artifact.manifest.config
        self._signature, self._fixed = signature, signature.fixed_sizes
        self._longest = self._fixed.get("text", config.max_position_embeddings)

    def of(self, shard: Shard, readers: Executor) -> Generator[Call, None, None]:
        """Yields the calls of a shard, those of the vision half first. ``InputError``: a picture cannot be read."""
        ids, cut = self._tokens(shard)
        seen = self._look(shard, readers)
        if self._halves is not None:
            yield from self._vision_calls(shard, seen)
        lengths = np.array([len(row) for row in ids])
        batches = sorted_batches(lengths, self._batch, self._fixed, self._longest, seen.objects[seen.look_of])
        for number, batch in enumerate(batches, 1):
            looks = seen.look_of[_filled(batch.questions, batch.filled)]
            objects = self._objects(seen, looks)
            text = self._text_taken(batch, objects)
            names = VISUAL if self._halves is None else self._halves.question_inputs
            words = _padded([ids[row] for row in batch.questions], text, batch.filled)
            inputs = words | seen.inputs(looks, objects, names)
            yield Call(shard, batch.questions, inputs, looks, cut=cut, last=number == len(batches))

    def _vision_calls(self, shard: Shard, seen: Seen) -> Generator[Call, None, None]:
        """Looks with as many objects as one another are seen together."""
        assert self._halves is not None
        rows = self._fixed.get("batch", self._batch)
        order = np.argsort(seen.objects, kind="stable")
        for start in range(0, len(order), rows):
            chosen = tuple(order[start : start + rows].tolist())
            looks = _filled(chosen, rows - len(chosen) if "batch" in self._fixed else 0)
            inputs = seen.inputs(looks, self._objects(seen, looks), self._halves.vision_inputs)
            yield Call(shard, chosen, inputs, looks, sees=True)

    def _tokens(self, shard: Shard) -> tuple[list[list[int]], int]:
        """The ids of each question, and how many questions were cut: their ends are left out, but for [SEP]."""
        rows: list[list[int]] = self._tokenizer([question.text for question in shard.questions])["input_ids"]
        longest = self._longest
        kept = [row if len(row) <= longest else [*row[: longest - 1], row[-1]] for row in rows]
        return kept, sum(len(row) > longest for row in rows)

    def _look(self, shard: Shard, readers: Executor) -> Seen:
        """Reads each picture of a shard once. ``InputError``: one cannot be read, or has more objects than the artifact takes."""
        looks = {pictures: number for number, pictures in enumerate(dict.fromkeys(q.pictures for q in shard.questions))}
        ids = list(dict.fromkeys(picture for pictures in looks for picture in pictures))
        read = dict(zip(ids, readers.map(self._source.read, ids), strict=True))
        most = self._fixed.get("objects")
        if most is not None and (over := [one for one in read.values() if len(one.features) > most]):
            raise InputError(
                f"{self._source.path}: picture {over[0].id} has {len(over[0].features)} objects, and {self._artifact.path} was "
                f"exported for {most}"
            )
        seen = [tuple(read[picture] for picture in pictures) for pictures in looks]
        objects = np.array([max(len(picture.features) for picture in pictures) for pictures in seen])
        return Seen(seen, objects, np.array([looks[question.pictures] for question in shard.questions]))

    def _objects(self, seen: Seen, looks: NDArray[np.int64]) -> int:
        return self._fixed.get("objects", int(seen.objects[looks].max()))

    def _text_taken(self, batch: Batch, objects: int) -> int:
        """The tokens to which a batch is padded: an engine may take texts from a certain length on."""
        if self._halves is not None:
            return batch.text
        for text in range(batch.text, self._longest + 1):
            sizes = {"batch": batch.shape[0], "text": text, "objects": objects}
            if self._takes({spec.name: spec.shape(sizes) for spec in self._signature.inputs}):
                return text
        raise InputError(
            f"{self._artifact.path}: takes no call of {batch.text} tokens and {objects} objects: build it for such sizes"
        )


def _filled(rows: Sequence[int], more: int) -> NDArray[np.int64]:
    """Row numbers, with the last one repeated."""
    return np.array([*rows, *[rows[-1]] * more])


def _padded(ids: Iterable[list[int]], text: int, filled: int) -> Arrays:
    """Ids and their mask [rows, text]; further rows repeat the last one."""
    rows = list(ids)
    rows += rows[-1:] * filled
    found = np.zeros((len(rows), text), np.int64)
    mask = np.zeros_like(found)
    for row, tokens in enumerate(rows):
        found[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    return {"input_ids": found, "attention_mask": mask}
