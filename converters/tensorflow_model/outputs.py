"""What the Keras models return: the fields of ``lxmert_export.model.outputs``, with TensorFlow's tensors in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from lxmert_export.model.outputs import (
    LxmertForNLVR2Output,
    LxmertForPreTrainingOutput,
    LxmertForQuestionAnsweringOutput,
    LxmertModelOutput,
    ModelOutput,
)


class Nest(ModelOutput):
    """What lets ``tf.function`` return an output class, and ``tf.nest`` look into it: its fields that are not None."""

    def __tf_flatten__(self) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        return self.keys(), self.to_tuple()

    @classmethod
    def __tf_unflatten__(cls, names: tuple[str, ...], values: tuple[Any, ...]) -> Self:
        return cls(**dict(zip(names, values, strict=True)))


@dataclass
class TFLxmertModelOutput(Nest, LxmertModelOutput):
    """What ``TFLxmertModel`` returns: the fields of ``LxmertModelOutput``."""


@dataclass
class TFLxmertForPreTrainingOutput(Nest, LxmertForPreTrainingOutput):
    """What ``TFLxmertForPreTraining`` returns: the fields of ``LxmertForPreTrainingOutput``."""


@dataclass
class TFLxmertForQuestionAnsweringOutput(Nest, LxmertForQuestionAnsweringOutput):
    """What ``TFLxmertForQuestionAnswering`` returns: the fields of ``LxmertForQuestionAnsweringOutput``."""


@dataclass
class TFLxmertForNLVR2Output(Nest, LxmertForNLVR2Output):
    """What ``TFLxmertForNLVR2`` returns: the fields of ``LxmertForNLVR2Output``."""
