"""The gradient of one loss with respect to every parameter, by PyTorch and by TensorFlow, under our names."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import torch
from numpy.typing import NDArray
from torch import Tensor

from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from lxmert_export.model.pretrained import PreTrainedLxmert
from lxmert_export.spec.signature import Task
from lxmert_export.spec.weight_names import BACKBONE
from parity_tests.fixtures.keras_models import as_numpy
from parity_tests.fixtures.random_models import inputs_for, lively_labels

Gradients = dict[str, NDArray[np.floating]]


def torch_gradients(model: PreTrainedLxmert) -> Gradients:
    """PyTorch's; zeros where nothing of the loss depends on a parameter."""
    dtype = next(model.parameters()).dtype
    output: Any = model(**padded_inputs(model.task, dtype), **lively_labels(model.task, model.config, dtype=dtype))
    loss = output.loss if "loss" in output else sum((part * _weights(part)).sum() for part in output.to_tuple())
    prefix = BACKBONE if model.task == "model" else ""
    named = {prefix + name: parameter for name, parameter in model.named_parameters()}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    return {name: gradient.numpy() for name, gradient in zip(named, found, strict=True)}


def keras_gradients(twin: PreTrainedTFLxmert) -> Gradients:
    """TensorFlow's for the same inputs and labels; kernels the way round that PyTorch has them."""
    dtype = getattr(torch, twin.variable_dtype)
    given = as_numpy(padded_inputs(twin.task, dtype))
    with tf.GradientTape() as tape:
        output = twin(given, **as_numpy(lively_labels(twin.task, twin.config, dtype=dtype)))
        if "loss" in output:
            loss = output.loss
        else:
            loss = tf.add_n([tf.reduce_sum(part * as_numpy(_weights(part))) for part in output.to_tuple()])
    rows = twin.named_variables()
    found = tape.gradient(
        loss, [variable.value for _, variable in rows], unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    arrays = [np.asarray(tf.convert_to_tensor(gradient)) for gradient in found]  # an embedding's is sparse
    return {
        weight.ours: array.T if weight.kind == "kernel" else array
        for (weight, _), array in zip(rows, arrays, strict=True)
    }


def padded_inputs(task: Task, dtype: torch.dtype) -> dict[str, Tensor]:
    """``inputs_for`` with word 0, whose row learns nothing, at places both seen and masked."""
    inputs = inputs_for(task, dtype)
    inputs["input_ids"][0, 2] = inputs["input_ids"][1, 5] = 0
    return inputs


def _weights(part: Any) -> Tensor:
    """A different weight for every value of an output, so that none of their gradients can stand in for another's."""
    size = int(np.prod(part.shape))
    dtype = part.dtype if isinstance(part, Tensor) else getattr(torch, part.dtype.name)
    return torch.linspace(-1, 1, size, dtype=dtype).reshape(tuple(part.shape))
