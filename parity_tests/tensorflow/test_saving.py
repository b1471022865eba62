"""``.keras`` files, weight files and configs: what was saved is loaded to the bit, under every dtype policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from converters.tensorflow_model.model import MODELS, TFLxmertForQuestionAnswering
from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from lxmert_export.files.beside_weights import COMPANION_FILES
from lxmert_export.files.hub import DEMO_DIRECTORY
from lxmert_export.spec.signature import TASKS, Task
from parity_tests.faults.keras_faults import one_weight_changed
from parity_tests.fixtures.keras_models import as_numpy, twin_of
from parity_tests.fixtures.random_models import SMALL, TINY, inputs_for, lively_labels, lively_model

# Keras 3.15's own variables do not know numpy 2's copy keyword yet; Keras itself asks them for arrays that way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

UNUSUAL = SMALL.replace(layer_norm_eps=1e-3, visual_pos_dim=4, tie_word_embeddings=False, task_qa=False,
                        visual_attr_loss=False, output_hidden_states=True)  # fmt: skip


def outputs(model: PreTrainedTFLxmert) -> dict[str, NDArray[np.floating]]:
    found = model(as_numpy(inputs_for(model.task))).items()
    # float64 holds all that the half precisions do
    return {name: tf.cast(value, tf.float64).numpy() for name, value in found if not isinstance(value, tuple)}


def same(one: PreTrainedTFLxmert, other: PreTrainedTFLxmert) -> bool:
    found, wanted = outputs(one), outputs(other)
    return list(found) == list(wanted) and all(np.array_equal(found[name], wanted[name]) for name in wanted)


def reloaded(model: PreTrainedTFLxmert, directory: Path) -> Any:
    model.save(directory / "model.keras")
    return keras.saving.load_model(directory / "model.keras")


POLICIES = ("float32", "mixed_float16", "float16", "bfloat16", "float64")


@pytest.mark.parametrize(
    ("task", "policy"),
    [*((task, "float32") for task in TASKS), *(("pretraining", policy) for policy in POLICIES[1:])],
)
def test_a_keras_file_holds_the_model_to_the_bit(task: Task, policy: str, tmp_path: Path) -> None:
    model = twin_of(lively_model(task, SMALL if task == "pretraining" and policy == "float32" else TINY), policy)
    back = reloaded(model, tmp_path)
    assert type(back) is type(model)
    assert (back.config, back.name, back.dtype_policy.name) == (model.config, model.name, policy)
    assert {v.path: v.dtype for v in back.variables} == {v.path: v.dtype for v in model.variables}
    assert same(back, model)


def test_an_unusual_config_comes_back(tmp_path: Path) -> None:
    model = twin_of(lively_model("pretraining", UNUSUAL), "float32")
    back = reloaded(model, tmp_path)
    assert back.config == UNUSUAL
    assert same(back, model)


def test_one_other_weight_is_seen(tmp_path: Path) -> None:
    model = twin_of(lively_model("model"), "float32")
    back = reloaded(model, tmp_path)
    one_weight_changed(back)
    assert not same(back, model)


@pytest.mark.parametrize("task", TASKS)
def test_a_config_makes_the_model_anew(task: Task) -> None:
    model = MODELS[task](UNUSUAL, name="mine", dtype="mixed_bfloat16")
    made = type(model).from_config(model.get_config())
    assert (made.config, made.name, made.dtype_policy.name) == (UNUSUAL, "mine", "mixed_bfloat16")
    assert [v.path for v in made.variables] == [v.path for v in model.variables]
    assert made.get_config() == model.get_config()
    made.set_weights(model.get_weights())
    assert same(made, model)


def test_weight_files(tmp_path: Path) -> None:
    model, other = (twin_of(lively_model("nlvr2", seed=seed), "float32") for seed in (0, 1))
    assert not same(model, other)
    model.save_weights(tmp_path / "of.weights.h5")
    other.load_weights(tmp_path / "of.weights.h5")
    assert same(model, other)


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables.*vision_:UserWarning")
def test_training_goes_on_from_a_file(tmp_path: Path) -> None:
    """The optimizer and what it remembers are in it."""
    given = {**as_numpy(inputs_for("question-answering")), **as_numpy(lively_labels("question-answering"))}
    tiny = SMALL.replace(l_layers=1, x_layers=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = twin_of(lively_model("question-answering", tiny), "float32")
    model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), run_eagerly=True)
    model.fit(given, verbose=0)
    back = reloaded(model, tmp_path)
    assert back.optimizer.iterations == 1
    momenta = [[variable.numpy() for variable in each.optimizer.variables] for each in (model, back)]
    assert all(np.array_equal(one, other) for one, other in zip(*momenta, strict=True))
    assert any(np.any(momentum) for momentum in momenta[0][2:])  # past the count of steps and the rate
    back.fit(given, verbose=0)
    assert back.optimizer.iterations == 2


def test_the_tokenizer_travels(tmp_path: Path) -> None:
    model = TFLxmertForQuestionAnswering.from_pretrained("demo")
    model.save_pretrained(tmp_path / "saved")
    TFLxmertForQuestionAnswering.from_pretrained(tmp_path / "saved").save_pretrained(tmp_path / "again", dialect="tf")
    for name in COMPANION_FILES:
        assert (tmp_path / "again" / name).read_bytes() == (DEMO_DIRECTORY / name).read_bytes()
