"""What the models return: dataclasses that can also be read like Hugging Face's ModelOutput."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class ModelOutput:
    """The base of all outputs: fields can be read as attributes, by name as keys, and by integers and slices.

    Integers and slices count only fields that are not None. Source: transformers ``ModelOutput``; but here iteration
    and ``len`` never include a field that is None.
    """

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yields names and values of the fields that are not None."""
        for f in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            if (value := getattr(self, f.name)) is not None:
                yield f.name, value

    def keys(self) -> tuple[str, ...]:
        """Names of the fields that are not None."""
        return tuple(name for name, _ in self.items())

    def values(self) -> tuple[Any, ...]:
        """Values of the fields that are not None."""
        return self.to_tuple()

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order: what ``return_dict=False`` returns."""
        return tuple(value for _, value in self.items())

    def __getitem__(self, key: str | int | slice) -> Any:
        return dict(self.items())[key] if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __len__(self) -> int:
        return len(self.to_tuple())


@dataclass
class LxmertModelOutput(ModelOutput):
    """What the backbone returns.

    - ``language_output`` [batch, text, hidden], ``vision_output`` [batch, objects, hidden].
    - ``pooled_output`` [batch, hidden].
    - Hidden states, on request: one entry after each layer, the last equal to the output; embeddings are left out.
    - Attention probabilities, on request: one entry [batch, heads, queries, keys] for each layer. In cross attention
      the queries are words and the keys are objects.
    """

    language_output: Tensor | None = None
    vision_output: Tensor | None = None
    pooled_output: Tensor | None = None
    language_hidden_states: tuple[Tensor, ...] | None = None
    vision_hidden_states: tuple[Tensor, ...] | None = None
    language_attentions: tuple[Tensor, ...] | None = None
    vision_attentions: tuple[Tensor, ...] | None = None
    cross_encoder_attentions: tuple[Tensor, ...] | None = None


@dataclass
class LxmertForPreTrainingOutput(ModelOutput):
    """What the pre-training model returns.

    - ``loss``: scalar, if any label is given.
    - ``prediction_logits`` [batch, text, vocabulary].
    - ``cross_relationship_score`` [batch, 2]; index 1: the sentence fits the picture.
    - ``question_answering_score`` [batch, answers].
    - With ``output_object_heads``: ``object_logits``, ``attribute_logits``, ``feature_regression``
      [batch, objects, width].
    - Hidden states and attentions: see ``LxmertModelOutput``.
    """

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    cross_relationship_score: Tensor | None = None
    question_answering_score: Tensor | None = None
    language_hidden_states: tuple[Tensor, ...] | None = None
    vision_hidden_states: tuple[Tensor, ...] | None = None
    language_attentions: tuple[Tensor, ...] | None = None
    vision_attentions: tuple[Tensor, ...] | None = None
    cross_encoder_attentions: tuple[Tensor, ...] | None = None
    object_logits: Tensor | None = None
    attribute_logits: Tensor | None = None
    feature_regression: Tensor | None = None


@dataclass
class LxmertForQuestionAnsweringOutput(ModelOutput):
    """What the question-answering model returns.

    ``question_answering_score`` [batch, answers], ``loss`` (scalar) if labels are given. Hidden states and attentions:
    see ``LxmertModelOutput``.
    """

    loss: Tensor | None = None
    question_answering_score: Tensor | None = None
    language_hidden_states: tuple[Tensor, ...] | None = None
    vision_hidden_states: tuple[Tensor, ...] | None = None
    language_attentions: tuple[Tensor, ...] | None = None
    vision_attentions: tuple[Tensor, ...] | None = None
    cross_encoder_attentions: tuple[Tensor, ...] | None = None


@dataclass
class LxmertForNLVR2Output(ModelOutput):
    """What the NLVR2 model returns.

    ``logits`` [batch, 2] (index 1: the sentence is true), ``loss`` (scalar) if labels are given.
    Hidden states and attentions have 2 x batch rows: the two pictures of a sentence follow each other.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    language_hidden_states: tuple[Tensor, ...] | None = None
    vision_hidden_states: tuple[Tensor, ...] | None = None
    language_attentions: tuple[Tensor, ...] | None = None
    vision_attentions: tuple[Tensor, ...] | None = None
    cross_encoder_attentions: tuple[Tensor, ...] | None = None
