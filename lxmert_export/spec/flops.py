"""Counted operations: what is counted, the usual sizes, and what the canonical model computes.

The convention, for files and checkpoints alike: a product of [m, k] and [k, n] counts 2·m·n·k, one multiplication and one
addition a term. Nothing else is counted: neither biases, masks, softmax, norms and GELU, nor rows that are looked up. PyTorch's
``FlopCounterMode`` counts the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lxmert_export.errors import InputError
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import (
    ANSWER_OUTPUT,
    DYNAMIC_AXES,
    IMAGES_PER_SENTENCE,
    OBJECT_OUTPUTS,
    Signature,
)

# One question of 20 words about a picture of 36 objects: what manifests and ``inspect`` give figures for.
USUAL_SIZES: Mapping[str, int] = {"batch": 1, "text": 20, "objects": 36}


def sizes_of_call(signature: Signature, config: LxmertConfig, sizes: Mapping[str, int]) -> dict[str, int]:
    """Returns the sizes of batch, text and objects of a call.

    ``InputError``: one is missing, below 1 or fixed at another one, or the text is longer than the position table.
    """
    if set(sizes) != set(DYNAMIC_AXES) or min(sizes.values()) < 1:
        raise InputError(f"sizes are whole numbers from 1 of {', '.join(DYNAMIC_AXES)}, not {dict(sizes)}")
    for axis, fixed in signature.fixed_sizes.items():
        if sizes[axis] != fixed:
            raise InputError(f"{axis} is fixed at {fixed} in this file and cannot be {sizes[axis]}")
    if (text := sizes["text"]) > config.max_position_embeddings:
        raise InputError(
            f"a text of {text} words is longer than the position table: at most {config.max_position_embeddings}"
        )
    return dict(sizes)


def usual_sizes(signature: Signature, config: LxmertConfig) -> dict[str, int]:
    """Returns the usual sizes, but for the axes that a signature fixes, and for a text that the position table cuts."""
    text = min(USUAL_SIZES["text"], config.max_position_embeddings)
    return {**USUAL_SIZES, "text": text, **signature.fixed_sizes}


def model_flops(config: LxmertConfig, signature: Signature, sizes: Mapping[str, int]) -> int | None:
    """Returns what the canonical model of a task computes; None for a module of the user's own.

    It computes every row of every layer, whatever its outputs need.
    """
    task = signature.lxmert_task
    if task is None:
        return None
    rows = sizes["batch"] * (IMAGES_PER_SENTENCE if task == "nlvr2" else 1)
    hidden = config.hidden_size
    counted = rows * _backbone(config, sizes["text"], sizes["objects"])
    outputs = {spec.name for spec in signature.outputs}
    if task == "nlvr2":
        return counted + sizes["batch"] * _answer_head(hidden, IMAGES_PER_SENTENCE * hidden, 2)
    if task == "pretraining":
        words = _product(sizes["text"], hidden, hidden) + _product(sizes["text"], hidden, config.vocab_size)
        counted += rows * (words + _product(1, hidden, 2))
        wanted = [target for target in config.visual_losses if OBJECT_OUTPUTS[target] in outputs]
        if wanted:
            counted += rows * sum(_object_head(config, sizes["objects"]))
    if ANSWER_OUTPUT in outputs:
        counted += rows * _answer_head(hidden, hidden, config.num_qa_labels)
    return counted


def _backbone(config: LxmertConfig, text: int, objects: int) -> int:
    """One sentence and its picture."""
    hidden = config.hidden_size
    return (
        _product(objects, config.visual_feat_dim + config.visual_pos_dim, hidden)
        + config.l_layers * _encoder_layer(config, text)
        + config.r_layers * _encoder_layer(config, objects)
        + config.x_layers * _cross_layer(config, text, objects)
        + _product(1, hidden, hidden)  # the pooler
    )


def _cross_layer(config: LxmertConfig, text: int, objects: int) -> int:
    both_ways = _attention(config, text, objects) + _attention(config, objects, text)
    return both_ways + _encoder_layer(config, text) + _encoder_layer(config, objects)


def _encoder_layer(config: LxmertConfig, rows: int) -> int:
    return _attention(config, rows, rows) + 2 * _product(rows, config.hidden_size, config.intermediate_size)


def _attention(config: LxmertConfig, queries: int, keys: int) -> int:
    hidden = config.hidden_size
    query_and_output, key_and_value = 2 * _product(queries, hidden, hidden), 2 * _product(keys, hidden, hidden)
    scores_and_mixing = 2 * _product(queries, hidden, keys)  # over all heads
    return query_and_output + key_and_value + scores_and_mixing


def _answer_head(hidden: int, inputs: int, answers: int) -> int:
    return _product(1, inputs, 2 * hidden) + _product(1, 2 * hidden, answers)


def _object_head(config: LxmertConfig, objects: int) -> Iterator[int]:
    yield _product(objects, config.hidden_size, config.hidden_size)
    for target in config.visual_losses:
        yield _product(objects, config.hidden_size, config.visual_target_size(target))


def _product(rows: int, length: int, columns: int) -> int:
    return 2 * rows * length * columns
