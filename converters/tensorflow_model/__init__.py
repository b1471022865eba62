"""The models of ``lxmert_export.model.lxmert`` in Keras 3 on TensorFlow, in the same order and with the same names.

The import raises ``MissingExtra`` if TensorFlow is not installed, and ``ConversionError`` if Keras is set to another
framework.
"""

from converters.tensorflow_model import backend  # isort: skip  (before anything imports Keras)
from converters.tensorflow_model.model import (
    TFLxmertForNLVR2,
    TFLxmertForPreTraining,
    TFLxmertForQuestionAnswering,
    TFLxmertModel,
)
from converters.tensorflow_model.outputs import (
    TFLxmertForNLVR2Output,
    TFLxmertForPreTrainingOutput,
    TFLxmertForQuestionAnsweringOutput,
    TFLxmertModelOutput,
)

__all__ = [
    "TFLxmertForNLVR2",
    "TFLxmertForNLVR2Output",
    "TFLxmertForPreTraining",
    "TFLxmertForPreTrainingOutput",
    "TFLxmertForQuestionAnswering",
    "TFLxmertForQuestionAnsweringOutput",
    "TFLxmertModel",
    "TFLxmertModelOutput",
    "backend",
]
