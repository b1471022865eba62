"""LXMERT in Keras 3: the arithmetic of ``lxmert_export/model/lxmert.py``, in the same order and with the same names.

Two things differ. Between layers the hidden states are matrices [batch * length, hidden], because TensorFlow fuses
matmul, bias and GELU for matrices only. Every layer casts its own inputs (``autocast=False``), so the float32 islands
are the same under every dtype policy, including ``mixed_float16`` and ``float16``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from converters.tensorflow_model.inputs import check_inputs
from converters.tensorflow_model.layers import (
    MASK_BIAS,
    AnswerHead,
    CrossModalityLayer,
    EncoderLayer,
    LanguageEmbeddings,
    Linear,
    MaskedLanguageHead,
    ObjectHead,
    VisualEmbeddings,
    as_dtype,
    at_least_float32,
    mask_bias,
)
from converters.tensorflow_model.losses import check_labels, classification_loss, visual_loss
from converters.tensorflow_model.outputs import (
    TFLxmertForNLVR2Output,
    TFLxmertForPreTrainingOutput,
    TFLxmertForQuestionAnsweringOutput,
    TFLxmertModelOutput,
)
from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from converters.tensorflow_model.sides import Side, Sizes, leading_sizes, rows_of
from lxmert_export.errors import InputError
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import IMAGES_PER_SENTENCE, OBJECT_OUTPUTS, Task


@keras.saving.register_keras_serializable("lxmert_export")
class TFLxmertModel(PreTrainedTFLxmert):
    """The backbone: a language encoder, an object encoder, and a cross-modality encoder over both.

    Source: paper section 2.2, transformers 4.57.6 ``TFLxmertModel``.
    """

    task = "model"
    output_class = TFLxmertModelOutput

    def __init__(self, config: LxmertConfig, **options: Any) -> None:
        super().__init__(config, **options)
        policy = self.dtype_policy
        # Whether hidden states are matrices between the layers. If two sizes are unknown, TFLite cannot know the shape
        # of a tensor that is reshaped back from a matrix before it runs (converters/to_tflite.py).
        self.matrices = True
        self.mask_bias = MASK_BIAS
        self.embeddings = LanguageEmbeddings(config, "embeddings", policy)
        self.visual_embeddings = VisualEmbeddings(config, "visual_embeddings", policy)
        with keras.name_scope("language_layers"):
            self.language_layers = [EncoderLayer(config, str(n), policy) for n in range(config.l_layers)]
        with keras.name_scope("cross_modality_layers"):
            self.cross_modality_layers = [CrossModalityLayer(config, str(n), policy) for n in range(config.x_layers)]
        with keras.name_scope("vision_layers"):
            self.vision_layers = [EncoderLayer(config, str(n), policy) for n in range(config.r_layers)]
        self.pooler = Linear(config.hidden_size, config.hidden_size, config, "pooler", policy)

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        visual_feats: tf.Tensor | None = None,
        visual_pos: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        visual_attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        training: bool | None = None,
        need_words: bool = True,
        need_vision: bool = True,
    ) -> dict[str, Any]:
        """Encodes a batch of sentences, each with the objects of its picture; returns the outputs by name.

        ``input_ids`` and ``token_type_ids`` are integers [batch, text]; ``inputs_embeds`` [batch, text, hidden] may
        take the place of ``input_ids``. ``visual_feats`` is [batch, objects, visual_feat_dim], ``visual_pos`` [batch,
        objects, visual_pos_dim]. Masks are [batch, text] and [batch, objects], 1 for seen and 0 for masked. Outputs:
        see ``LxmertModel``. ``InputError``: an input is missing or given twice, has another shape, or holds an id
        outside its table.

        Without ``need_words`` and ``need_vision``, ``language_output`` and ``vision_output`` are left out, and so is what
        only they need: all rows of the last layer but [CLS], and its vision half. Training computes everything, and so do
        calls for hidden states or attentions.
        """
        if visual_feats is None or visual_pos is None:
            raise InputError("visual_feats and visual_pos are both needed: LXMERT reads a sentence and its picture")
        check_inputs(
            self.config, input_ids=input_ids, inputs_embeds=inputs_embeds, visual_feats=visual_feats, visual_pos=visual_pos,
            attention_mask=attention_mask, token_type_ids=token_type_ids, visual_attention_mask=visual_attention_mask,
        )  # fmt: skip
        want_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        want_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        whole = bool(training or want_states or want_attentions)
        need_words, need_vision = need_words or whole, need_vision or whole
        options = {"want": want_attentions, "training": training}
        words = self._words(input_ids, inputs_embeds)  # [B, L, H]
        language_sizes, vision_sizes = leading_sizes(words), leading_sizes(visual_feats)  # B, L and B, O
        language = self._rows(self.embeddings(words, token_type_ids, training=training))  # [B * L, H]
        vision = self.visual_embeddings(
            self._rows(visual_feats), self._rows(visual_pos), training=training
        )  # [B * O, H]
        words_side = Side(mask_bias(attention_mask, self.mask_bias, language.dtype), self._head_shape(language_sizes))
        objects_side = Side(
            mask_bias(visual_attention_mask, self.mask_bias, vision.dtype), self._head_shape(vision_sizes)
        )

        language_states, vision_states = [], []
        language_attentions, vision_attentions, cross_attentions = [], [], []
        for layer in self.language_layers:
            language, attention = layer(language, side=words_side, **options)
            language_states.append(language)
            language_attentions.append(attention)
        for layer in self.vision_layers:
            vision, attention = layer(vision, side=objects_side, **options)
            vision_states.append(vision)
            vision_attentions.append(attention)
        for layer in self.cross_modality_layers:
            if layer is self.cross_modality_layers[-1]:
                options |= {"need_words": need_words, "need_vision": need_vision}
            language, vision, attention = layer(language, vision, words=words_side, objects=objects_side, **options)
            language_states.append(language)
            vision_states.append(vision)
            cross_attentions.append(attention)

        outputs = self._last_states(
            language, vision, language_sizes if need_words else None, vision_sizes if need_vision else None
        )
        if want_states:
            outputs["language_hidden_states"] = tuple(self._unflatten(s, language_sizes) for s in language_states)
            outputs["vision_hidden_states"] = tuple(self._unflatten(s, vision_sizes) for s in vision_states)
        if want_attentions:
            outputs["language_attentions"] = tuple(language_attentions)
            outputs["vision_attentions"] = tuple(vision_attentions)
            outputs["cross_encoder_attentions"] = tuple(cross_attentions)
        return outputs

    def _last_states(
        self, language: tf.Tensor, vision: tf.Tensor, language_sizes: Sizes | None, vision_sizes: Sizes | None
    ) -> dict[str, Any]:
        """Names the last hidden states of each side that has sizes, and pools [CLS], the only language row without them."""
        outputs: dict[str, Any] = {}
        if language_sizes is not None:
            outputs["language_output"] = language = self._unflatten(language, language_sizes)
        if vision_sizes is not None:
            outputs["vision_output"] = self._unflatten(vision, vision_sizes)
        alone = language_sizes is None and self.matrices
        outputs["pooled_output"] = tf.tanh(self.pooler(language if alone else language[:, 0]))
        return outputs

    def _words(self, input_ids: tf.Tensor | None, inputs_embeds: tf.Tensor | None) -> tf.Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give either input_ids or inputs_embeds, one of the two")
        if inputs_embeds is not None:
            return as_dtype(inputs_embeds, self.compute_dtype)
        return self.embeddings.word(input_ids)

    def _rows(self, tensor: tf.Tensor) -> tf.Tensor:
        """[B, S, …] → [B * S, …] if hidden states are matrices; else unchanged."""
        return rows_of(tensor) if self.matrices else tensor

    def _unflatten(self, rows: tf.Tensor, sizes: Sizes) -> tf.Tensor:
        """[B * S, H] → [B, S, H] if hidden states are matrices; else unchanged."""
        return tf.reshape(rows, [*sizes, self.config.hidden_size]) if self.matrices else rows

    def _head_shape(self, sizes: Sizes) -> Sizes | None:
        return [*sizes, self.config.num_attention_heads, self.config.head_size] if self.matrices else None


@keras.saving.register_keras_serializable("lxmert_export")
class TFLxmertForPreTraining(PreTrainedTFLxmert):
    """The backbone with the four pre-training heads: masked words, sentence-picture match, objects, answers.

    Source: paper section 3.1, transformers 4.57.6 ``TFLxmertForPreTraining``.
    """

    task = "pretraining"
    output_class = TFLxmertForPreTrainingOutput

    def __init__(self, config: LxmertConfig, **options: Any) -> None:
        super().__init__(config, **options)
        policy = self.dtype_policy
        with keras.name_scope("lxmert"):
            self.lxmert = TFLxmertModel(config, name="lxmert", dtype=policy)
        self.masked_language_head = MaskedLanguageHead(config, "masked_language_head", policy)
        self.match_head = Linear(config.hidden_size, 2, config, "match_head", policy)
        if config.task_obj_predict:
            self.object_head = ObjectHead(config, "object_head", policy)
        if config.task_qa:
            self.answer_head = AnswerHead(config, config.hidden_size, config.num_qa_labels, "answer_head", policy)

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        visual_feats: tf.Tensor | None = None,
        visual_pos: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        visual_attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        labels: tf.Tensor | None = None,
        obj_labels: Mapping[str, tuple[tf.Tensor, tf.Tensor]] | None = None,
        matched_label: tf.Tensor | None = None,
        ans: tf.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_object_heads: bool = False,
        training: bool | None = None,
    ) -> dict[str, Any]:
        """Returns the heads' scores and, with labels, the loss. Inputs and outputs: see ``LxmertForPreTraining``."""
        want_objects = (output_object_heads or obj_labels is not None) and self.config.task_obj_predict
        body = self.lxmert(
            input_ids=input_ids, visual_feats=visual_feats, visual_pos=visual_pos, attention_mask=attention_mask,
            visual_attention_mask=visual_attention_mask, token_type_ids=token_type_ids, inputs_embeds=inputs_embeds,
            output_attentions=output_attentions, output_hidden_states=output_hidden_states, return_dict=True,
            training=training, need_vision=want_objects,
        )  # fmt: skip
        words = self.masked_language_head(body.language_output, word_embedding=self.lxmert.embeddings.word.weight)
        match = self.match_head(body.pooled_output)  # [B, 2]
        answers = self.answer_head(body.pooled_output) if self.config.task_qa else None  # [B, A]
        objects = self.object_head(body.vision_output) if want_objects else {}

        losses = []
        if labels is not None and self.config.task_mask_lm:
            losses.append(classification_loss(words, check_labels("labels", labels, words)))
        if matched_label is not None and self.config.task_matched:
            losses.append(classification_loss(match, check_labels("matched_label", matched_label, match)))
        if obj_labels is not None and objects:
            losses.append(visual_loss(objects, obj_labels, self.config))
        if ans is not None and answers is not None:
            losses.append(classification_loss(answers, check_labels("ans", ans, answers)))
        any_label = any(label is not None for label in (labels, matched_label, obj_labels, ans))
        return _present(
            loss=(tf.add_n(losses) if losses else tf.zeros((), at_least_float32(match).dtype)) if any_label else None,
            prediction_logits=words,
            cross_relationship_score=match,
            question_answering_score=answers,
            **_states_and_attentions(body),
            **({OBJECT_OUTPUTS[target]: scores for target, scores in objects.items()} if output_object_heads else {}),
        )


@keras.saving.register_keras_serializable("lxmert_export")
class TFLxmertForQuestionAnswering(PreTrainedTFLxmert):
    """The backbone with an answer head over [CLS], as fine-tuned on VQA and GQA.

    transformers never had this class for TensorFlow. Source: paper section 4,
    ``lxmert_export.model.lxmert.LxmertForQuestionAnswering``.
    """

    task = "question-answering"
    output_class = TFLxmertForQuestionAnsweringOutput

    def __init__(self, config: LxmertConfig, **options: Any) -> None:
        super().__init__(config, **options)
        policy = self.dtype_policy
        with keras.name_scope("lxmert"):
            self.lxmert = TFLxmertModel(config, name="lxmert", dtype=policy)
        self.answer_head = AnswerHead(config, config.hidden_size, config.num_qa_labels, "answer_head", policy)

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        visual_feats: tf.Tensor | None = None,
        visual_pos: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        visual_attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        labels: tf.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        training: bool | None = None,
    ) -> dict[str, Any]:
        """Returns scores [batch, answers]; with ``labels`` [batch] (answer ids; -100 is ignored), the mean loss too."""
        body = self.lxmert(
            input_ids=input_ids, visual_feats=visual_feats, visual_pos=visual_pos, attention_mask=attention_mask,
            visual_attention_mask=visual_attention_mask, token_type_ids=token_type_ids, inputs_embeds=inputs_embeds,
            output_attentions=output_attentions, output_hidden_states=output_hidden_states, return_dict=True,
            training=training, need_words=False, need_vision=False,
        )  # fmt: skip
        answers = self.answer_head(body.pooled_output)  # [B, A]
        return _present(
            loss=None if labels is None else classification_loss(answers, check_labels("labels", labels, answers)),
            question_answering_score=answers,
            **_states_and_attentions(body),
        )


@keras.saving.register_keras_serializable("lxmert_export")
class TFLxmertForNLVR2(PreTrainedTFLxmert):
    """The backbone with a head over two pictures: is the sentence true of the pair?

    Source: airsplay/lxmert ``src/tasks/nlvr2_model.py``.
    """

    task = "nlvr2"
    output_class = TFLxmertForNLVR2Output

    def __init__(self, config: LxmertConfig, **options: Any) -> None:
        super().__init__(config, **options)
        policy = self.dtype_policy
        with keras.name_scope("lxmert"):
            self.lxmert = TFLxmertModel(config, name="lxmert", dtype=policy)
        self.pair_head = AnswerHead(config, IMAGES_PER_SENTENCE * config.hidden_size, 2, "pair_head", policy)

    def call(
        self,
        input_ids: tf.Tensor | None = None,
        visual_feats: tf.Tensor | None = None,
        visual_pos: tf.Tensor | None = None,
        attention_mask: tf.Tensor | None = None,
        visual_attention_mask: tf.Tensor | None = None,
        token_type_ids: tf.Tensor | None = None,
        inputs_embeds: tf.Tensor | None = None,
        labels: tf.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        training: bool | None = None,
    ) -> dict[str, Any]:
        """Returns ``logits`` [batch, 2]; the three visual inputs have an axis of two pictures after the batch axis."""
        body = self.lxmert(
            input_ids=_twice(input_ids), visual_feats=_flat_pairs(visual_feats), visual_pos=_flat_pairs(visual_pos),
            attention_mask=_twice(attention_mask), visual_attention_mask=_flat_pairs(visual_attention_mask),
            token_type_ids=_twice(token_type_ids), inputs_embeds=_twice(inputs_embeds),
            output_attentions=output_attentions, output_hidden_states=output_hidden_states, return_dict=True,
            training=training, need_words=False, need_vision=False,
        )  # fmt: skip
        pairs = tf.reshape(body.pooled_output, [-1, IMAGES_PER_SENTENCE * self.config.hidden_size])  # [2B, H] → [B, 2H]
        logits = self.pair_head(pairs)
        return _present(
            loss=None if labels is None else classification_loss(logits, check_labels("labels", labels, logits)),
            logits=logits,
            **_states_and_attentions(body),
        )


def _twice(tensor: tf.Tensor | None) -> tf.Tensor | None:
    """[B, L, …] → [2B, L, …]: each sentence once for each of its two pictures."""
    return None if tensor is None else tf.repeat(tensor, IMAGES_PER_SENTENCE, axis=0)


def _flat_pairs(tensor: tf.Tensor | None) -> tf.Tensor | None:
    """[B, 2, O, …] → [2B, O, …]; the sizes that are known stay known, as TFLite needs it."""
    if tensor is None:
        return None
    if tensor.shape.rank is None or tensor.shape.rank < 3 or None in tensor.shape[3:]:
        return tf.reshape(tensor, tf.concat([[-1], tf.shape(tensor)[2:]], 0))
    batch, pictures, objects, *features = tensor.shape
    known = batch is not None and pictures is not None
    sizes: Sizes = [pictures * batch if known else -1, -1 if objects is None else objects]
    if sizes == [-1, -1]:
        sizes[1] = tf.shape(tensor)[2]
    return tf.reshape(tensor, [*sizes, *features])


def _present(**outputs: Any) -> dict[str, Any]:
    """Drops the outputs that are None: Keras and ``tf.function`` carry dictionaries of tensors only."""
    return {name: value for name, value in outputs.items() if value is not None}


def _states_and_attentions(body: TFLxmertModelOutput) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name.endswith(("_states", "_attentions"))}


MODELS: dict[Task, type[PreTrainedTFLxmert]] = {
    model.task: model
    for model in (TFLxmertModel, TFLxmertForPreTraining, TFLxmertForQuestionAnswering, TFLxmertForNLVR2)
}
