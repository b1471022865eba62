"""The five pre-training losses of ``lxmert_export.model.losses`` in TensorFlow: same values, same ignored labels."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from lxmert_export.errors import InputError
from lxmert_export.spec.config import LxmertConfig

# Positions with this label are ignored, as in PyTorch. transformers' TFLxmert raised, or returned NaN on a GPU.
IGNORE_INDEX = -100


def classification_loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the mean cross entropy over the labels that are not ignored; NaN if all are, as in PyTorch.

    ``logits`` [..., classes], ``labels`` [...] integers → scalar of at least float32.
    """
    counted = tf.cast(tf.not_equal(labels, IGNORE_INDEX), _wide(logits).dtype)
    return tf.reduce_sum(_cross_entropy(logits, labels)) / tf.reduce_sum(counted)


def check_labels(name: str, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Checks labels [...] against logits [..., classes]; returns them as int32 or int64.

    ``InputError``: another shape, not integers, or out of range. Shapes are compared as far as they are known before
    the model runs; values are checked only outside ``tf.function``.
    """
    _check_shape(name, labels, logits.shape[:-1])
    if not labels.dtype.is_integer:
        raise InputError(f"{name} must hold integers, not {labels.dtype.name}")
    wide = labels if labels.dtype in (tf.int32, tf.int64) else tf.cast(labels, tf.int64)
    if tf.executing_eagerly() and tf.size(wide) > 0:
        counted = tf.where(tf.equal(wide, IGNORE_INDEX), tf.zeros_like(wide), wide)
        low, high, classes = int(tf.reduce_min(counted)), int(tf.reduce_max(counted)), logits.shape[-1]
        if low < 0 or high >= classes:
            raise InputError(
                f"{name} holds {low if low < 0 else high}; it must be at least 0 and below {classes}, or {IGNORE_INDEX}, "
                "which is ignored"
            )
    return wide


def _check_shape(name: str, given: tf.Tensor, wanted: tf.TensorShape) -> None:
    if not given.shape.is_compatible_with(wanted):
        axes = ", ".join("?" if size is None else str(size) for size in wanted)
        raise InputError(f"{name} has shape {given.shape.as_list()}; expected [{axes}]")


def visual_loss(
    scores: Mapping[str, tf.Tensor], obj_labels: Mapping[str, tuple[tf.Tensor, tf.Tensor]], config: LxmertConfig
) -> tf.Tensor:
    """Returns the sum of the losses of the object head's targets, each scaled by ``visual_loss_normalizer``.

    Each object's loss is weighted by its own confidence; transformers' TFLxmert weighted the mean loss by the mean
    confidence. Shapes, mean and errors are those of ``lxmert_export.model.losses.visual_loss``.
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
    name = f"obj_labels['{target}']"
    if target != "feat":
        return _cross_entropy(scores, check_labels(name, labels, scores))
    _check_shape(name, labels, scores.shape)
    wide = _wide(scores)
    distance = tf.abs(wide - tf.cast(labels, wide.dtype))
    return tf.reduce_mean(tf.where(distance < 1, 0.5 * tf.square(distance), distance - 0.5), axis=-1)


def _cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """[..., classes] → [...], 0 for ignored labels."""
    wide = _wide(logits)
    ignored = tf.equal(labels, IGNORE_INDEX)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(ignored, tf.zeros_like(labels), labels), wide)
    return tf.where(ignored, tf.zeros_like(entropy), entropy)


def _wide(scores: tf.Tensor) -> tf.Tensor:
    """Casts scores to float32, as in PyTorch; float64 stays."""
    return scores if scores.dtype == tf.float64 else tf.cast(scores, tf.float32)
