"""Keras' own training loop: fit, evaluate and predict, with the model's losses or Keras', and what they learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from lxmert_export.errors import ConversionError, InputError
from lxmert_export.spec.signature import Task
from parity_tests.fixtures.keras_models import as_numpy, twin_of
from parity_tests.fixtures.random_models import SMALL, inputs_for, lively_labels, lively_model

# Tracing an optimizer takes longer than training does here: one layer of each kind, plain gradient descent, and no trace where
# what is tested is not how Keras' functions are compiled.
TINY = SMALL.replace(l_layers=1, x_layers=1, r_layers=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
RATE = 0.01
ANSWERS = np.array([1, 2, 4])

# Nothing of the answer depends on what the last layer writes on the vision side. Keras tells of it, as it should.
pytestmark = pytest.mark.filterwarnings("ignore:Gradients do not exist for variables.*vision_:UserWarning")


def compiled(task: Task, config: Any = TINY, **options: Any) -> Any:
    twin = twin_of(lively_model(task, config), "float32")
    twin.compile(optimizer=keras.optimizers.SGD(RATE), jit_compile=False, **options)
    return twin


def with_labels(task: Task) -> dict[str, Any]:
    return {**as_numpy(inputs_for(task)), **as_numpy(lively_labels(task))}


def answer_loss() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)


@pytest.mark.parametrize("task", ["pretraining", "question-answering", "nlvr2"])
def test_fit_takes_the_steps_that_pytorch_takes(task: Task) -> None:
    """With labels among the inputs, and no loss but the model's: two steps of gradient descent."""
    model, twin = lively_model(task, TINY), compiled(task, run_eagerly=task == "question-answering")
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    wanted = []
    for _ in range(2):
        loss = model(**inputs_for(task), **lively_labels(task)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wanted.append(loss.item())
    found = twin.fit(tf.data.Dataset.from_tensors(with_labels(task)), epochs=2, shuffle=False, verbose=0)
    # Two float32 programs; the second loss has the first one's gradients in it. Measured: 5e-7.
    assert found.history["loss"] == pytest.approx(wanted, rel=1e-5)
    assert abs(wanted[1] - wanted[0]) > 1e-2 * wanted[0]
    last = model(**inputs_for(task), **lively_labels(task)).loss.item()
    assert twin.evaluate(with_labels(task), verbose=0) == pytest.approx(last, rel=1e-5)


def test_fit_with_keras_loss_and_metrics() -> None:
    twin = compiled("question-answering", loss=answer_loss(), metrics=["accuracy"], run_eagerly=True)
    inputs = with_labels("model")
    before = twin.evaluate(inputs, ANSWERS, verbose=0, return_dict=True)
    scores = twin.predict(inputs, verbose=0)["question_answering_score"]
    own = twin(inputs, labels=ANSWERS)
    assert before["loss"] == pytest.approx(float(own.loss), rel=1e-6)
    assert before["accuracy"] == pytest.approx((scores.argmax(axis=1) == ANSWERS).mean())
    twin.fit(inputs, ANSWERS, epochs=8, batch_size=3, verbose=0)
    after = twin.evaluate(inputs, ANSWERS, verbose=0, return_dict=True)
    assert after["loss"] < before["loss"] / 2
    assert after["accuracy"] == 1.0 > before["accuracy"]


def test_one_output_of_several_can_be_trained() -> None:
    """By its name; hidden states and attentions, which have no loss, may be among the outputs."""
    config = TINY.replace(output_hidden_states=True, output_attentions=True)
    name = "question_answering_score"
    twin = compiled("pretraining", config, loss={name: answer_loss()}, metrics={name: ["accuracy"]})
    inputs = as_numpy(inputs_for("pretraining"))
    found = twin.evaluate(inputs, {name: ANSWERS}, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(float(twin(inputs, ans=ANSWERS).loss), rel=1e-6)
    assert found["accuracy"] == (np.argmax(twin(inputs)[name], axis=1) == ANSWERS).mean(dtype=np.float32)
    alone = compiled("question-answering", config, loss=answer_loss(), run_eagerly=True)
    assert alone.evaluate(inputs, ANSWERS, verbose=0) > 0


def test_an_output_that_is_not_there_is_named() -> None:
    twin = compiled("question-answering", loss={"answers": answer_loss()}, run_eagerly=True)
    with pytest.raises(InputError, match="y names answers; the outputs are question_answering_score"):
        twin.evaluate(with_labels("model"), {"answers": ANSWERS}, verbose=0)


def test_labels_where_they_are_not_looked_for_are_told_of() -> None:
    name, inputs = "question_answering_score", with_labels("model")
    twin = compiled("question-answering", loss={name: answer_loss()}, run_eagerly=True)
    with pytest.raises(
        InputError,
        match=r"^compile\(\) was given losses by output name: give y as a dictionary too, with question_answer",
    ):
        twin.evaluate(inputs, ANSWERS, verbose=0)
    twin = compiled("question-answering", metrics=["accuracy"], run_eagerly=True)
    with pytest.raises(InputError, match="^metrics compare with y: give the labels as y"):
        twin.evaluate({**inputs, "labels": ANSWERS}, verbose=0)


def test_sample_weights_weigh_keras_loss_and_no_other() -> None:
    inputs, weights = with_labels("model"), np.array([1.0, 0.0, 0.0])
    twin = compiled("question-answering", loss=answer_loss(), run_eagerly=True)
    weighted = twin.evaluate(inputs, ANSWERS, sample_weight=weights, verbose=0)
    first = float(twin({name: array[:1] for name, array in inputs.items()}, labels=ANSWERS[:1]).loss)
    assert weighted == pytest.approx(first / 3, rel=1e-5)  # Keras divides by the number of samples
    with pytest.raises(InputError, match="sample weights need a loss given to compile"):
        twin.evaluate({**inputs, "labels": ANSWERS}, ANSWERS, sample_weight=weights, verbose=0)


SAMPLE, CLASS = np.array([1.0, 0.0, 0.0]), {1: 0.0, 2: 1.0, 4: 1.0}


def triples(x: Any) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors((x, ANSWERS, SAMPLE))


WEIGHTED: dict[str, Callable[[Any, Any], Any]] = {
    "fit, samples": lambda twin, x: twin.fit(x, sample_weight=SAMPLE, verbose=0),
    "fit, classes": lambda twin, x: twin.fit(x, class_weight=CLASS, verbose=0),
    "fit, classes of a dataset": lambda twin, x: twin.fit(
        tf.data.Dataset.from_tensors(x), class_weight=CLASS, verbose=0
    ),
    "fit, validation": lambda twin, x: twin.fit(x, validation_data=(x, None, SAMPLE), verbose=0),
    "evaluate": lambda twin, x: twin.evaluate(x, sample_weight=SAMPLE, verbose=0),
    "train_on_batch, samples": lambda twin, x: twin.train_on_batch(x, sample_weight=SAMPLE),
    "train_on_batch, classes": lambda twin, x: twin.train_on_batch(x, class_weight=CLASS),
    "test_on_batch": lambda twin, x: twin.test_on_batch(x, sample_weight=SAMPLE),
    "a dataset's triples": lambda twin, x: twin.fit(triples(x), shuffle=False, verbose=0),
}


def test_weights_beside_labels_among_the_inputs_are_refused_everywhere() -> None:
    """Keras drops sample weights without y in silence, and fails over class weights with a traceback of its own."""
    twin = compiled("question-answering", run_eagerly=True)
    for name, call in WEIGHTED.items():
        with pytest.raises(InputError, match="^(sample|class) weights need a loss given to compile"):
            call(twin, with_labels("question-answering"))
            pytest.fail(name)


@pytest.mark.parametrize("loss", [None, "mse"])
def test_labels_given_twice_are_refused(loss: str | None) -> None:
    """The model's own loss would be used, and y dropped in silence."""
    twin = compiled("question-answering", loss=loss, run_eagerly=True)
    with pytest.raises(InputError, match="labels are among the inputs, so the model's own loss is used, and y"):
        twin.fit(with_labels("question-answering"), ANSWERS, verbose=0)


def test_class_weights_weigh_keras_loss() -> None:
    twin, inputs = compiled("question-answering", loss=answer_loss(), run_eagerly=True), with_labels("model")
    losses = twin.fit(inputs, ANSWERS, class_weight={**dict.fromkeys(range(5), 0.0), 1: 1.0}, verbose=0).history["loss"]
    twin = compiled("question-answering", loss=answer_loss(), run_eagerly=True)
    assert losses == pytest.approx([twin.evaluate(inputs, ANSWERS, sample_weight=SAMPLE, verbose=0)], rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "command"), [("tf_saved_model", "tensorflow"), ("onnx", "onnx"), ("litert", "tflite")]
)
def test_keras_export_names_the_command_that_checks(kind: str, command: str, tmp_path: Path) -> None:
    twin = twin_of(lively_model("question-answering", TINY), "float32")
    with pytest.raises(ConversionError, match=rf"lxmert-export {command} DIRECTORY -o {tmp_path / 'out'}"):
        twin.export(tmp_path / "out", format=kind)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("return_dict", [True, False])
def test_predict_gives_arrays_by_name_whatever_the_batches(return_dict: bool) -> None:
    config = TINY.replace(output_hidden_states=True, return_dict=return_dict)
    twin, inputs = compiled("pretraining", config), as_numpy(inputs_for("pretraining"))
    found = twin.predict(inputs, batch_size=2, verbose=0)  # batches of 2 and 1
    wanted = twin(inputs, return_dict=True)
    assert list(found) == list(wanted)
    for name in ("prediction_logits", "cross_relationship_score", "question_answering_score"):
        # float32 sums of another batch's blocks
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-5)
    assert [len(states) for states in found["language_hidden_states"]] == [3, 3]
    if not return_dict:  # dictionaries are fitted above
        assert np.isfinite(twin.fit(with_labels("pretraining"), verbose=0).history["loss"]).all()


def test_xla_can_compile_the_model() -> None:
    twin = twin_of(lively_model("question-answering", TINY), "float32")
    given = {name: tf.constant(array) for name, array in with_labels("question-answering").items()}
    compiled_by_xla = tf.function(lambda inputs: twin(inputs).loss, jit_compile=True)
    assert float(compiled_by_xla(given)) == pytest.approx(float(twin(given).loss), rel=1e-5)  # float32, fused otherwise


def test_dropout_is_there_in_training_alone() -> None:
    config = TINY.replace(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    twin, inputs = twin_of(lively_model("model", config), "float32"), as_numpy(inputs_for("model"))
    served = [np.asarray(twin(inputs, training=training).pooled_output) for training in (None, False)]
    assert np.array_equal(served[0], served[1])
    trained = [np.asarray(twin(inputs, training=True).pooled_output) for _ in range(2)]
    assert not np.array_equal(trained[0], trained[1])
    for each in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        alone = twin_of(lively_model("model", TINY.replace(**{each: 0.5})), "float32")
        assert not np.array_equal(alone(inputs, training=True).pooled_output, served[0])


def test_gradients_do_not_exist_for_what_the_answer_does_not_need_alone() -> None:
    twin = compiled("question-answering", run_eagerly=True)
    with pytest.warns(UserWarning, match="Gradients do not exist") as told:
        twin.fit(with_labels("question-answering"), verbose=0)
    names = str(told[0].message).split("[")[1].split("]")[0].replace("'", "").split(", ")
    side = ("vision_self_attention", "vision_feed_forward")
    assert all(name.startswith(tuple(f"lxmert/cross_modality_layers/0/{part}/" for part in side)) for name in names)
    assert len(names) == 16
