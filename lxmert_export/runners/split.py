"""Runs the two halves of a split artifact as one model: the images' half once for each image, however many rows show it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact.directory import ONNX_FILE, QUESTION_FILE, VISION_FILE, Artifact
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.halves import Halves
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import Signature

Opens = Callable[[Path, Signature], Runner]
LOOKED_AT = 64  # values of an image by which it is looked for among those before it


def open_whole_or_split(artifact: Artifact, opens: Opens) -> Runner:
    """Opens the file of an ONNX artifact, or both halves of a split one; ``opens``: (file, signature) → a runner."""
    halves, signature = artifact.halves, artifact.manifest.signature
    if halves is None:
        return opens(artifact.file(ONNX_FILE), signature)
    vision = opens(artifact.file(VISION_FILE), halves.signature("vision", signature))
    try:
        question = opens(artifact.file(QUESTION_FILE), halves.signature("question", signature))
    except BaseException:
        vision.close()
        raise
    return SplitRunner(artifact, halves, vision, question)


class SplitRunner(Runner):
    """Runs both halves. Rows with the same image cost its half once.

    Every row is computed if the batch axis is fixed, and of a module of the user's own, whose rows may depend on one another.
    ``vision`` and ``question`` are the halves, to be run by themselves: ``vision.run(features and boxes)`` gives the states
    [images, objects, width], and ``question.run`` takes those of one image for each row.
    """

    parallel = True  # each half sees to its own turns

    def __init__(self, artifact: Artifact, halves: Halves, vision: Runner, question: Runner) -> None:
        super().__init__(artifact.name, artifact.manifest.signature, artifact.manifest.limits)
        self._vision, self._question = vision, question
        vision.artifact = question.artifact = artifact
        self._states = halves.states.name
        self._shares_images = self.signature.lxmert_task is not None and "batch" not in self.signature.fixed_sizes

    @property
    def vision(self) -> Runner:
        return self._vision

    @property
    def question(self) -> Runner:
        return self._question

    def compute(self, inputs: Arrays) -> Arrays:
        images = {spec.name: inputs[spec.name] for spec in self._vision.signature.inputs}
        rows = distinct_images(images) if self._shares_images else None
        if rows is not None:
            first = np.unique(rows)
            images = {name: array[first] for name, array in images.items()}
        seen = self._vision.run_prepared(images)
        if rows is not None:
            seen = {name: of_rows(array, len(first), np.searchsorted(first, rows)) for name, array in seen.items()}
        given = {**inputs, self._states: seen[self._states]}
        asked = {spec.name: given[spec.name] for spec in self._question.signature.inputs}
        found = {**seen, **self._question.run_prepared(asked)}
        return {spec.name: found[spec.name] for spec in self.signature.outputs}

    def release(self) -> None:
        self.vision.close()
        self.question.close()


def distinct_images(images: Arrays) -> NDArray[np.int64] | None:
    """Returns for each row the first row that shows the same image, byte for byte; None if all rows differ."""
    count = len(next(iter(images.values())))
    first = np.arange(count)
    alike: dict[bytes, list[int]] = {}
    for row in range(count):
        candidates = alike.setdefault(
            b"".join(array[row].ravel()[:LOOKED_AT].tobytes() for array in images.values()), []
        )
        same = next((one for one in candidates if _same(images, one, row)), None)
        if same is None:
            candidates.append(row)
        else:
            first[row] = same
    return None if len(np.unique(first)) == count else first


def _same(images: Arrays, one: int, other: int) -> bool:
    return all(array[one].tobytes() == array[other].tobytes() for array in images.values())


def of_rows(array: NDArray[np.generic], images: int, places: NDArray[np.int64]) -> NDArray[np.generic]:
    """Returns the rows' values of those of the images; nlvr2 has two pictures a row, and so two entries."""
    each = len(array) // images
    return array.reshape(images, each, *array.shape[1:])[places].reshape(len(places) * each, *array.shape[1:])
