"""LXMERT in Keras 3 on TensorFlow: the models of ``lxmert_export.model.lxmert`` once more, same order, same names.

``MissingExtra``: TensorFlow is not installed. ``ConversionError``: Keras is set to run on another framework.
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
