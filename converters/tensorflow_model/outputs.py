"""What the Keras models return: the fields of ``lxmert_export.outputs``, with TensorFlow's tensors in them."""

from __future__ import annotations

from dataclasses import dataclass

from lxmert_export.outputs import (
    LxmertForNLVR2Output,
    LxmertForPreTrainingOutput,
    LxmertForQuestionAnsweringOutput,
    LxmertModelOutput,
)


@dataclass
class TFLxmertModelOutput(LxmertModelOutput):
    """What ``TFLxmertModel`` returns: the fields of ``LxmertModelOutput``."""


@dataclass
class TFLxmertForPreTrainingOutput(LxmertForPreTrainingOutput):
    """What ``TFLxmertForPreTraining`` returns: the fields of ``LxmertForPreTrainingOutput``."""


@dataclass
class TFLxmertForQuestionAnsweringOutput(LxmertForQuestionAnsweringOutput):
    """What ``TFLxmertForQuestionAnswering`` returns: the fields of ``LxmertForQuestionAnsweringOutput``."""


@dataclass
class TFLxmertForNLVR2Output(LxmertForNLVR2Output):
    """What ``TFLxmertForNLVR2`` returns: the fields of ``LxmertForNLVR2Output``."""
