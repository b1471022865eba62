"""The outputs of the Keras models: the fields of ``lxmert_export.model.outputs``, with TensorFlow tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lxmert_export.model.outputs import (
    LxmertForNLVR2Output,
    LxmertForPreTrainingOutput,
    LxmertForQuestionAnsweringOutput,
    LxmertModelOutput,
    ModelOutput,
)

if TYPE_CHECKING:
    from typing_extensions import Self


class Nest(ModelOutput):
    """Lets ``tf.function`` return an output class and ``tf.nest`` read it: its items are the fields that are not None."""

    def __tf_flatten__(self) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        return self.keys(), self.to_tuple()

    @classmethod
    def __tf_unflatten__(cls, names: tuple[str, ...], values: tuple[Any, ...]) -> Self:
        return cls(**dict(zip(names, values, strict=True)))


@dataclass
class TFLxmertModelOutput(Nest, LxmertModelOutput):
    """The output of ``TFLxmertModel``: the fields of ``LxmertModelOutput``."""


@dataclass
class TFLxmertForPreTrainingOutput(Nest, LxmertForPreTrainingOutput):
    """The output of ``TFLxmertForPreTraining``: the fields of ``LxmertForPreTrainingOutput``."""


@dataclass
class TFLxmertForQuestionAnsweringOutput(Nest, LxmertForQuestionAnsweringOutput):
    """The output of ``TFLxmertForQuestionAnswering``: the fields of ``LxmertForQuestionAnsweringOutput``."""


@dataclass
class TFLxmertForNLVR2Output(Nest, LxmertForNLVR2Output):
    """The output of ``TFLxmertForNLVR2``: the fields of ``LxmertForNLVR2Output``."""
