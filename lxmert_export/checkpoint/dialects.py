"""Maps the tensor names of every dialect to ours, and infers the config of a file that has none.

Upstream names differ only in their prefixes. The names behind the prefixes are in the table of ``weight_names``:

    bert.…                                    original pre-training file, backbone only or with heads
    lxrt_encoder.model.bert.…, logit_fc.…     original fine-tuned snapshot (VQA, GQA, NLVR2)
    lxmert.…, or the backbone's names alone   Hugging Face PyTorch
    lxmert/encoder/layer_._0/…/kernel         Hugging Face TensorFlow (h5 or safetensors), kernels transposed
    lxmert.language_layers.0.…                ``state_dict()`` of our own models
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from lxmert_export.checkpoint.files import RawWeights, check_stored
from lxmert_export.checkpoint.lxmert_inside import find_lxmert
from lxmert_export.errors import CheckpointError, shortened
from lxmert_export.option_names import option
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Task
from lxmert_export.spec.weight_names import BACKBONE, Weight, weight_names

Dialect = Literal["hf", "original", "tf"]
StoredDialect = Dialect | Literal["lxmert-export"]

FINE_TUNED_HEAD = "logit_fc."
HEAD_SIZE = 64  # of every published checkpoint: the number of heads cannot be read from the weights


@dataclass(frozen=True)
class Named:
    """A checkpoint's tensors by upstream name, or by ours (dialect ``lxmert-export``), and their dialect.

    ``repeated`` holds each name that occurs more than once, and whether the copies are known to be equal. ``stripped`` and
    ``other_parts`` are those of ``LxmertInside``.
    """

    dialect: StoredDialect
    tensors: Mapping[str, Tensor]
    repeated: Mapping[str, bool]
    stripped: str
    other_parts: Mapping[str, int]


def upstream_names(raw: RawWeights) -> Named:
    """Finds the LXMERT among the tensors, and strips what stands before its names.

    Names that become equal are recorded as repeated. ``CheckpointError``: there is no LXMERT or several, or its tensors are not
    dense floating-point ones.
    """
    is_tensorflow = raw.metadata.get("format") == "tf" or any(name.endswith(":0") for name in raw.tensors)
    inside = find_lxmert(raw.tensors, is_tensorflow=is_tensorflow)
    check_stored({name: raw.tensors[name] for name in inside.names})
    tensors: dict[str, Tensor] = {}
    repeated = {}
    for name, read in inside.names.items():
        if read in tensors:
            repeated[read] = False
        if name in raw.repeated:
            repeated[read] = raw.repeated[name]
        tensors[read] = raw.tensors[name]
    dialect: StoredDialect = (
        "lxmert-export" if inside.is_ours else "tf" if is_tensorflow else "original" if inside.is_original else "hf"
    )
    return Named(dialect, _with_answer_head(tensors), repeated, inside.stripped, inside.other_parts)


def _with_answer_head(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gives a fine-tuned ``logit_fc`` over one picture the answer head's name.

    Over two pictures ``logit_fc`` is the head of NLVR2, and keeps its name.
    """
    first, words = (
        tensors.get(f"{FINE_TUNED_HEAD}0.weight"),
        tensors.get(f"{BACKBONE}embeddings.word_embeddings.weight"),
    )
    if first is None or words is None or first.shape[-1:] != words.shape[-1:]:
        return tensors
    return {f"answer_head.{n}" if n.startswith(FINE_TUNED_HEAD) else n: tensor for n, tensor in tensors.items()}


def our_name_table(named: Named, config: LxmertConfig) -> dict[str, Weight]:
    """Returns the row of every parameter that an LXMERT of this config can have, by its name in the dialect.

    All heads are included, whatever the config says about them.
    """
    everything = config.replace(
        task_obj_predict=True, task_qa=True, visual_obj_loss=True, visual_attr_loss=True, visual_feat_loss=True
    )
    rows = {row.ours: row for task in ("pretraining", "nlvr2") for row in weight_names(everything, task)}
    return {row.ours if named.dialect == "lxmert-export" else row.upstream: row for row in rows.values()}


def our_tensors(named: Named, config: LxmertConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the tensors by our names, with kernels in PyTorch's order, and the names that no LXMERT has."""
    table = our_name_table(named, config)
    ours, unexpected = {}, []
    for name, tensor in named.tensors.items():
        if name not in table:
            unexpected.append(name)
        elif named.dialect == "tf" and table[name].kind == "kernel":
            ours[table[name].ours] = tensor.t() if tensor.dim() == len(table[name].shape) else tensor
        else:
            ours[table[name].ours] = tensor
    return ours, unexpected


def held_task(ours: Iterable[str]) -> Task:
    """Returns the task of the fullest head among the parameter names."""
    heads = {name.split(".")[0] for name in ours}
    if heads & {"masked_language_head", "match_head"}:
        return "pretraining"
    if "answer_head" in heads:
        return "question-answering"
    return "nlvr2" if "pair_head" in heads else "model"


# Where each size of a config is read: a parameter's name and an axis of its shape.
SIZE_PLACES = {
    "vocab_size": ("lxmert.embeddings.word.weight", 0),
    "hidden_size": ("lxmert.embeddings.word.weight", 1),
    "max_position_embeddings": ("lxmert.embeddings.position.weight", 0),
    "type_vocab_size": ("lxmert.embeddings.token_type.weight", 0),
    "intermediate_size": ("lxmert.cross_modality_layers.0.language_feed_forward.expand.weight", 0),
    "visual_feat_dim": ("lxmert.visual_embeddings.features.weight", 1),
    "visual_pos_dim": ("lxmert.visual_embeddings.boxes.weight", 1),
    "num_qa_labels": ("answer_head.answers.weight", 0),
    "num_object_labels": ("object_head.targets.obj.weight", 0),
    "num_attr_labels": ("object_head.targets.attr.weight", 0),
}


# The list of layers, upstream's and ours, and the field of the config that counts them.
LAYER_KINDS = {
    "layer": "l_layers",
    "x_layers": "x_layers",
    "r_layers": "r_layers",
    "language_layers": "l_layers",
    "cross_modality_layers": "x_layers",
    "vision_layers": "r_layers",
}


def infer_config(named: Named, num_attention_heads: int | None) -> LxmertConfig:
    """Infers a config: sizes from shapes, layer counts and switches from names.

    ``num_attention_heads`` defaults to hidden_size / 64, because the number of heads cannot be read from the weights. Raises
    ``CheckpointError`` if the tensors are not those of an LXMERT.
    """
    values: dict[str, Any] = _layer_counts(named)
    table = our_name_table(named, LxmertConfig(**values))
    shapes = {table[name].ours: _shape(named, name, table[name]) for name in named.tensors if name in table}
    for field, (name, axis) in SIZE_PLACES.items():
        if name in shapes and len(shapes[name]) > axis:
            values[field] = shapes[name][axis]
    if missing := [SIZE_PLACES[field][0] for field in ("hidden_size", "visual_feat_dim") if field not in values]:
        raise CheckpointError(f"not a whole LXMERT checkpoint: {shortened(missing)} not found")
    values["num_attention_heads"] = _head_count(values["hidden_size"], num_attention_heads)
    heads = {name.split(".")[0] for name in shapes}
    values |= {"task_qa": "answer_head" in heads, "task_obj_predict": "object_head" in heads}
    for target in ("obj", "attr", "feat"):
        values[f"visual_{target}_loss"] = f"object_head.targets.{target}.weight" in shapes
    return LxmertConfig(**values)


def _head_count(hidden_size: int, given: int | None) -> int:
    """The number of attention heads that was given, or else the guess. ``CheckpointError``: it does not divide the width."""
    count = given or max(1, hidden_size // HEAD_SIZE)
    if hidden_size % count:
        setter, guess = option("num_attention_heads"), "" if given else ", guessed from hidden size / 64,"
        raise CheckpointError(
            f"{setter}: {count}{guess} does not divide the hidden size {hidden_size}: give one that does"
        )
    return count


def _shape(named: Named, name: str, row: Weight) -> tuple[int, ...]:
    """The shape in PyTorch's order, which has the outputs first."""
    shape = tuple(named.tensors[name].shape)
    return shape[::-1] if named.dialect == "tf" and row.kind == "kernel" else shape


def _layer_counts(named: Named) -> dict[str, int]:
    """Counts the layers of each kind, by their highest number. ``CheckpointError``: there are fewer tensors than layers."""
    counts = {"l_layers": 0, "x_layers": 0, "r_layers": 0}
    for name in named.tensors:
        if match := re.match(r"lxmert\.(?:encoder\.(?=layer|[xr]_))?(\w+)\.(\d+)\.", name):
            kind = LAYER_KINDS.get(match[1])
            if kind is not None:
                counts[kind] = max(counts[kind], int(match[2]) + 1)
    if max(counts.values()) > len(named.tensors):
        raise CheckpointError(
            f"not an LXMERT checkpoint: it has fewer tensors ({len(named.tensors)}) than layers ({max(counts.values())})"
        )
    return counts
