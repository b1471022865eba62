"""Faults that a port to Keras could commit, each planted into a Keras model in place.

Those that change weights survive ``.keras`` files too; those that change a ``call`` do in SavedModels, which are traced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MethodType
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from converters.tensorflow_model.layers import (
    Attention,
    Block,
    CrossModalityLayer,
    FeedForward,
    LayerNorm,
    MaskedLanguageHead,
    ObjectHead,
    VisualEmbeddings,
    as_dtype,
    dropout,
    gelu,
)
from converters.tensorflow_model.model import TFLxmertModel
from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from converters.tensorflow_model.sides import Side

Plant = Callable[[PreTrainedTFLxmert], None]


def parts(model: PreTrainedTFLxmert, kind: type[keras.layers.Layer]) -> list[Any]:
    """The model's parts of one class, the model itself included, in the order in which they were made."""
    return [part for part in [model, *model._flatten_layers(include_self=False)] if isinstance(part, kind)]


def patch(part: keras.layers.Layer, call: Callable[..., Any]) -> None:
    """Gives one part another call."""
    part.call = MethodType(call, part)


def compute_everything(model: PreTrainedTFLxmert) -> None:
    """Makes the backbone compute what its heads do not read, too: for faults of a layer or of the pooling."""
    backbone = parts(model, TFLxmertModel)[0]
    sound = backbone.call
    patch(backbone, lambda self, *given, **named: sound(*given, **{**named, "need_words": True, "need_vision": True}))


def transposed_kernel(model: PreTrainedTFLxmert) -> None:
    """A square kernel, which no shape gives away."""
    _change(parts(model, Attention)[1].output_projection.kernel, np.transpose)


def every_square_kernel_transposed(model: PreTrainedTFLxmert) -> None:
    for attention in parts(model, Attention):
        for linear in (attention.query, attention.key, attention.value, attention.output_projection):
            _change(linear.kernel, np.transpose)


def swapped_gain_and_shift(model: PreTrainedTFLxmert) -> None:
    norm = parts(model, FeedForward)[0].layer_norm
    _exchange(norm.gain, norm.shift)


def layer_norm_eps(model: PreTrainedTFLxmert) -> None:
    for part in parts(model, LayerNorm):
        part.eps = 1e-3  # Keras' default


def pytorchs_layer_norm_eps(model: PreTrainedTFLxmert) -> None:
    for part in parts(model, LayerNorm):
        part.eps = 1e-5


def layers_off_by_one(model: PreTrainedTFLxmert) -> None:
    first, second = parts(model, TFLxmertModel)[0].language_layers[:2]
    for one, other in zip(first.variables, second.variables, strict=True):
        _exchange(one, other)


def gelu_tanh(model: PreTrainedTFLxmert) -> None:
    def call(self: Any, hidden: tf.Tensor, training: bool | None = None) -> Any:
        return self.layer_norm(self.contract(tf.nn.gelu(self.expand(hidden), approximate=True)) + hidden)

    for part in parts(model, FeedForward):
        patch(part, call)


def ignored_language_mask(model: PreTrainedTFLxmert) -> None:
    _with_masks(model, lambda words, objects: (None, objects))


def ignored_vision_mask(model: PreTrainedTFLxmert) -> None:
    _with_masks(model, lambda words, objects: (words, None))


def objects_masked_as_words(model: PreTrainedTFLxmert) -> None:
    """The visual mask is the language side's, cut or lengthened to the number of objects."""

    def masks(words: tf.Tensor, objects: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None]:
        if objects is None:
            return words, objects
        missing = tf.maximum(tf.shape(objects)[1] - tf.shape(words)[1], 0)
        return words, tf.pad(words, [[0, 0], [0, missing]])[:, : tf.shape(objects)[1]]

    _with_masks(model, masks)


def mask_without_cross_attention(model: PreTrainedTFLxmert) -> None:
    """Words see masked objects, and objects masked words; within each side the masks hold."""
    for layer in parts(model, CrossModalityLayer):
        _change_sides(layer.cross_attention, lambda side: replace(side, bias=None))


def exchanged_visual_norms(model: PreTrainedTFLxmert) -> None:
    visual = parts(model, VisualEmbeddings)[0]
    for name in ("gain", "shift"):
        _exchange(getattr(visual.features_layer_norm, name), getattr(visual.boxes_layer_norm, name))


def norm_of_the_visual_sum(model: PreTrainedTFLxmert) -> None:
    """Added first and normalised after, as the words are."""

    def call(self: Any, visual_feats: tf.Tensor, visual_pos: tf.Tensor, training: bool | None = None) -> Any:
        features, boxes = (as_dtype(part, self.compute_dtype) for part in (visual_feats, visual_pos))
        return self.features_layer_norm((self.features(features) + self.boxes(boxes)) / 2)

    patch(parts(model, VisualEmbeddings)[0], call)


def missing_half(model: PreTrainedTFLxmert) -> None:
    _scale_result(parts(model, VisualEmbeddings)[0], 2.0)


def last_token_pooled(model: PreTrainedTFLxmert) -> None:
    _pool_at(model, -1)


def second_token_pooled(model: PreTrainedTFLxmert) -> None:
    _pool_at(model, 1)


def untied_decoder(model: PreTrainedTFLxmert) -> None:
    """The decoder has a table of its own, close to the embedding's."""
    head = parts(model, MaskedLanguageHead)[0]
    sound = head.call

    def call(self: Any, language: tf.Tensor, word_embedding: tf.Tensor) -> Any:
        table = tf.convert_to_tensor(word_embedding)
        noise = np.random.default_rng(1).standard_normal(tuple(table.shape))
        return sound(language, table + 0.1 * tf.constant(noise, table.dtype))

    patch(head, call)


def swapped_query_and_key(model: PreTrainedTFLxmert) -> None:
    attention = parts(model, CrossModalityLayer)[0].cross_attention
    _exchange(attention.query.kernel, attention.key.kernel)
    _exchange(attention.query.bias, attention.key.bias)


def unscaled_scores(model: PreTrainedTFLxmert) -> None:
    parts(model, Attention)[0].scale = 1.0


def sequential_cross_attention(model: PreTrainedTFLxmert) -> None:
    def call(
        self: Any, language: tf.Tensor, vision: tf.Tensor, *, words: Side, objects: Side, want: bool = False,
        training: bool | None = None, **needed: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        seeing, attention = self.cross_attention(language, vision, side=words, context_side=objects, want=want)
        # Reads what was just written:
        reading, _ = self.cross_attention(vision, seeing, side=objects, context_side=words)
        language, _ = self.language_self_attention(seeing, side=words)
        vision, _ = self.vision_self_attention(reading, side=objects)
        return self.language_feed_forward(language), self.vision_feed_forward(vision), attention

    compute_everything(model)
    for layer in parts(model, CrossModalityLayer):
        patch(layer, call)


def wrong_head_count(model: PreTrainedTFLxmert) -> None:
    """Half as many heads, twice as wide; the scale is the sound one's."""

    def half_as_many(side: Side) -> Side:
        assert side.heads is not None, "planted where hidden states are matrices"
        batch, length, heads, width = side.heads
        return replace(side, heads=[batch, length, heads // 2, width * 2])

    for attention in parts(model, Attention):
        _change_sides(attention, half_as_many)


def dropped_token_types(model: PreTrainedTFLxmert) -> None:
    table = parts(model, TFLxmertModel)[0].embeddings.token_type.weight
    _change(table, lambda rows: np.repeat(rows[:1], len(rows), axis=0))


def positions_off_by_one(model: PreTrainedTFLxmert) -> None:
    _change(parts(model, TFLxmertModel)[0].embeddings.position.weight, lambda rows: np.roll(rows, -1, axis=0))


def dropout_when_served(model: PreTrainedTFLxmert) -> None:
    def call(self: Any, hidden: tf.Tensor, training: bool | None = None) -> Any:
        contracted = dropout(self.contract(gelu(self.expand(hidden))), 0.1, training=True)
        return self.layer_norm(contracted + hidden)

    patch(parts(model, FeedForward)[0], call)


def missing_residual(model: PreTrainedTFLxmert) -> None:
    def call(self: Any, hidden: tf.Tensor, training: bool | None = None) -> Any:
        return self.layer_norm(self.contract(gelu(self.expand(hidden))))

    patch(parts(model, FeedForward)[-1], call)


def attributes_off_by_one(model: PreTrainedTFLxmert) -> None:
    """Every attribute has the next one's bias, as where a class for "none" is added or left out."""
    _change(parts(model, ObjectHead)[0].targets["attr"].bias, lambda bias: np.roll(bias, 1))


def one_weight_changed(model: PreTrainedTFLxmert) -> None:
    """One number of one matrix, the largest of its column's, gets the other sign."""

    def flip(kernel: NDArray[np.generic]) -> NDArray[np.generic]:
        changed = np.array(kernel)
        changed[np.abs(changed[:, 0]).argmax(), 0] *= -1
        return changed

    _change(parts(model, FeedForward)[0].contract.kernel, flip)


def _change(variable: keras.Variable, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    variable.assign(change(variable.numpy()))


def _exchange(one: keras.Variable, other: keras.Variable) -> None:
    values = one.numpy(), other.numpy()
    one.assign(values[1])
    other.assign(values[0])


def _with_masks(model: PreTrainedTFLxmert, masks: Callable[[Any, Any], tuple[Any, Any]]) -> None:
    """Gives the backbone other masks than it was called with."""
    backbone = parts(model, TFLxmertModel)[0]
    sound = backbone.call

    def call(self: Any, *arguments: Any, **given: Any) -> Any:
        names = ("attention_mask", "visual_attention_mask")
        return sound(*arguments, **{**given, **dict(zip(names, masks(*map(given.get, names)), strict=True))})

    patch(backbone, call)


def _change_sides(attention: Attention, change: Callable[[Side], Side]) -> None:
    sound = attention.call

    def call(
        self: Any, hidden: tf.Tensor, context: tf.Tensor | None = None, *, side: Side,
        context_side: Side | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        seen = change(context_side or side)
        return sound(hidden, context, side=change(side), context_side=seen, **options)

    patch(attention, call)


def _scale_result(part: Block, factor: float) -> None:
    sound = part.call
    patch(part, lambda self, *arguments, **options: sound(*arguments, **options) * factor)


def _pool_at(model: PreTrainedTFLxmert, place: int) -> None:
    compute_everything(model)
    backbone = parts(model, TFLxmertModel)[0]
    sound = backbone.call

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        outputs = sound(*arguments, **options)
        return {**outputs, "pooled_output": tf.tanh(self.pooler(outputs["language_output"][:, place]))}

    patch(backbone, call)


FAULTS: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        transposed_kernel,
        every_square_kernel_transposed,
        swapped_gain_and_shift,
        layer_norm_eps,
        pytorchs_layer_norm_eps,
        layers_off_by_one,
        gelu_tanh,
        ignored_language_mask,
        ignored_vision_mask,
        objects_masked_as_words,
        mask_without_cross_attention,
        exchanged_visual_norms,
        norm_of_the_visual_sum,
        missing_half,
        last_token_pooled,
        second_token_pooled,
        untied_decoder,
        swapped_query_and_key,
        unscaled_scores,
        sequential_cross_attention,
        wrong_head_count,
        dropped_token_types,
        positions_off_by_one,
        dropout_when_served,
        missing_residual,
        attributes_off_by_one,
        one_weight_changed,
    )
}
# These change no more than weights: the faulty model's graph is the sound one's.
WEIGHTS_ALONE = frozenset((
    "transposed_kernel", "every_square_kernel_transposed", "swapped_gain_and_shift", "layers_off_by_one",
    "exchanged_visual_norms", "swapped_query_and_key", "dropped_token_types", "positions_off_by_one",
    "attributes_off_by_one", "one_weight_changed",
))  # fmt: skip
