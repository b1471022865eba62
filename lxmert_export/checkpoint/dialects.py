"""Maps the tensor names of every dialect to ours, and infers the config of a file that has none.

Upstream names differ only in their prefixes. The names behind the prefixes are in the table of ``weight_names``:

    bert.…, module.bert.…                            original pre-training file, backbone only or with heads
    lxrt_encoder.model.(module.)bert.…, logit_fc.…   original fine-tuned snapshot (VQA, GQA, NLVR2)
    lxmert.…, or the backbone's names alone          Hugging Face PyTorch
    lxmert/encoder/layer_._0/…/kernel                Hugging Face TensorFlow (h5 or safetensors), kernels transposed
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from lxmert_export.checkpoint.files import RawWeights, shortened
from lxmert_export.errors import CheckpointError
from lxmert_export.option_names import option
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Task
from lxmert_export.spec.weight_names import BACKBONE, Weight, weight_names

Dialect = Literal["hf", "original", "tf"]

ORIGINAL_PREFIXES = ("bert.", "lxrt_encoder.model.bert.")
FINE_TUNED_HEAD = "logit_fc."
BARE_PARTS = ("embeddings.", "encoder.", "pooler.", "embeddings/", "encoder/", "pooler/")
HEAD_SIZE = 64  # of every published checkpoint: the number of heads cannot be read from the weights


@dataclass(frozen=True)
class Named:
    """A checkpoint's tensors by upstream name (or TensorFlow path), and their dialect.

    ``repeated`` holds each name that occurs more than once, and whether the copies are known to be equal.
    """

    dialect: Dialect
    tensors: Mapping[str, Tensor]
    repeated: Mapping[str, bool]


def upstream_names(raw: RawWeights) -> Named:
    """Strips the prefixes of a dialect. Names that become equal are recorded as repeated."""
    names = list(raw.tensors)
    is_tensorflow = raw.metadata.get("format") == "tf" or any(name.endswith(":0") for name in names)
    bare = [name.removeprefix("module.").replace("lxrt_encoder.model.module.", "lxrt_encoder.model.") for name in names]
    is_original = any(name.startswith(ORIGINAL_PREFIXES) for name in bare)
    dialect: Dialect = "tf" if is_tensorflow else "original" if is_original else "hf"

    tensors: dict[str, Tensor] = {}
    repeated = {}
    for name, short in zip(names, bare, strict=True):
        canonical = _canonical_name(short)
        if canonical in tensors:
            repeated[canonical] = False
        if name in raw.repeated:
            repeated[canonical] = raw.repeated[name]
        tensors[canonical] = raw.tensors[name]
    return Named(dialect, _with_answer_head(tensors), repeated)


def _canonical_name(name: str) -> str:
    for prefix in ORIGINAL_PREFIXES:
        if name.startswith(prefix):
            name = BACKBONE + name.removeprefix(prefix)
    name = name.removesuffix(":0")
    if name.startswith(BARE_PARTS):
        name = ("lxmert/" if "/" in name else BACKBONE) + name
    # Early files have BERT's old TensorFlow names for LayerNorm.
    return re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", name))


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
    """Returns the row of every parameter that an LXMERT of this config can have, by upstream name (or TensorFlow path).

    All heads are included, whatever the config says about them.
    """
    everything = config.replace(
        task_obj_predict=True, task_qa=True, visual_obj_loss=True, visual_attr_loss=True, visual_feat_loss=True
    )
    rows = {row.ours: row for task in ("pretraining", "nlvr2") for row in weight_names(everything, task)}
    return {row.tensorflow if named.dialect == "tf" else row.upstream: row for row in rows.values()}


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
    """Counts the layers of each kind, by their highest number.

    Raises ``CheckpointError`` if there are no cross-modality layers, or fewer tensors than layers.
    """
    counts = {"l_layers": 0, "x_layers": 0, "r_layers": 0}
    kinds = {"layer": "l_layers", "x_layers": "x_layers", "r_layers": "r_layers"}
    for name in named.tensors:
        match = re.match(r"lxmert[./]encoder[./](layer|x_layers|r_layers)(?:_\.)?[._]+(\d+)[./]", name)
        if match:
            kind = kinds[match[1]]
            counts[kind] = max(counts[kind], int(match[2]) + 1)
    if not counts["x_layers"]:
        some = shortened(list(named.tensors), most=3)
        raise CheckpointError(
            f"not an LXMERT checkpoint: it has no cross-modality layers (it holds {some or 'nothing'})"
        )
    if max(counts.values()) > len(named.tensors):
        raise CheckpointError(
            f"not an LXMERT checkpoint: it has fewer tensors ({len(named.tensors)}) than layers ({max(counts.values())})"
        )
    return counts
