"""The canonical LXMERT in PyTorch, the reference for every conversion: one file, from the whole model to its parts.

Paper: Tan & Bansal 2019, "LXMERT: Learning Cross-Modality Encoder Representations from Transformers" (section 2).
Sources, equal up to rounding: airsplay/lxmert ``src/lxrt/modeling.py`` and transformers ``modeling_lxmert.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lxmert_export.errors import InputError
from lxmert_export.model.losses import classification_loss, visual_loss
from lxmert_export.model.outputs import (
    LxmertForNLVR2Output,
    LxmertForPreTrainingOutput,
    LxmertForQuestionAnsweringOutput,
    LxmertModelOutput,
    ModelOutput,
)
from lxmert_export.model.pretrained import PreTrainedLxmert, resized_rows
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import IMAGES_PER_SENTENCE, OBJECT_OUTPUTS, Task

# Added to the attention scores of a masked key. The original code's constant, safe in fp16. It gives the same result as
# transformers' finfo.min unless every key of a row is masked: then the scores decide here; there all keys count alike.
MASK_BIAS = -10000.0


class LxmertModel(PreTrainedLxmert):
    """The backbone: a language encoder, an object encoder, and a cross-modality encoder over both.

    Weights are float32 unless cast. Source: paper section 2.2, transformers ``LxmertModel``.
    """

    task = "model"

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__(config)
        self.embeddings = LanguageEmbeddings(config)
        self.visual_embeddings = VisualEmbeddings(config)
        self.language_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.l_layers))
        self.cross_modality_layers = nn.ModuleList(CrossModalityLayer(config) for _ in range(config.x_layers))
        self.vision_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.r_layers))
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.apply(self.initialize)

    def forward(
        self,
        input_ids: Tensor | None = None,
        visual_feats: Tensor | None = None,
        visual_pos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        visual_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> LxmertModelOutput | tuple[Any, ...]:
        """Encodes a batch of sentences, each with the objects of its picture.

        - ``input_ids`` [batch, text] int64, or ``inputs_embeds`` [batch, text, hidden] in their place.
        - ``token_type_ids`` [batch, text] int64; zeros by default.
        - ``visual_feats`` [batch, objects, visual_feat_dim].
        - ``visual_pos`` [batch, objects, visual_pos_dim]: boxes (x1, y1, x2, y2) ÷ the picture's width and height.
        - ``attention_mask`` [batch, text], ``visual_attention_mask`` [batch, objects], any dtype: 1 is seen, 0 is not;
          ones by default.

        ``InputError``: visual inputs are missing, or both or neither of ``input_ids`` and ``inputs_embeds`` are given.
        """
        words = self._words(input_ids, inputs_embeds)  # [B, L, H]
        if visual_feats is None or visual_pos is None:
            raise InputError("visual_feats and visual_pos are both needed: LXMERT reads a sentence and its picture")
        want_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        language = self.embeddings(words, token_type_ids)  # [B, L, H]
        vision = self.visual_embeddings(visual_feats, visual_pos)  # [B, O, H]
        language_bias = mask_bias(attention_mask, language.dtype)  # [B, 1, 1, L]
        vision_bias = mask_bias(visual_attention_mask, vision.dtype)  # [B, 1, 1, O]

        language_states, vision_states = [], []
        language_attentions, vision_attentions, cross_attentions = [], [], []
        for layer in self.language_layers:
            language, attention = layer(language, language_bias, want_attentions)
            language_states.append(language)
            language_attentions.append(attention)
        for layer in self.vision_layers:
            vision, attention = layer(vision, vision_bias, want_attentions)
            vision_states.append(vision)
            vision_attentions.append(attention)
        for layer in self.cross_modality_layers:
            language, vision, attention = layer(language, vision, language_bias, vision_bias, want_attentions)
            language_states.append(language)
            vision_states.append(vision)
            cross_attentions.append(attention)

        if not (self.config.output_hidden_states if output_hidden_states is None else output_hidden_states):
            language_states = vision_states = None  # type: ignore[assignment]
        output = LxmertModelOutput(
            language_output=language,
            vision_output=vision,
            pooled_output=torch.tanh(self.pooler(language[:, 0])),  # [CLS]
            language_hidden_states=_tuple(language_states),
            vision_hidden_states=_tuple(vision_states),
            language_attentions=_tuple(language_attentions, want_attentions),
            vision_attentions=_tuple(vision_attentions, want_attentions),
            cross_encoder_attentions=_tuple(cross_attentions, want_attentions),
        )
        return self._returned(output, return_dict)

    def _words(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give either input_ids or inputs_embeds, one of the two")
        return cast(Tensor, self.embeddings.word(input_ids)) if inputs_embeds is None else inputs_embeds


class LxmertForPreTraining(PreTrainedLxmert):
    """The backbone with the four pre-training heads: masked words, sentence-picture match, objects, answers.

    Source: paper section 3.1, transformers ``LxmertForPreTraining``.
    """

    task = "pretraining"

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__(config)
        self.lxmert = LxmertModel(config)
        self.masked_language_head = MaskedLanguageHead(config)
        self.match_head = nn.Linear(config.hidden_size, 2)
        if config.task_obj_predict:
            self.object_head = ObjectHead(config)
        if config.task_qa:
            self.answer_head = AnswerHead(config, config.hidden_size, config.num_qa_labels)
        self.apply(self.initialize)
        self.tie_weights()

    def forward(
        self,
        input_ids: Tensor | None = None,
        visual_feats: Tensor | None = None,
        visual_pos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        visual_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        obj_labels: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        matched_label: Tensor | None = None,
        ans: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_object_heads: bool = False,
    ) -> LxmertForPreTrainingOutput | tuple[Any, ...]:
        """Returns the heads' scores, and the sum of the losses that have labels and whose task the config switches on.

        Inputs are those of ``LxmertModel``. Labels are int64, and -100 is ignored: ``labels`` [batch, text] word ids,
        ``matched_label`` [batch] 0 or 1, ``ans`` [batch] answer ids; ``obj_labels``: see ``losses.visual_loss``.
        ``output_object_heads`` adds the scores of the object heads.
        """
        body = self.lxmert(
            input_ids, visual_feats, visual_pos, attention_mask, visual_attention_mask, token_type_ids, inputs_embeds,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        words = self.masked_language_head(body.language_output)  # [B, L, V]
        match = self.match_head(body.pooled_output)  # [B, 2]
        answers = self.answer_head(body.pooled_output) if self.config.task_qa else None  # [B, A]
        want_objects = output_object_heads or obj_labels is not None
        objects = self.object_head(body.vision_output) if want_objects and self.config.task_obj_predict else {}

        losses = []
        if labels is not None and self.config.task_mask_lm:
            losses.append(classification_loss(words, labels))
        if matched_label is not None and self.config.task_matched:
            losses.append(classification_loss(match, matched_label))
        if obj_labels is not None and self.config.task_obj_predict:
            losses.append(visual_loss(objects, obj_labels, self.config))
        if ans is not None and answers is not None:
            losses.append(classification_loss(answers, ans))
        any_label = any(label is not None for label in (labels, matched_label, obj_labels, ans))
        output = LxmertForPreTrainingOutput(
            loss=sum(losses, start=match.new_zeros(())) if any_label else None,
            prediction_logits=words,
            cross_relationship_score=match,
            question_answering_score=answers,
            **_states_and_attentions(body),
            **({OBJECT_OUTPUTS[target]: scores for target, scores in objects.items()} if output_object_heads else {}),
        )
        return self._returned(output, return_dict)

    def tie_weights(self) -> None:
        """Makes the word decoder share the word embedding, unless the config switches that off."""
        if self.config.tie_word_embeddings:
            self.masked_language_head.decoder.weight = self.lxmert.embeddings.word.weight

    def resize_token_embeddings(self, new_num_tokens: int) -> nn.Embedding:
        """Cuts or extends the vocabulary: word embedding, decoder, and the decoder's bias (0 for new words)."""
        embedding = super().resize_token_embeddings(new_num_tokens)
        head = self.masked_language_head
        head.bias = resized_rows(head.bias, torch.zeros(new_num_tokens))
        if not self.config.tie_word_embeddings:
            head.decoder = self._resized_linear(head.decoder, new_num_tokens)
        return embedding

    def get_qa_logit_layer(self) -> nn.Linear | None:
        """Returns the linear layer that gives the answers' scores; None if the config has no answer head."""
        return self.answer_head.answers if self.config.task_qa else None

    def resize_num_qa_labels(self, num_labels: int | None) -> nn.Linear | None:
        """Cuts answers from the end, or adds newly initialised ones; returns the layer. None changes nothing."""
        layer = self.get_qa_logit_layer()
        if num_labels is None or layer is None:
            return layer
        self._change_config(num_qa_labels=num_labels)
        self.answer_head.answers = self._resized_linear(layer, num_labels)
        return self.answer_head.answers


class LxmertForQuestionAnswering(PreTrainedLxmert):
    """The backbone with an answer head over [CLS], as fine-tuned on VQA and GQA.

    Source: paper section 4, transformers ``LxmertForQuestionAnswering``.
    """

    task = "question-answering"

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__(config)
        self.lxmert = LxmertModel(config)
        self.answer_head = AnswerHead(config, config.hidden_size, config.num_qa_labels)
        self.apply(self.initialize)

    def forward(
        self,
        input_ids: Tensor | None = None,
        visual_feats: Tensor | None = None,
        visual_pos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        visual_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> LxmertForQuestionAnsweringOutput | tuple[Any, ...]:
        """Returns the answers' scores; with ``labels`` [batch] int64 (-100 is ignored) also the mean cross entropy."""
        body = self.lxmert(
            input_ids, visual_feats, visual_pos, attention_mask, visual_attention_mask, token_type_ids, inputs_embeds,
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        answers = self.answer_head(body.pooled_output)  # [B, A]
        output = LxmertForQuestionAnsweringOutput(
            loss=None if labels is None else classification_loss(answers, labels),
            question_answering_score=answers,
            **_states_and_attentions(body),
        )
        return self._returned(output, return_dict)

    get_qa_logit_layer = LxmertForPreTraining.get_qa_logit_layer
    resize_num_qa_labels = LxmertForPreTraining.resize_num_qa_labels


class LxmertForNLVR2(PreTrainedLxmert):
    """The backbone with a head over two pictures: is the sentence true of the pair?

    Source: airsplay/lxmert ``src/tasks/nlvr2_model.py``; transformers has no such class.
    """

    task = "nlvr2"

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__(config)
        self.lxmert = LxmertModel(config)
        self.pair_head = AnswerHead(config, IMAGES_PER_SENTENCE * config.hidden_size, 2)
        self.apply(self.initialize)

    def forward(
        self,
        input_ids: Tensor | None = None,
        visual_feats: Tensor | None = None,
        visual_pos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        visual_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> LxmertForNLVR2Output | tuple[Any, ...]:
        """Returns ``logits`` [batch, 2]; with ``labels`` [batch] int64 (1: the sentence is true), also the loss.

        The three visual inputs have an axis of two pictures after the batch: [batch, 2, objects, …].
        """
        body = self.lxmert(
            _twice(input_ids), _flat_pairs(visual_feats), _flat_pairs(visual_pos), _twice(attention_mask),
            _flat_pairs(visual_attention_mask), _twice(token_type_ids), _twice(inputs_embeds),
            output_attentions, output_hidden_states, return_dict=True,
        )  # fmt: skip
        pairs = body.pooled_output.reshape(-1, IMAGES_PER_SENTENCE * self.config.hidden_size)  # [2B, H] → [B, 2H]
        logits = self.pair_head(pairs)
        output = LxmertForNLVR2Output(
            loss=None if labels is None else classification_loss(logits, labels),
            logits=logits,
            **_states_and_attentions(body),
        )
        return self._returned(output, return_dict)


def _twice(tensor: Tensor | None) -> Tensor | None:
    """[B, L, …] → [2B, L, …]: each sentence once for each of its two pictures."""
    if tensor is None:
        return None
    return tensor.unsqueeze(1).expand(-1, IMAGES_PER_SENTENCE, *tensor.shape[1:]).reshape(-1, *tensor.shape[1:])


def _flat_pairs(tensor: Tensor | None) -> Tensor | None:
    """[B, 2, O, …] → [2B, O, …]."""
    return None if tensor is None else tensor.reshape(-1, *tensor.shape[2:])


class LanguageEmbeddings(nn.Module):
    """Word + position + token type, normalised. Row 0 of each table gets no gradient, as upstream (padding_idx)."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size, padding_idx=0)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size, padding_idx=0)
        self.layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, words: Tensor, token_type_ids: Tensor | None) -> Tensor:
        positions = torch.arange(words.shape[1], device=words.device)  # [L]
        if token_type_ids is None:
            token_type_ids = torch.zeros(words.shape[:2], dtype=torch.int64, device=words.device)
        summed = words + self.position(positions) + self.token_type(token_type_ids)
        return cast(Tensor, self.dropout(self.layer_norm(summed)))


class VisualEmbeddings(nn.Module):
    """The mean of the projected features and the projected boxes, each normalised (paper, equations 1 and 2)."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.features = nn.Linear(config.visual_feat_dim, config.hidden_size)
        self.features_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.boxes = nn.Linear(config.visual_pos_dim, config.hidden_size)
        self.boxes_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, visual_feats: Tensor, visual_pos: Tensor) -> Tensor:
        features = self.features_layer_norm(self.features(visual_feats))
        boxes = self.boxes_layer_norm(self.boxes(visual_pos))
        return cast(Tensor, self.dropout((features + boxes) / 2))


class CrossModalityLayer(nn.Module):
    """Cross attention in both directions with one shared module, then self attention and feed forward on each side."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.cross_attention = Attention(config)
        self.language_self_attention = Attention(config)
        self.vision_self_attention = Attention(config)
        self.language_feed_forward = FeedForward(config)
        self.vision_feed_forward = FeedForward(config)

    def forward(
        self, language: Tensor, vision: Tensor, language_bias: Tensor | None, vision_bias: Tensor | None, want: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        # Both directions read the layer's inputs; neither reads the result of the other.
        language_seeing, attention = self.cross_attention(language, vision, vision_bias, want)
        vision_reading, _ = self.cross_attention(vision, language, language_bias, want)
        language, _ = self.language_self_attention(language_seeing, language_seeing, language_bias, want)
        vision, _ = self.vision_self_attention(vision_reading, vision_reading, vision_bias, want)
        return self.language_feed_forward(language), self.vision_feed_forward(vision), attention


class EncoderLayer(nn.Module):
    """One single-modality layer: self attention, then feed forward, each with its residual and norm."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.self_attention = Attention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, hidden: Tensor, bias: Tensor | None, want: bool) -> tuple[Tensor, Tensor | None]:
        hidden, attention = self.self_attention(hidden, hidden, bias, want)
        return self.feed_forward(hidden), attention


class Attention(nn.Module):
    """Multi-head attention from ``hidden`` to ``context``, with output projection, residual and norm."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout_probability = config.attention_probs_dropout_prob
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden: Tensor, context: Tensor, bias: Tensor | None, want_probabilities: bool
    ) -> tuple[Tensor, Tensor | None]:
        """``hidden`` [B, Q, H], ``context`` [B, K, H], ``bias`` [B, 1, 1, K] → [B, Q, H] and, if wanted, [B, N, Q, K]."""
        query = self._heads(self.query(hidden))  # [B, N, Q, D]
        key = self._heads(self.key(context))  # [B, N, K, D]
        value = self._heads(self.value(context))  # [B, N, K, D]
        dropout = self.dropout_probability if self.training else 0.0
        probabilities = None
        if want_probabilities:
            probabilities = attention_probabilities(query, key, bias, dropout)
            mixed = probabilities @ value
        else:
            bias = None if bias is None else as_dtype(bias, query.dtype)
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        merged = mixed.transpose(1, 2).reshape(hidden.shape)  # [B, Q, H]
        return self.layer_norm(self.dropout(self.output(merged)) + hidden), probabilities

    def _heads(self, projected: Tensor) -> Tensor:
        """[B, S, H] → [B, N, S, D]."""
        # All sizes are given: for a -1 the exporter would solve a symbolic equation in each of a hundred places.
        return projected.view(*projected.shape[:2], self.heads, self.head_size).transpose(1, 2)


def attention_probabilities(query: Tensor, key: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    """[B, N, Q, D] and [B, N, K, D] → [B, N, Q, K]; adds the mask and takes the softmax in at least float32."""
    # Scaling the query, not the scores, keeps the product inside fp16's range.
    scores = at_least_float32((query * (1 / math.sqrt(query.shape[-1]))) @ key.transpose(-1, -2))
    if bias is not None:
        scores = scores + bias
    probabilities = as_dtype(scores.softmax(dim=-1), query.dtype)
    return F.dropout(probabilities, dropout) if dropout else probabilities


def mask_bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Turns a mask [B, K] (1 seen, 0 masked) into a bias [B, 1, 1, K] (0 seen, -10000 masked) of at least float32."""
    if mask is None:
        return None
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return ((as_dtype(mask, wide) - 1.0) * -MASK_BIAS)[:, None, None, :]


class FeedForward(nn.Module):
    """Expand, GELU, contract, residual and norm."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.hidden_size, config.intermediate_size)
        self.contract = nn.Linear(config.intermediate_size, config.hidden_size)
        self.layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor) -> Tensor:
        return cast(Tensor, self.layer_norm(self.dropout(self.contract(gelu(self.expand(hidden)))) + hidden))


class MaskedLanguageHead(nn.Module):
    """Scores over the vocabulary for every word; the decoder shares the word embedding."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.transform = Transform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, language: Tensor) -> Tensor:
        return cast(Tensor, self.decoder(self.transform(language)) + self.bias)


class ObjectHead(nn.Module):
    """For every object: its class, its attribute, and its features."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.transform = Transform(config)
        self.targets = nn.ModuleDict(
            {
                target: nn.Linear(config.hidden_size, config.visual_target_size(target))
                for target in config.visual_losses
            }
        )

    def forward(self, vision: Tensor) -> dict[str, Tensor]:
        transformed = self.transform(vision)
        return {target: linear(transformed) for target, linear in self.targets.items()}


class AnswerHead(nn.Module):
    """Two linear layers with GELU and norm between them."""

    def __init__(self, config: LxmertConfig, inputs: int, answers: int) -> None:
        super().__init__()
        inner = 2 * config.hidden_size
        self.expand = nn.Linear(inputs, inner)
        self.layer_norm = LayerNorm(inner, config.layer_norm_eps)
        self.answers = nn.Linear(inner, answers)

    def forward(self, pooled: Tensor) -> Tensor:
        return cast(Tensor, self.answers(self.layer_norm(gelu(self.expand(pooled)))))


class Transform(nn.Module):
    """Linear, GELU, norm: the first part of the word head and of the object head."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        return cast(Tensor, self.layer_norm(gelu(self.dense(hidden))))


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in at least float32: the published eps of 1e-12 is zero in fp16."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)

    def forward(self, hidden: Tensor) -> Tensor:
        wide = at_least_float32(hidden)
        gain, shift = as_dtype(self.weight, wide.dtype), as_dtype(self.bias, wide.dtype)
        return as_dtype(F.layer_norm(wide, self.normalized_shape, gain, shift, self.eps), hidden.dtype)


def gelu(hidden: Tensor) -> Tensor:
    """The exact GELU, with erf, in at least float32: in lower precisions 1 + erf loses its digits to cancellation."""
    return as_dtype(F.gelu(at_least_float32(hidden)), hidden.dtype)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Casts fp16 and bf16 to float32; wider types stay. This makes the float32 islands of every half-precision run."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def as_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Casts only if the dtype differs: a traced graph would keep every needless cast."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def _states_and_attentions(body: ModelOutput) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name.endswith(("_states", "_attentions"))}


def _tuple(tensors: list[Tensor] | None, wanted: bool = True) -> tuple[Tensor, ...] | None:
    return tuple(tensors) if wanted and tensors is not None else None


MODELS: dict[Task, type[PreTrainedLxmert]] = {
    model.task: model for model in (LxmertModel, LxmertForPreTraining, LxmertForQuestionAnswering, LxmertForNLVR2)
}
