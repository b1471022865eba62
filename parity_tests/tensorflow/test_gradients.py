"""The Keras models learn what the PyTorch models learn: the gradient of every parameter of every task."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from converters.tensorflow_model.layers import Embedding, as_dtype
from lxmert_export.parity.scores import errors, measure_floor
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import TASKS, Task
from lxmert_export.spec.weight_names import TIED_DECODER, WORD_EMBEDDING, weight_names
from parity_tests.faults.keras_faults import parts, patch
from parity_tests.fixtures.keras_models import twin_of
from parity_tests.fixtures.random_models import SMALL, lively_model
from parity_tests.tensorflow.keras_gradients import Gradients, keras_gradients, torch_gradients

# Sums in another order, and back through as many layers again. Measured: 1.2e-14 at most.
RELATIVE, ABSOLUTE = 1e-10, 1e-12
# float32 PyTorch's own error is the floor of each parameter, pooled over this many models: the rounding of one loss moves
# all gradients of its model together, and one model's floor may happen to be small. Measured: at most 1.7.
MODELS_POOLED = 4
LARGEST_SCORE = 4.0
UNTIED = SMALL.replace(tie_word_embeddings=False)


def double(task: Task, config: LxmertConfig = SMALL, seed: int = 0) -> Any:
    return lively_model(task, config, seed).double()


def differing(found: Gradients, wanted: Gradients) -> set[str]:
    """Parameters whose gradients are not the same; missing ones are."""
    assert set(found) == set(wanted)
    return {name for name in wanted if not close(found[name], wanted[name])}


def close(found: Any, wanted: Any) -> bool:
    return np.allclose(found, wanted, rtol=RELATIVE, atol=ABSOLUTE)


@cache
def sound(task: Task) -> Gradients:
    """The gradients of the twin of ``double(task)``."""
    return keras_gradients(twin_of(double(task)))


@pytest.mark.parametrize("task", TASKS)
def test_every_parameters_gradient_is_pytorchs(task: Task) -> None:
    found, wanted = sound(task), torch_gradients(double(task))
    assert set(wanted) == {weight.ours for weight in weight_names(SMALL, task)} - {TIED_DECODER}
    assert differing(found, wanted) == set()


@pytest.mark.parametrize("task", TASKS)
def test_float32_gradients_are_within_the_noise_of_pytorchs(task: Task) -> None:
    assert max(scores(task).values()) <= LARGEST_SCORE


def scores(task: Task) -> dict[str, float]:
    """For every parameter: RMS of (float32 TensorFlow − float64 PyTorch) over that of (float32 PyTorch − float64 PyTorch)."""
    seeds = range(MODELS_POOLED)
    exact = [torch_gradients(double(task, seed=seed)) for seed in seeds]
    rounded = [torch_gradients(lively_model(task, seed=seed)) for seed in seeds]
    found = [keras_gradients(twin_of(lively_model(task, seed=seed), "float32")) for seed in seeds]
    scored = {}
    for name in exact[0]:
        wanted, noisy, got = ([gradients[name] for gradients in side] for side in (exact, rounded, found))
        error, floor = errors(wanted, got).rms, measure_floor(wanted, noisy, "fp32").rms
        scored[name] = error / floor if error else 0.0  # a parameter without use has no floor, and must have no error
    return scored


@pytest.mark.parametrize("task", TASKS)
def test_the_padding_rows_get_no_gradient(task: Task) -> None:
    """But for the word decoder's share, in the one model where it is tied: there every word has a score."""
    found = sound(task)
    for name in ("word", "position", "token_type"):
        table = found[f"lxmert.embeddings.{name}.weight"]
        tied = name == "word" and task == "pretraining"
        assert table[0].any() == tied
        assert table[1:].any()


def test_the_tied_embedding_gets_both_contributions() -> None:
    tied = sound("pretraining")[WORD_EMBEDDING]
    model = double("pretraining", UNTIED)
    state = {**double("pretraining").state_dict(), TIED_DECODER: model.lxmert.embeddings.word.weight}
    model.load_state_dict({**state, TIED_DECODER: state[WORD_EMBEDDING]})
    apart = keras_gradients(twin_of(model))
    words, decoder = apart[WORD_EMBEDDING], apart[TIED_DECODER]
    assert words.any() and decoder.any()
    assert close(words + decoder, tied)


def test_untied_gradients_are_pytorchs() -> None:
    model = double("pretraining", UNTIED)
    assert differing(keras_gradients(twin_of(model)), torch_gradients(model)) == set()


def test_a_frozen_model_has_the_same_outputs_and_gradients_elsewhere() -> None:
    """What serves has no operators to keep the padding rows' gradient away; its numbers are the same to the bit."""
    twin = twin_of(double("model"))
    learning = keras_gradients(twin)
    twin.trainable = False
    frozen = keras_gradients(twin)
    rows = {f"lxmert.embeddings.{name}.weight" for name in ("word", "position", "token_type")}
    assert all(np.array_equal(frozen[name], learning[name]) for name in set(frozen) - rows)
    assert all(np.array_equal(frozen[name][1:], learning[name][1:]) for name in rows)


def test_faults_of_the_gradient_alone_are_seen() -> None:
    """Each leaves every output as it was."""
    wanted = torch_gradients(double("pretraining"))

    def learning_padding(self: Any, numbers: tf.Tensor) -> tf.Tensor:
        return as_dtype(tf.gather(self.weight, numbers), self.compute_dtype)

    twin = twin_of(double("pretraining"))
    for table in parts(twin, Embedding):
        patch(table, learning_padding)
    rows = {f"lxmert.embeddings.{name}.weight" for name in ("word", "position", "token_type")}
    assert differing(keras_gradients(twin), wanted) == rows

    twin = twin_of(double("pretraining"))
    head = twin.masked_language_head
    sound = head.call
    patch(head, lambda self, language, word_embedding: sound(language, tf.stop_gradient(word_embedding.value)))
    assert differing(keras_gradients(twin), wanted) == {WORD_EMBEDDING}


def test_float32_is_what_the_floors_are_of() -> None:
    for gradients in (
        keras_gradients(twin_of(lively_model("nlvr2"), "float32")),
        torch_gradients(lively_model("nlvr2")),
    ):
        assert {gradient.dtype for gradient in gradients.values()} == {np.dtype(np.float32)}
