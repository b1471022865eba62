"""Cuts questions into the calls of a runner: sorted by length, so that little is padded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MULTIPLE = 4  # tokens: batches that are sorted by length are padded to the next multiple


@dataclass(frozen=True)
class Batch:
    """One call: the numbers of its questions, and the tokens that they are padded to.

    ``filled``: rows at the end that repeat the last question, because the file takes one batch size only.
    """

    questions: tuple[int, ...]
    text: int
    filled: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens."""
        return len(self.questions) + self.filled, self.text

    @property
    def padded_tokens(self) -> int:
        """All tokens of the call, padding included."""
        return self.shape[0] * self.text


def sorted_batches(
    lengths: NDArray[np.int64],
    batch: int,
    fixed: Mapping[str, int],
    positions: int,
    objects: NDArray[np.int64] | None = None,
) -> list[Batch]:
    """Returns batches of questions sorted by length.

    Each is padded to a multiple of ``MULTIPLE``, but to no more than ``positions`` tokens, or to the file's fixed sizes.
    ``objects``: those of each question's pictures; questions that are padded to one length are sorted by them.
    """
    rows = fixed.get("batch", batch)
    if objects is None:
        order = np.argsort(lengths, kind="stable")
    else:
        order = np.lexsort((lengths, objects, -(-lengths // MULTIPLE)))
    batches = []
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        text = fixed.get("text", min(-(-int(lengths[chosen].max()) // MULTIPLE) * MULTIPLE, positions))
        filled = rows - len(chosen) if "batch" in fixed else 0
        batches.append(Batch(tuple(map(int, chosen)), text, filled))
    return batches
