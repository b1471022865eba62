"""A workload as VQA is: questions of ragged lengths, several about each image. Read from a file, the same in every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.manifest import Manifest
from lxmert_export.errors import InputError
from lxmert_export.files.json_files import check_schema, read_json
from lxmert_export.files.limits import MOST_VALUES_A_CALL
from lxmert_export.runners.batches import Batch
from lxmert_export.runners.split import of_rows
from lxmert_export.spec.halves import Halves
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.sample_inputs import FamilyKind, draw_batch
from lxmert_export.spec.signature import task_signature

SCHEMA = "benching/workload.schema.json"
LARGEST_FILE = 1_000_000  # bytes; ours has 700


@dataclass(frozen=True)
class Workload:
    """Questions and images, as their file has them.

    ``lengths``: how many of the questions have so many tokens, [CLS] and [SEP] included; scaled to the number of ``questions``.
    ``baseline_batch``, ``baseline_tokens``: the usual loop takes batches in the order of the questions, padded to one length.
    """

    seed: int
    questions: int
    questions_an_image: float
    objects: int
    lengths: Mapping[int, int]
    baseline_batch: int
    baseline_tokens: int

    @property
    def images(self) -> int:
        """The number of images."""
        return max(round(self.questions / self.questions_an_image), 1)

    @cached_property
    def question_lengths(self) -> NDArray[np.int64]:
        """The tokens of each question, in the order of the questions."""
        shares = {length: count * self.questions / sum(self.lengths.values()) for length, count in self.lengths.items()}
        counts = {length: int(share) for length, share in shares.items()}
        by_remainder = sorted(shares, key=lambda length: (counts[length] - shares[length], length))
        for length in by_remainder[: self.questions - sum(counts.values())]:
            counts[length] += 1
        ordered = np.repeat(list(counts), list(counts.values())).astype(np.int64)
        return np.random.default_rng(self.seed).permutation(ordered)

    @property
    def image_of(self) -> NDArray[np.int64]:
        """The image of each question: questions about one image follow one another."""
        return np.arange(self.questions) * self.images // self.questions


@dataclass(frozen=True)
class ImageBatch:
    """One call of a split artifact's vision half: the numbers of its images; ``filled`` as of a ``Batch``."""

    images: tuple[int, ...]
    filled: int = 0


def image_batches(images: int, batch: int, fixed: Mapping[str, int]) -> list[ImageBatch]:
    """Returns batches of all images, in their order."""
    rows = fixed.get("batch", batch)
    parts = [tuple(range(start, min(start + rows, images))) for start in range(0, images, rows)]
    return [ImageBatch(part, rows - len(part) if "batch" in fixed else 0) for part in parts]


def padded_batches(lengths: NDArray[np.int64], batch: int, tokens: int) -> list[Batch]:
    """Returns batches in the order of the questions, all padded to the same number of tokens: the usual loop."""
    return [
        Batch(tuple(range(start, min(start + batch, len(lengths)))), tokens) for start in range(0, len(lengths), batch)
    ]


class Questions:
    """The inputs of a workload for a network: every question's tokens, every image's features."""

    def __init__(self, workload: Workload, manifest: Manifest) -> None:
        self.lengths, self._images = workload.question_lengths, workload.image_of
        task = manifest.signature.lxmert_task
        assert task is not None  # ``check_workload`` refuses modules of the user's own
        signature = task_signature(manifest.config, task)
        generator = np.random.default_rng(workload.seed)

        def drawn(batch: int, objects: int) -> Arrays:
            sizes = {"batch": batch, "text": int(self.lengths.max()), "objects": objects}
            return draw_batch(FamilyKind(token_types=False), signature, manifest.config, sizes, generator)

        self._ids = drawn(workload.questions, 1)["input_ids"]
        seen = drawn(workload.images, workload.objects)
        self._visual = {name: array for name, array in seen.items() if name.startswith("visual_")}

    def inputs(self, batch: Batch) -> Arrays:
        """Returns the inputs of a call: [PAD] and a mask of 0 beyond each question's own tokens."""
        rows = np.array(batch.questions + batch.questions[-1:] * batch.filled)
        longest = self._ids.shape[1]
        ids = np.pad(self._ids[rows], ((0, 0), (0, max(batch.text - longest, 0))))[:, : batch.text]
        mask = (np.arange(batch.text) < self.lengths[rows, None]).astype(np.int64)
        visual = self._seen(self._images[rows])
        return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids), **visual}

    def images(self, batch: ImageBatch, halves: Halves) -> Arrays:
        """Returns the inputs of a call of the vision half."""
        seen = self._seen(np.array(batch.images + batch.images[-1:] * batch.filled))
        return {name: seen[name] for name in halves.vision_inputs}

    def asked(self, batch: Batch, halves: Halves, states: NDArray[np.generic]) -> Arrays:
        """Returns the inputs of a call of the question half; ``states`` are those of all images."""
        whole = self.inputs(batch)
        rows = np.array(batch.questions + batch.questions[-1:] * batch.filled)
        of_image = of_rows(states, int(self._images.max()) + 1, self._images[rows])
        return {name: whole[name] for name in halves.question_inputs} | {halves.states.name: of_image}

    def _seen(self, images: NDArray[np.int64]) -> Arrays:
        return {name: array[images] for name, array in self._visual.items()}


def read_workload(path: str | Path) -> Workload:
    """Reads a workload. ``InputError``: the file cannot be read, or is no workload."""
    try:
        values = read_json(Path(path), largest=LARGEST_FILE)
        check_schema(values, SCHEMA)
    except OSError as error:
        raise InputError(f"{path}: the workload cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: is no workload: {error}") from error
    lengths = {int(length): count for length, count in values["lengths"].items() if count}
    baseline = values["baseline"]
    if not lengths or max(lengths) > baseline["tokens"]:
        longest = f"are longer than the baseline's {baseline['tokens']} tokens" if lengths else "are none"
        raise InputError(f"{path}: is no workload: its questions {longest}")
    return Workload(
        values["seed"], values["questions"], values["questions_an_image"], values["objects"], lengths,
        baseline["batch"], baseline["tokens"],
    )  # fmt: skip


def check_workload(workload: Workload, artifacts: Sequence[Artifact], batch: int) -> None:
    """``InputError``: an artifact cannot take the workload in calls of ``batch`` rows."""
    longest = max(workload.lengths)
    for artifact in artifacts:
        manifest = artifact.manifest
        fixed, positions = manifest.signature.fixed_sizes, manifest.config.max_position_embeddings
        a_row = workload.objects * manifest.config.visual_feat_dim
        values = workload.images * a_row
        a_call = max(fixed.get("batch", batch), workload.baseline_batch) * a_row
        for problem, found in {
            "is a module of your own, and a workload is for LXMERT's tasks": manifest.signature.lxmert_task is None,
            f"its objects axis is fixed to {fixed.get('objects')}, and the workload has {workload.objects} objects": (
                fixed.get("objects", workload.objects) != workload.objects
            ),
            f"its text axis is fixed to {fixed.get('text')}, and a question of the workload has {longest} tokens": (
                fixed.get("text", longest) < longest
            ),
            f"its position table ends at {positions}, and the workload pads to {workload.baseline_tokens} tokens": (
                positions < workload.baseline_tokens
            ),
            f"the workload's images would hold {values:,} features": values > MOST_VALUES_A_CALL,
            f"a call of the workload would hold {a_call:,} features": a_call > MOST_VALUES_A_CALL,
        }.items():
            if found:
                raise InputError(f"{artifact.path}: {problem}")


def unique_shapes(batches: Sequence[Batch]) -> list[Batch]:
    """Returns the first batch of each shape, for warming up."""
    return list({batch.shape: batch for batch in reversed(batches)}.values())
