"""The five pre-training losses of ``lxmert_export.losses`` in TensorFlow: the same numbers, ignored labels included."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from lxmert_export.config import LxmertConfig
from lxmert_export.errors import InputError

# Positions with this label count for nothing, as in PyTorch; TFLxmert of transformers raised, or gave NaN on a GPU.
IGNORE_INDEX = -100


def classification_loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean cross entropy over the labels that are not ignored; NaN where all are, as in PyTorch.

    ``logits`` [..., classes], ``labels`` [...] integers → scalar of at least float32.
    """
    counted = tf.cast(tf.not_equal(labels, IGNORE_INDEX), _wide(logits).dtype)
    return tf.reduce_sum(_cross_entropy(logits, labels)) / tf.reduce_sum(counted)


def visual_loss(
    scores: Mapping[str, tf.Tensor], obj_labels: Mapping[str, tuple[tf.Tensor, tf.Tensor]], config: LxmertConfig
) -> tf.Tensor:
    """The sum over the object head's targets, each weighted per object and scaled by ``visual_loss_normalizer``.

    Shapes, mean and errors as of ``lxmert_export.losses.visual_loss``: each object's loss is weighted by its own confidence,
    where TFLxmert of transformers weighted the mean loss by the mean confidence.
    """
    if missing := [target for target in scores if target not in obj_labels]:
        raise InputError(
            f"obj_labels lacks {', '.join(missing)}: give (labels, confidence) or switch visual_*_loss off"
        )
    total = tf.zeros(())
    for target, logits in scores.items():
        labels, confidence = obj_labels[target]
        loss = _loss_per_object(target, logits, labels)  # [B, O]
        total = tf.cast(total, loss.dtype) + config.visual_loss_normalizer * tf.reduce_mean(
            loss * tf.cast(confidence, loss.dtype)
        )
    return total


def _loss_per_object(target: str, scores: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """[batch, objects, width] → [batch, objects]: smooth L1 for features, cross entropy for class ids."""
    if target != "feat":
        return _cross_entropy(scores, labels)
    wide = _wide(scores)
    distance = tf.abs(wide - tf.cast(labels, wide.dtype))
    return tf.reduce_mean(tf.where(distance < 1, 0.5 * tf.square(distance), distance - 0.5), axis=-1)


def _cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """[..., classes] → [...], 0 where the label is ignored."""
    wide = _wide(logits)
    ignored = tf.equal(labels, IGNORE_INDEX)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(ignored, tf.zeros_like(labels), labels), wide)
    return tf.where(ignored, tf.zeros_like(entropy), entropy)


def _wide(scores: tf.Tensor) -> tf.Tensor:
    """At least float32, as in PyTorch."""
    return scores if scores.dtype == tf.float64 else tf.cast(scores, tf.float32)
