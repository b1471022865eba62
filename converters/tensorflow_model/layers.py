"""The layers of the Keras models, big to small, as in ``lxmert_export/model/lxmert.py``.

Between layers hidden states are matrices [batch * length, hidden]: TensorFlow fuses matmul, bias and GELU for matrices
only. Every layer casts its own inputs (``autocast=False``), so the float32 islands are the same under every dtype
policy.

Shapes: B batch, L words, O objects, S words or objects, Q queries, K keys, N heads, D head size, H hidden size, V
vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from converters.tensorflow_model.sides import Side
from lxmert_export.spec.config import LxmertConfig

# As in PyTorch: added to the attention scores of a masked key.
MASK_BIAS = -10000.0


class Block(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """A layer whose weights exist once it is constructed, under the paths that ``weight_names`` lists."""

    def __init__(self, name: str, policy: keras.DTypePolicy) -> None:
        super().__init__(name=name, dtype=policy, autocast=False)
        self.built = True


class LanguageEmbeddings(Block):
    """Word + position + token type, normalised. Row 0 of each table gets no gradient, as in PyTorch (padding_idx=0)."""

    def __init__(self, config: LxmertConfig, name: str, policy: keras.DTypePolicy) -> None:
        super().__init__(name, policy)
        hidden = config.hidden_size
        with keras.name_scope(name):
            self.word = Embedding(config.vocab_size, hidden, config, "word", policy, variable="weight")
            self.position = Embedding(config.max_position_embeddings, hidden, config, "position", policy)
            self.token_type = Embedding(config.type_vocab_size, hidden, config, "token_type", policy)
            self.layer_norm = LayerNorm(hidden, config.layer_norm_eps, "layer_norm", policy)
        self.dropout_probability = config.hidden_dropout_prob

    def call(self, words: tf.Tensor, token_type_ids: tf.Tensor | None, training: bool | None = None) -> tf.Tensor:
        positions = tf.range(tf.shape(words)[1])  # [L]
        if token_type_ids is None:
            token_type_ids = tf.zeros(tf.shape(words)[:2], dtype=tf.int32)
        summed = words + self.position(positions) + self.token_type(token_type_ids)
        return dropout(self.layer_norm(summed), self.dropout_probability, training)


class VisualEmbeddings(Block):
    """The mean of the projected features and the projected boxes, each normalised (paper, equations 1 and 2)."""

    def __init__(self, config: LxmertConfig, name: str, policy: keras.DTypePolicy) -> None:
        super().__init__(name, policy)
        hidden, eps = config.hidden_size, config.layer_norm_eps
        with keras.name_scope(name):
            self.features = Linear(config.visual_feat_dim, hidden, config, "features", policy)
            self.features_layer_norm = LayerNorm(hidden, eps, "features_layer_norm", policy)
            self.boxes = Linear(config.visual_pos_dim, hidden, config, "boxes", policy)
            self.boxes_layer_norm = LayerNorm(hidden, eps, "boxes_layer_norm", policy)
        self.dropout_probability = config.hidden_dropout_prob

    def call(self, visual_feats: tf.Tensor, visual_pos: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        features = self.features_layer_norm(self.features(as_dtype(visual_feats, self.compute_dtype)))
        boxes = self.boxes_layer_norm(self.boxes(as_dtype(visual_pos, self.compute_dtype)))
        return dropout((features + boxes) / 2, self.dropout_probability, training)


class CrossModalityLayer(Block):
    """Cross attention in both directions with one shared module, then self attention and feed forward on each side."""

    def __init__(self, config: LxmertConfig, name: str, policy: keras.DTypePolicy) -> None:
        super().__init__(name, policy)
        with keras.name_scope(name):
            self.cross_attention = Attention(config, "cross_attention", policy)
            self.language_self_attention = Attention(config, "language_self_attention", policy)
            self.vision_self_attention = Attention(config, "vision_self_attention", policy)
            self.language_feed_forward = FeedForward(config, "language_feed_forward", policy)
            self.vision_feed_forward = FeedForward(config, "vision_feed_forward", policy)

    def call(
        self, language: tf.Tensor, vision: tf.Tensor, *, words: Side, objects: Side, want: bool = False,
        training: bool | None = None, need_words: bool = True, need_vision: bool = True,
    ) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor | None]:  # fmt: skip
        """Without ``need_words`` language is row 0 of each text alone; without ``need_vision`` vision is None."""
        options = {"want": want, "training": training}
        # Both directions read the layer's inputs; neither reads the other's result.
        seeing, attention = self.cross_attention(language, vision, side=words, context_side=objects, **options)
        if need_vision:
            reading, _ = self.cross_attention(vision, language, side=objects, context_side=words, **options)
        if need_words:
            language, _ = self.language_self_attention(seeing, side=words, **options)
        else:
            first = words.first_rows(seeing)
            language, _ = self.language_self_attention(
                first, seeing, side=words.of_first_rows, context_side=words, **options
            )
        vision = self.vision_self_attention(reading, side=objects, **options)[0] if need_vision else None
        language = self.language_feed_forward(language, training=training)
        return language, self.vision_feed_forward(vision, training=training) if need_vision else None, attention


class EncoderLayer(Block):
    """One single-modality layer: self attention, then feed forward, each with its residual and norm."""

    def __init__(self, config: LxmertConfig, name: str, policy: keras.DTypePolicy) -> None:
        super().__init__(name, policy)
        with keras.name_scope(name):
            self.self_attention = Attention(config, "self_attention", policy)
            self.feed_forward = FeedForward(config, "feed_forward", policy)

    def call(
        self, hidden: tf.Tensor, *, side: Side, want: bool = False, training: bool | None = None
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        hidden, attention = self.self_attention(hidden, side=side, want=want, training=training)
        return self.feed_forward(hidden, training=training), attention


class Attention(Block):
    """Multi-head attention from ``hidden`` to ``context`` (or itself), with output projection, residual, norm."""

    def __init__(self, config: LxmertConfig, name: str, policy: keras.DTypePolicy) -> None:
        super().__init__(name, policy)
        hidden = config.hidden_size
        with keras.name_scope(name):
            self.query = Linear(hidden, hidden, config, "query", policy)
            self.key = Linear(hidden, hidden, config, "key", policy)
            self.value = Linear(hidden, hidden, config, "value", policy)
            self.output_projection = Linear(hidden, hidden, config, "output", policy)
            self.layer_norm = LayerNorm(hidden, config.layer_norm_eps, "layer_norm", policy)
        self.heads, self.scale = config.num_attention_heads, 1 / math.sqrt(config.head_size)
        self.dropout_probability = config.attention_probs_dropout_prob
        self.hidden_dropout_probability = config.hidden_dropout_prob

    def call(
        self, hidden: tf.Tensor, context: tf.Tensor | None = None, *, side: Side, context_side: Side | None = None,
        want: bool = False, training: bool | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor | None]:  # fmt: skip
        """``hidden`` [B * Q, H], ``context`` [B * K, H] → [B * Q, H] and, if ``want``, probabilities [B, N, Q, K]."""
        context, context_side = hidden if context is None else context, context_side or side
        query = self._split(self.query(hidden), side)  # [B, N, Q, D]
        key = self._split(self.key(context), context_side)  # [B, N, K, D]
        value = self._split(self.value(context), context_side)  # [B, N, K, D]
        # Scaling the query, not the scores, keeps the product inside fp16's range.
        scores = at_least_float32(tf.matmul(query * self.scale, key, transpose_b=True))
        if context_side.bias is not None:
            scores = scores + context_side.bias
        probabilities = dropout(as_dtype(tf.nn.softmax(scores), query.dtype), self.dropout_probability, training)
        mixed = self._merge(tf.matmul(probabilities, value), side)  # [B * Q, H]
        projected = dropout(self.output_projection(mixed), self.hidden_dropout_probability, training)
        return self.layer_norm(projected + hidden), probabilities if want else None

    def _split(self, hidden: tf.Tensor, side: Side) -> tf.Tensor:
        """[B * S, H] → [B, N, S, D]; [B, S, H] likewise, without a reshape."""
        if side.heads is None:
            return tf.stack(tf.split(hidden, self.heads, axis=-1), axis=1)
        return tf.transpose(tf.reshape(hidden, side.heads), [0, 2, 1, 3])

    def _merge(self, mixed: tf.Tensor, side: Side) -> tf.Tensor:
        """[B, N, S, D] → [B * S, H], or [B, S, H]."""
        if side.heads is None:
            return tf.concat(tf.unstack(mixed, axis=1), axis=-1)
        return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, self.query.outputs])


def mask_bias(mask: tf.Tensor | None, masked: float, dtype: tf.DType) -> tf.Tensor | None:
    """Mask [B, K] (1: seen) → bias [B, 1, 1, K]: 0 for a seen key, ``masked`` for another; at least float32."""
    if mask is None:
        return None
    wide = tf.float64 if dtype == tf.float64 else tf.float32
    # expand_dims twice: [:, None, None, :] does not convert to TFLite
    return tf.expand_dims(tf.expand_dims((as_dtype(mask, wide) - 1.0) * -masked, 1), 1)


class FeedForward(Block):
    """Expand, GELU, contract, residual and norm."""

    def __init__(self, config: LxmertConfig, name: str, policy: keras.DTypePolicy) -> None:
        super().__init__(name, policy)
        hidden, inner = config.hidden_size, config.intermediate_size
        with keras.name_scope(name):
            self.expand = Linear(hidden, inner, config, "expand", policy)
            self.contract = Linear(inner, hidden, config, "contract", policy)
            self.layer_norm = LayerNorm(hidden, config.layer_norm_eps, "layer_norm", policy)
        self.dropout_probability = config.hidden_dropout_prob

    def call(self, hidden: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        contracted = self.contract(gelu(self.expand(hidden)))
        return self.layer_norm(dropout(contracted, self.dropout_probability, training) + hidden)


class MaskedLanguageHead(Block):
    """Scores over the vocabulary for every word; the decoder is the word embedding, unless the config unties them."""

    def __init__(self, config: LxmertConfig, name: str, policy: keras.DTypePolicy) -> None:
        super().__init__(name, policy)
        self.bias = self.add_weight(name="bias", shape=(config.vocab_size,), initializer="zeros")
        with keras.name_scope(name):
            self.transform = Transform(config, "transform", policy)
            self.decoder = None
            if not config.tie_word_embeddings:
                self.decoder = Linear(
                    config.hidden_size, config.vocab_size, config, "decoder", policy, use_bias=False
                )  # fmt: skip

    def call(self, language: tf.Tensor, word_embedding: tf.Tensor) -> tf.Tensor:
        """[B, L, H] and the table [V, H] → [B, L, V]."""
        transformed = self.transform(language)
        if self.decoder is not None:
            scores = self.decoder(transformed)
        else:
            # Three axes: with a transposed table, TensorFlow's batched matmul is faster than its matmul of matrices.
            scores = tf.matmul(transformed, as_dtype(word_embedding, transformed.dtype), transpose_b=True)
        return scores + as_dtype(self.bias, scores.dtype)


class ObjectHead(Block):
    """Predicts the class, the attribute and the features of every object."""

    def __init__(self, config: LxmertConfig, name: str, policy: keras.DTypePolicy) -> None:
        super().__init__(name, policy)
        with keras.name_scope(name):
            self.transform = Transform(config, "transform", policy)
            with keras.name_scope("targets"):
                self.targets = {
                    target: Linear(config.hidden_size, config.visual_target_size(target), config, target, policy)
                    for target in config.visual_losses
                }

    def call(self, vision: tf.Tensor) -> dict[str, tf.Tensor]:
        transformed = self.transform(vision)
        return {target: linear(transformed) for target, linear in self.targets.items()}


class AnswerHead(Block):
    """Two linear layers with GELU and norm between them."""

    def __init__(self, config: LxmertConfig, inputs: int, answers: int, name: str, policy: keras.DTypePolicy) -> None:
        super().__init__(name, policy)
        inner = 2 * config.hidden_size
        with keras.name_scope(name):
            self.expand = Linear(inputs, inner, config, "expand", policy)
            self.layer_norm = LayerNorm(inner, config.layer_norm_eps, "layer_norm", policy)
            self.answers = Linear(inner, answers, config, "answers", policy)

    def call(self, pooled: tf.Tensor) -> tf.Tensor:
        return self.answers(self.layer_norm(gelu(self.expand(pooled))))


class Transform(Block):
    """Linear, GELU, norm: the first layers of the word and object heads."""

    def __init__(self, config: LxmertConfig, name: str, policy: keras.DTypePolicy) -> None:
        super().__init__(name, policy)
        with keras.name_scope(name):
            self.dense = Linear(config.hidden_size, config.hidden_size, config, "dense", policy)
            self.layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps, "layer_norm", policy)

    def call(self, hidden: tf.Tensor) -> tf.Tensor:
        return self.layer_norm(gelu(self.dense(hidden)))


class LayerNorm(Block):
    """Layer normalisation in at least float32, parameters included: the published eps of 1e-12 is 0 in fp16."""

    def __init__(self, width: int, eps: float, name: str, policy: keras.DTypePolicy) -> None:
        wide = "float64" if policy.compute_dtype == "float64" else "float32"
        super().__init__(name, keras.DTypePolicy(wide))
        self.eps = eps
        self.gain = self.add_weight(name="gamma", shape=(width,), initializer="ones")
        self.shift = self.add_weight(name="beta", shape=(width,), initializer="zeros")

    def call(self, hidden: tf.Tensor) -> tf.Tensor:
        wide = at_least_float32(hidden)
        centred = wide - tf.reduce_mean(wide, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return as_dtype(centred * tf.math.rsqrt(variance + self.eps) * self.gain + self.shift, hidden.dtype)


class Linear(Block):
    """``x @ kernel + bias`` over the last axis."""

    def __init__(
        self, inputs: int, outputs: int, config: LxmertConfig, name: str, policy: keras.DTypePolicy,
        *, use_bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(name, policy)
        self.outputs = outputs
        self.kernel = self.add_weight(name="kernel", shape=(inputs, outputs), initializer=_normal(config))
        self.bias = self.add_weight(name="bias", shape=(outputs,), initializer="zeros") if use_bias else None

    def call(self, hidden: tf.Tensor) -> tf.Tensor:
        product = tf.matmul(hidden, as_dtype(self.kernel, hidden.dtype))
        return product if self.bias is None else tf.nn.bias_add(product, as_dtype(self.bias, hidden.dtype))


class Embedding(Block):
    """Looks up rows of a table by number; row 0 gets no gradient."""

    def __init__(
        self, rows: int, width: int, config: LxmertConfig, name: str, policy: keras.DTypePolicy,
        *, variable: str = "embeddings",
    ) -> None:  # fmt: skip
        super().__init__(name, policy)
        self.weight = self.add_weight(name=variable, shape=(rows, width), initializer=_normal_but_in_row_0(config))

    def call(self, numbers: tf.Tensor) -> tf.Tensor:
        table = tf.convert_to_tensor(self.weight)
        if self.trainable and self.compute_dtype == "float16":
            table = with_dense_gradient(table)
        rows = as_dtype(tf.gather(table, numbers), self.compute_dtype)
        if not self.trainable:  # as served: without a gradient to stop, no operators for it
            return rows
        return tf.where(tf.expand_dims(tf.equal(numbers, 0), -1), tf.stop_gradient(rows), rows)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def with_dense_gradient(table: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.IndexedSlices], tf.Tensor]]:
    """Returns the table unchanged; its gradient is summed by row before anything reads it.

    In a sparse gradient, Keras' loss scaling checks one occurrence of each row only, and would apply an overflow in
    another one.
    """
    return tf.identity(table), tf.convert_to_tensor


def _normal(config: LxmertConfig) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=config.initializer_range)


def _normal_but_in_row_0(config: LxmertConfig) -> Callable[..., tf.Tensor]:
    """Returns an initializer that sets row 0, the padding, to zero as in PyTorch. Without a gradient it stays zero."""

    def initialize(shape: tuple[int, int], dtype: str) -> tf.Tensor:
        return tf.pad(_normal(config)((shape[0] - 1, shape[1]), dtype), [[1, 0], [0, 0]])

    return initialize


def dropout(hidden: tf.Tensor, probability: float, training: bool | None) -> tf.Tensor:
    """Applies dropout in training only."""
    return tf.nn.dropout(hidden, probability) if training and probability else hidden


def gelu(hidden: tf.Tensor) -> tf.Tensor:
    """The exact GELU, by erf, in at least float32: in lower precisions, 1 + erf loses its digits to cancellation."""
    wide = at_least_float32(hidden)
    # The formula of tf.nn.gelu, which TensorFlow and TFLite fuse. In float64, tf.nn.gelu itself rounds sqrt(1/2)
    # to float32.
    return as_dtype(0.5 * wide * tf.math.erfc(-wide * math.sqrt(0.5)), hidden.dtype)


def at_least_float32(tensor: tf.Tensor) -> tf.Tensor:
    """Casts fp16 and bf16 to float32; wider types stay. These casts make the float32 islands of half-precision runs."""
    return tensor if tensor.dtype == tf.float64 else as_dtype(tensor, tf.float32)


def as_dtype(tensor: tf.Tensor, dtype: tf.DType | str) -> tf.Tensor:
    """Casts a tensor, unless it has the dtype already."""
    tensor = tf.convert_to_tensor(tensor)
    return tensor if tensor.dtype == tf.as_dtype(dtype) else tf.cast(tensor, dtype)
