"""The two sides of the Keras models: what layers need of words and objects beside their hidden states.

Shapes: B batch, S words or objects, N heads, D head size, H hidden size. Hidden states are matrices [B * S, H] or, if two sizes
are unknown and TFLite must know every shape, [B, S, H].
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

# Of a reshape: numbers, -1 for one that is not known before it runs, and tensors if there are more.
Sizes = list[int | tf.Tensor]


@dataclass(frozen=True)
class Side:
    """What layers need of the language or vision side beside its hidden states; Keras does not look inside."""

    bias: tf.Tensor | None  # [B, 1, 1, S]: 0 for a seen key, -10000 for a masked one
    # the shape [B, S, N, D] to split [B * S, H] into; None if hidden states are [B, S, H]
    heads: Sizes | None

    @property
    def of_first_rows(self) -> Side:
        """The side whose hidden states are row 0 of each sequence. It asks, and is not asked, so it has no mask."""
        return Side(None, None if self.heads is None else [-1, 1, *self.heads[2:]])

    def first_rows(self, hidden: tf.Tensor) -> tf.Tensor:
        """Row 0 of each sequence: [B * S, H] → [B, H], or [B, S, H] → [B, 1, H]."""
        if self.heads is None:
            return hidden[:, :1]
        return tf.reshape(hidden, [*self.heads[:2], hidden.shape[-1]])[:, 0]


def rows_of(tensor: tf.Tensor) -> tf.Tensor:
    """[B, S, …] → [B * S, …]."""
    return tf.reshape(tensor, [-1, tensor.shape[-1]])


def leading_sizes(tensor: tf.Tensor) -> Sizes:
    """Returns the first two sizes of a tensor for a reshape: numbers, or -1 for one unknown, or tensors if both are."""
    sizes = [-1 if size is None else size for size in tensor.shape[:2]]
    return [tf.shape(tensor)[0], tf.shape(tensor)[1]] if sizes == [-1, -1] else sizes
