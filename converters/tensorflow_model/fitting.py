"""What Keras' training loop would do in silence, or with a traceback, and is refused before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from lxmert_export.errors import InputError

WEIGHTS_REFUSED = "{} weights need a loss given to compile() and labels given as y"


def refuse_weights(x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None) -> None:
    """``InputError``: weights without ``y``; the labels are among the inputs, for the model's own loss, or there are none.

    Keras would drop the weights of samples, and fail in a traceback over those of classes. Generators are left to Keras.
    """
    weights = {"sample": sample_weight, "class": class_weight}
    given = [kind for kind, weight in weights.items() if weight is not None]
    if given and y is None and (isinstance(x, Mapping) or _holds_inputs_alone(x)):
        raise InputError(WEIGHTS_REFUSED.format(given[0]))


def _holds_inputs_alone(x: Any) -> bool:
    return isinstance(x, tf.data.Dataset) and not (isinstance(x.element_spec, tuple) and len(x.element_spec) > 1)
