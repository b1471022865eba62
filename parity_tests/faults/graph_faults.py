"""Faults that only another graph has, each planted into the PyTorch module or its Keras twin before that is exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import torch.nn.functional as F
from torch import Tensor, nn

from converters.tensorflow_model import layers as keras_layers
from converters.tensorflow_model.model import TFLxmertModel
from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from lxmert_export.model.lxmert import (
    AnswerHead,
    Attention,
    CrossModalityLayer,
    FeedForward,
    LayerNorm,
    LxmertModel,
    VisualEmbeddings,
    gelu,
)
from parity_tests.faults import keras_faults as planted_keras_faults
from parity_tests.faults import torch_faults as planted_faults

PlantInTorch = Callable[[nn.Module], None]
PlantInKeras = Callable[[PreTrainedTFLxmert], None]


@dataclass(frozen=True)
class GraphFault:
    """The same fault in both frameworks."""

    name: str
    in_torch: PlantInTorch
    in_keras: PlantInKeras


def feed_forward(
    in_torch: Callable[[Any, Tensor], Any], in_keras: Callable[[Any, tf.Tensor], Any]
) -> tuple[PlantInTorch, PlantInKeras]:
    """Another feed-forward block in every layer."""

    def plant_in_torch(model: nn.Module) -> None:
        for part in planted_faults.parts(model, FeedForward):
            planted_faults.patch(part, in_torch)

    def plant_in_keras(model: PreTrainedTFLxmert) -> None:
        for part in planted_keras_faults.parts(model, keras_layers.FeedForward):
            planted_keras_faults.patch(part, lambda self, hidden, training=None: in_keras(self, hidden))

    return plant_in_torch, plant_in_keras


MISSING_RESIDUAL = feed_forward(
    lambda self, hidden: self.layer_norm(self.contract(gelu(self.expand(hidden)))),
    lambda self, hidden: self.layer_norm(self.contract(keras_layers.gelu(self.expand(hidden)))),
)
NORM_BEFORE_RESIDUAL = feed_forward(
    lambda self, hidden: self.layer_norm(self.contract(gelu(self.expand(hidden)))) + hidden,
    lambda self, hidden: self.layer_norm(self.contract(keras_layers.gelu(self.expand(hidden)))) + hidden,
)
RELU = feed_forward(
    lambda self, hidden: self.layer_norm(self.contract(F.relu(self.expand(hidden))) + hidden),
    lambda self, hidden: self.layer_norm(self.contract(tf.nn.relu(self.expand(hidden))) + hidden),
)


def cross_layers(
    in_torch: Callable[..., Any], in_keras: Callable[..., Any], *, last: bool = False
) -> tuple[PlantInTorch, PlantInKeras]:
    """Another cross-modality layer, everywhere or at the end."""
    start = -1 if last else 0

    def plant_in_torch(model: nn.Module) -> None:
        for part in planted_faults.parts(model, CrossModalityLayer)[start:]:
            planted_faults.patch(part, in_torch)

    def plant_in_keras(model: PreTrainedTFLxmert) -> None:
        planted_keras_faults.compute_everything(model)
        for part in planted_keras_faults.parts(model, keras_layers.CrossModalityLayer)[start:]:
            planted_keras_faults.patch(part, in_keras)

    return plant_in_torch, plant_in_keras


def unshared_in_torch(self: Any, language: Tensor, vision: Tensor, words: Any, objects: Any, want: bool) -> Any:
    """Objects read words through weights of their own."""
    seeing, attention = self.cross_attention(language, vision, objects, want)
    reading, _ = self.language_self_attention(vision, language, words, want)
    language, _ = self.language_self_attention(seeing, seeing, words, want)
    vision, _ = self.vision_self_attention(reading, reading, objects, want)
    return self.language_feed_forward(language), self.vision_feed_forward(vision), attention


def unshared_in_keras(
    self: Any, language: tf.Tensor, vision: tf.Tensor, *, words: Any, objects: Any, want: bool = False,
    training: bool | None = None, **needed: bool,
) -> Any:  # fmt: skip
    """The same."""
    seeing, attention = self.cross_attention(language, vision, side=words, context_side=objects, want=want)
    reading, _ = self.language_self_attention(vision, language, side=objects, context_side=words)
    language, _ = self.language_self_attention(seeing, side=words)
    vision, _ = self.vision_self_attention(reading, side=objects)
    return self.language_feed_forward(language), self.vision_feed_forward(vision), attention


UNSHARED = cross_layers(unshared_in_torch, unshared_in_keras)
TRUNCATED = cross_layers(
    lambda self, language, vision, *_: (language, vision, None),
    lambda self, language, vision, **_: (language, vision, None),
    last=True,
)


def cross_attention_unmasked(model: nn.Module) -> None:
    """Words see masked objects, and objects masked words."""
    for part in planted_faults.parts(model, CrossModalityLayer):
        planted_faults.patch(
            part.cross_attention,
            lambda self, hidden, context, bias, want: Attention.forward(self, hidden, context, None, want),
        )


def objects_masked_as_words(model: nn.Module) -> None:
    """The visual mask is the words', cut or lengthened to the number of objects."""

    def forward(self: Any, **options: Any) -> Any:
        words, objects = options["attention_mask"], options["visual_attention_mask"]
        number = objects.shape[1]
        mask = F.pad(words.to(objects.dtype), (0, number))[:, :number]
        return LxmertModel.forward(self, **{**options, "visual_attention_mask": mask})

    _patch_backbone(model, forward)


def pooled_without_tanh(model: nn.Module) -> None:
    """The pooler is a linear layer alone."""

    def forward(self: Any, **options: Any) -> Any:
        output: Any = LxmertModel.forward(self, **{**options, "return_dict": True})
        output.pooled_output = self.pooler(output.language_output[:, 0])
        return output

    _patch_backbone(model, forward)


def keras_pooled_without_tanh(model: PreTrainedTFLxmert) -> None:
    """The same."""
    planted_keras_faults.compute_everything(model)
    backbone = planted_keras_faults.parts(model, TFLxmertModel)[0]
    sound = backbone.call

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        outputs = sound(*arguments, **options)
        return {**outputs, "pooled_output": self.pooler(outputs["language_output"][:, 0])}

    planted_keras_faults.patch(backbone, call)


def answers_without_norm(model: nn.Module) -> None:
    """The answer head's LayerNorm is left out."""
    for part in planted_faults.parts(model, AnswerHead):
        planted_faults.patch(part, lambda self, pooled: self.answers(gelu(self.expand(pooled))))


def keras_answers_without_norm(model: PreTrainedTFLxmert) -> None:
    """The same."""
    for part in planted_keras_faults.parts(model, keras_layers.AnswerHead):
        planted_keras_faults.patch(part, lambda self, pooled: self.answers(keras_layers.gelu(self.expand(pooled))))


def keras_default_eps(model: nn.Module) -> None:
    """The epsilon that a LayerNorm of Keras has by default."""
    for part in planted_faults.parts(model, LayerNorm):
        part.eps = 1e-3


def norm_of_the_visual_sum(model: nn.Module) -> None:
    """Added first and normalised after."""
    planted_faults.patch(
        planted_faults.parts(model, VisualEmbeddings)[0],
        lambda self, feats, boxes: self.features_layer_norm((self.features(feats) + self.boxes(boxes)) / 2),
    )


ORDER = ("input_ids", "visual_feats", "visual_pos", "attention_mask", "visual_attention_mask", "token_type_ids",
         "inputs_embeds", "output_attentions", "output_hidden_states")  # fmt: skip


def _patch_backbone(model: nn.Module, forward: Callable[..., Any]) -> None:
    """Gives the backbone a forward that is called by name, however the heads call it; a deep copy keeps the fault."""

    def named(self: Any, *arguments: Any, **options: Any) -> Any:
        return forward(self, **{**dict(zip(ORDER, arguments, strict=False)), **options})

    planted_faults.patch(planted_faults.parts(model, LxmertModel)[0], named)


GRAPH_FAULTS = (
    GraphFault("GELU by tanh", planted_faults.gelu_tanh, planted_keras_faults.gelu_tanh),
    GraphFault("ReLU in place of GELU", *RELU),
    GraphFault("LayerNorm eps 1e-5", planted_faults.layer_norm_eps, planted_keras_faults.pytorchs_layer_norm_eps),
    GraphFault("LayerNorm eps 1e-3", keras_default_eps, planted_keras_faults.layer_norm_eps),
    GraphFault("one cross attention after the other", planted_faults.sequential_cross_attention,
               planted_keras_faults.sequential_cross_attention),
    GraphFault("cross attention not shared", *UNSHARED),
    GraphFault("last cross layer lost", *TRUNCATED),
    GraphFault("cross attention not masked", cross_attention_unmasked, planted_keras_faults.mask_without_cross_attention),
    GraphFault("objects masked as words", objects_masked_as_words, planted_keras_faults.objects_masked_as_words),
    GraphFault("missing residual", *MISSING_RESIDUAL),
    GraphFault("LayerNorm before the residual", *NORM_BEFORE_RESIDUAL),
    GraphFault("visual sum normalised after", norm_of_the_visual_sum, planted_keras_faults.norm_of_the_visual_sum),
    GraphFault("last token pooled", planted_faults.last_token_pooled, planted_keras_faults.last_token_pooled),
    GraphFault("pooler without tanh", pooled_without_tanh, keras_pooled_without_tanh),
    GraphFault("answer head without LayerNorm", answers_without_norm, keras_answers_without_norm),
)  # fmt: skip
