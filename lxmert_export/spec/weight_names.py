"""The table of parameter names: ours, upstream's and TensorFlow's. It is generated from the config.

A row is a ``Weight``: our name, the upstream name (airsplay/lxmert and Hugging Face differ only in a prefix), the shape, and the
kind. The kind gives the TensorFlow name. No other module spells an upstream name.

    ours                                       upstream                                      TensorFlow
    lxmert.language_layers.0.feed_forward      lxmert.encoder.layer.0.intermediate.dense     lxmert/encoder/layer_._0/
      .expand.weight                             .weight                                       intermediate/dense/kernel
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lxmert_export.errors import ConfigError
from lxmert_export.spec.config import FIELD_TYPES, LxmertConfig
from lxmert_export.spec.signature import IMAGES_PER_SENTENCE, Task

WeightKind = Literal["kernel", "vector", "embedding", "word_embedding", "gain", "shift"]
# The last component of the path in TensorFlow, by kind. TensorFlow stores kernels transposed.
TENSORFLOW_LEAVES: dict[WeightKind, str | None] = {
    "kernel": "kernel",
    "vector": None,  # a bias keeps its name
    "embedding": "embeddings",
    "word_embedding": "weight",
    "gain": "gamma",
    "shift": "beta",
}
BACKBONE = "lxmert."
TIED_DECODER = "masked_language_head.decoder.weight"
WORD_EMBEDDING = "lxmert.embeddings.word.weight"


@dataclass(frozen=True)
class Weight:
    """One parameter: our name, the upstream name, the shape (a kernel is [outputs, inputs]), and the kind."""

    ours: str
    upstream: str
    shape: tuple[int, ...]
    kind: WeightKind

    @property
    def tensorflow(self) -> str:
        """The path of the variable in TensorFlow, without ``:0``. TensorFlow stores kernels transposed."""
        path, _, leaf = self.upstream.rpartition(".")
        # Upstream's list element `layer.3` is `layer_._3` in TensorFlow; `decoder_dict.obj` keeps its dot.
        path = re.sub(r"\.(\d+)", r"_._\1", path)
        path = re.sub(r"(?<!_)\.(?!_)", "/", path).replace("decoder_dict/", "decoder_dict.")
        return f"{path}/{TENSORFLOW_LEAVES[self.kind] or leaf}"

    @property
    def variable(self) -> str:
        """The path of the variable in our Keras model: our name, with TensorFlow's last component."""
        path, _, leaf = self.ours.rpartition(".")
        return "/".join((*path.split("."), TENSORFLOW_LEAVES[self.kind] or leaf))


def weight_names(config: LxmertConfig, task: Task | None) -> tuple[Weight, ...]:
    """Returns every parameter of a task's model, in the order of its ``state_dict`` and of the published files.

    Those of the backbone alone (task ``model``, and None) have the prefix ``lxmert.``, too; a dialect strips it if needed.
    """
    rows = [*_backbone(config)]
    if task == "pretraining":
        rows += _masked_language_head(config)
        rows += _linear("match_head", "cls.seq_relationship", 2, config.hidden_size)
        rows += _object_head(config)
    if task == "question-answering" or (task == "pretraining" and config.task_qa):
        inner = 2 * config.hidden_size
        rows += _answer_head("answer_head", "answer_head.logit_fc", config.hidden_size, inner, config.num_qa_labels)
    if task == "nlvr2":
        inner = IMAGES_PER_SENTENCE * config.hidden_size
        rows += _answer_head("pair_head", "logit_fc", inner, inner, 2)
    return tuple(rows)


def same_network(one: LxmertConfig, other: LxmertConfig, task: Task | None) -> bool:
    """Whether two configs make the same network for a task. Settings of training, losses and other heads do not matter.

    For None, a user's own module, the backbones are compared.
    """
    arithmetic = [(config.num_attention_heads, config.layer_norm_eps) for config in (one, other)]
    return arithmetic[0] == arithmetic[1] and weight_names(one, task) == weight_names(other, task)


def network_differences(one: LxmertConfig, other: LxmertConfig, task: Task | None) -> list[tuple[str, Any, Any]]:
    """Returns each config field by which two configs make different networks for a task: its name and both values."""
    fields = [(name, getattr(one, name), getattr(other, name)) for name in FIELD_TYPES]
    return [row for row in fields if row[1] != row[2] and _changes_network(one, task, {row[0]: row[2]})]


def _changes_network(config: LxmertConfig, task: Task | None, change: Mapping[str, Any]) -> bool:
    try:
        return not same_network(config, config.replace(**change), task)
    except ConfigError:  # it fits no other field of this config, so another one differs with it
        return True


_Rows = Iterator[Weight]


def _backbone(config: LxmertConfig) -> _Rows:
    hidden = config.hidden_size
    ours, theirs = f"{BACKBONE}embeddings", f"{BACKBONE}embeddings"
    yield Weight(
        f"{ours}.word.weight", f"{theirs}.word_embeddings.weight", (config.vocab_size, hidden), "word_embedding"
    )
    positions = (config.max_position_embeddings, hidden)
    yield Weight(f"{ours}.position.weight", f"{theirs}.position_embeddings.weight", positions, "embedding")
    token_types = (config.type_vocab_size, hidden)
    yield Weight(f"{ours}.token_type.weight", f"{theirs}.token_type_embeddings.weight", token_types, "embedding")
    yield from _layer_norm(f"{ours}.layer_norm", f"{theirs}.LayerNorm", hidden)

    ours, theirs = f"{BACKBONE}visual_embeddings", f"{BACKBONE}encoder.visn_fc"
    yield from _linear(f"{ours}.features", f"{theirs}.visn_fc", hidden, config.visual_feat_dim)
    yield from _layer_norm(f"{ours}.features_layer_norm", f"{theirs}.visn_layer_norm", hidden)
    yield from _linear(f"{ours}.boxes", f"{theirs}.box_fc", hidden, config.visual_pos_dim)
    yield from _layer_norm(f"{ours}.boxes_layer_norm", f"{theirs}.box_layer_norm", hidden)

    for n in range(config.l_layers):
        yield from _encoder_layer(f"{BACKBONE}language_layers.{n}", f"{BACKBONE}encoder.layer.{n}", config)
    for n in range(config.x_layers):
        yield from _cross_modality_layer(
            f"{BACKBONE}cross_modality_layers.{n}", f"{BACKBONE}encoder.x_layers.{n}", config
        )
    for n in range(config.r_layers):
        yield from _encoder_layer(f"{BACKBONE}vision_layers.{n}", f"{BACKBONE}encoder.r_layers.{n}", config)
    yield from _linear(f"{BACKBONE}pooler", f"{BACKBONE}pooler.dense", hidden, hidden)


def _encoder_layer(ours: str, theirs: str, config: LxmertConfig) -> _Rows:
    yield from _attention(f"{ours}.self_attention", f"{theirs}.attention.self", f"{theirs}.attention.output", config)
    yield from _feed_forward(f"{ours}.feed_forward", f"{theirs}.intermediate", f"{theirs}.output", config)


def _cross_modality_layer(ours: str, theirs: str, config: LxmertConfig) -> _Rows:
    cross = f"{theirs}.visual_attention"
    yield from _attention(f"{ours}.cross_attention", f"{cross}.att", f"{cross}.output", config)
    for side, short in (("language", "lang"), ("vision", "visn")):
        own = f"{theirs}.{short}_self_att"
        yield from _attention(f"{ours}.{side}_self_attention", f"{own}.self", f"{own}.output", config)
    for side, short in (("language", "lang"), ("vision", "visn")):
        yield from _feed_forward(
            f"{ours}.{side}_feed_forward", f"{theirs}.{short}_inter", f"{theirs}.{short}_output", config
        )


def _attention(ours: str, projections: str, output: str, config: LxmertConfig) -> _Rows:
    for name in ("query", "key", "value"):
        yield from _linear(f"{ours}.{name}", f"{projections}.{name}", config.hidden_size, config.hidden_size)
    yield from _linear(f"{ours}.output", f"{output}.dense", config.hidden_size, config.hidden_size)
    yield from _layer_norm(f"{ours}.layer_norm", f"{output}.LayerNorm", config.hidden_size)


def _feed_forward(ours: str, inner: str, output: str, config: LxmertConfig) -> _Rows:
    yield from _linear(f"{ours}.expand", f"{inner}.dense", config.intermediate_size, config.hidden_size)
    yield from _linear(f"{ours}.contract", f"{output}.dense", config.hidden_size, config.intermediate_size)
    yield from _layer_norm(f"{ours}.layer_norm", f"{output}.LayerNorm", config.hidden_size)


def _masked_language_head(config: LxmertConfig) -> _Rows:
    ours, theirs = "masked_language_head", "cls.predictions"
    yield Weight(f"{ours}.bias", f"{theirs}.bias", (config.vocab_size,), "vector")
    yield from _transform(ours, theirs, config)
    yield Weight(TIED_DECODER, f"{theirs}.decoder.weight", (config.vocab_size, config.hidden_size), "kernel")


def _object_head(config: LxmertConfig) -> _Rows:
    if not config.task_obj_predict:
        return
    yield from _transform("object_head", "obj_predict_head", config)
    for target in config.visual_losses:
        size = config.visual_target_size(target)
        yield from _linear(
            f"object_head.targets.{target}", f"obj_predict_head.decoder_dict.{target}", size, config.hidden_size
        )


def _transform(ours: str, theirs: str, config: LxmertConfig) -> _Rows:
    yield from _linear(f"{ours}.transform.dense", f"{theirs}.transform.dense", config.hidden_size, config.hidden_size)
    yield from _layer_norm(f"{ours}.transform.layer_norm", f"{theirs}.transform.LayerNorm", config.hidden_size)


def _answer_head(ours: str, theirs: str, inputs: int, inner: int, answers: int) -> _Rows:
    yield from _linear(f"{ours}.expand", f"{theirs}.0", inner, inputs)
    yield from _layer_norm(f"{ours}.layer_norm", f"{theirs}.2", inner)  # upstream's number 1 is the GELU
    yield from _linear(f"{ours}.answers", f"{theirs}.3", answers, inner)


def _linear(ours: str, theirs: str, outputs: int, inputs: int) -> Sequence[Weight]:
    return (
        Weight(f"{ours}.weight", f"{theirs}.weight", (outputs, inputs), "kernel"),
        Weight(f"{ours}.bias", f"{theirs}.bias", (outputs,), "vector"),
    )


def _layer_norm(ours: str, theirs: str, width: int) -> Sequence[Weight]:
    return (
        Weight(f"{ours}.weight", f"{theirs}.weight", (width,), "gain"),
        Weight(f"{ours}.bias", f"{theirs}.bias", (width,), "shift"),
    )
