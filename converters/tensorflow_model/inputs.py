"""The inputs of a Keras model: their types for a trace, and their checks before the first layer.

TensorFlow itself would report a matmul somewhere inside.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from lxmert_export.errors import InputError
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import check_mask
from lxmert_export.spec.signature import TensorSpec

IDS = ("input_ids", "token_type_ids")
MASKS = ("attention_mask", "visual_attention_mask")


def tensor_spec(spec: TensorSpec, *, wide: bool = False) -> tf.TensorSpec:
    """Returns an input's type, with free axes of unknown size. ``wide``: 64-bit ids in place of 32-bit ones."""
    dtype = "int64" if wide and spec.dtype == "int32" else spec.dtype
    return tf.TensorSpec([axis if isinstance(axis, int) else None for axis in spec.axes], dtype, spec.name)


def check_inputs(config: LxmertConfig, **inputs: tf.Tensor | None) -> None:
    """Checks shapes, ids and masks as far as they are known before the model runs. ``InputError``: one does not fit the config.

    Inside ``tf.function`` fixed sizes are known, but ids and masks are not. A mask or token types of one row apply to all rows.
    """
    sizes: dict[str, int] = {}
    for name, axes in _axes(config).items():
        tensor = inputs[name]
        if tensor is not None:
            _check_shape(name, tensor.shape.as_list(), axes, sizes)
    if (text := sizes.get("text", 0)) > config.max_position_embeddings:
        raise InputError(
            f"the text has {text} words; the position table ends at {config.max_position_embeddings}: cut the text"
        )
    for name, size in zip(IDS, (config.vocab_size, config.type_vocab_size), strict=True):
        if inputs[name] is not None:
            _check_ids(name, inputs[name], size)
    for name in MASKS:
        if inputs[name] is not None and tf.executing_eagerly():
            check_mask(np.asarray(inputs[name]), name)


def _axes(config: LxmertConfig) -> dict[str, tuple[str | int, ...]]:
    return {
        "input_ids": ("batch", "text"),
        "inputs_embeds": ("batch", "text", config.hidden_size),
        "visual_feats": ("batch", "objects", config.visual_feat_dim),
        "visual_pos": ("batch", "objects", config.visual_pos_dim),
        "attention_mask": ("rows", "text"),
        "token_type_ids": ("rows", "text"),
        "visual_attention_mask": ("rows", "objects"),
    }


def _check_shape(name: str, shape: list[int | None] | None, axes: tuple[str | int, ...], sizes: dict[str, int]) -> None:
    """Compares a shape with the axis sizes known so far, and adds new ones. ``InputError``: they differ."""
    if shape is None:
        return
    wanted = [sizes.get("batch" if axis == "rows" else axis, axis) if isinstance(axis, str) else axis for axis in axes]
    if len(shape) != len(wanted):
        raise InputError(f"{name} has shape {shape}; expected [{', '.join(map(str, wanted))}]")
    for axis, size, got in zip(axes, wanted, shape, strict=True):
        if got is None or (axis == "rows" and got == 1):
            continue
        if isinstance(size, int) and size != got:
            raise InputError(f"{name} has shape {shape}; expected [{', '.join(map(str, wanted))}]")
        if isinstance(axis, str):
            sizes[axis] = got


def _check_ids(name: str, ids: tf.Tensor, size: int) -> None:
    if not ids.dtype.is_integer:
        raise InputError(f"{name} must hold integers, not {ids.dtype.name}")
    if not tf.executing_eagerly():  # inside a graph, ids are known only when it runs
        return
    low, high = int(tf.reduce_min(ids)), int(tf.reduce_max(ids))
    if low < 0 or high >= size:
        raise InputError(f"{name} holds {low if low < 0 else high}; it must be at least 0 and below {size}")
