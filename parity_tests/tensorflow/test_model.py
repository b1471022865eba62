"""The Keras models compute what the PyTorch models compute: in float64, to the last digits, every output of every task."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import torch

from converters.tensorflow_model.model import _flat_pairs
from lxmert_export.spec.signature import TASKS, Task
from parity_tests.fixtures.keras_models import as_numpy, flat, twin_of
from parity_tests.fixtures.random_models import inputs_for, lively_labels, lively_model

# Sums in another order: 1e-15 each, over some hundreds. A fault of any size shows: the least planted one moves 1e-4.
EXACT = 1e-11


@pytest.mark.parametrize("task", TASKS)
def test_every_output_is_pytorchs(task: Task) -> None:
    model = lively_model(task).double()
    twin = twin_of(model)
    inputs, labels = inputs_for(task, torch.float64), lively_labels(task, dtype=torch.float64)
    options = {"output_hidden_states": True, "output_attentions": True}
    options |= {"output_object_heads": True} if task == "pretraining" else {}
    with torch.no_grad():
        wanted = flat(model(**inputs, **labels, **options))
    found = flat(twin(as_numpy(inputs), **as_numpy(labels), **options))
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=EXACT, atol=EXACT, err_msg=name)


@pytest.mark.parametrize("shape", [None, [None] * 4, [None, 2, None, 8], [3, 2, 5, None], [3, 2, 5, 8]])
def test_pairs_become_rows_whatever_is_known_of_their_sizes(shape: list[int | None] | None) -> None:
    pictures = np.random.default_rng(0).random((3, 2, 5, 8), np.float32)
    flattened = tf.function(_flat_pairs, input_signature=[tf.TensorSpec(shape)])(pictures)
    assert np.array_equal(flattened, pictures.reshape(6, 5, 8))
