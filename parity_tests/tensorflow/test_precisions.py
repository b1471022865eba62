"""The Keras models under every dtype policy: what is stored and computed in which dtype, and how exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from converters.tensorflow_model import layers
from converters.tensorflow_model.layers import Attention, LayerNorm
from converters.tensorflow_model.model import MODELS
from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from lxmert_export.errors import ConversionError
from lxmert_export.model.twins import recast
from lxmert_export.parity.scores import errors, measure_floor
from lxmert_export.spec.signature import TASKS
from parity_tests.faults.keras_faults import parts, patch
from parity_tests.fixtures.keras_models import Arrays, as_numpy, flat, twin_of
from parity_tests.fixtures.random_models import SMALL, inputs_for, lively_labels, lively_model

# Policy → dtype of the matrices' variables, of the norms' variables, of what is computed and given back; floor.
POLICIES = {
    "float32": ("float32", "float32", "float32", "fp32"),
    "mixed_float16": ("float32", "float32", "float16", "fp16"),
    "mixed_bfloat16": ("float32", "float32", "bfloat16", "bf16"),
    "float16": ("float16", "float32", "float16", "fp16"),
    "bfloat16": ("bfloat16", "float32", "bfloat16", "bf16"),
    "float64": ("float64", "float64", "float64", "fp64"),
}
# The floor is the error of PyTorch's model at the same precision. Measured: 1.0 in float32, 0.4 in halves.
LARGEST_SCORE = 3.0
OPTIONS = {"output_object_heads": True, "output_hidden_states": True, "output_attentions": True}
TINY = SMALL.replace(l_layers=1, x_layers=1, r_layers=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def masked_inputs(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """One sentence and one picture of which nothing at all is seen."""
    inputs = inputs_for("pretraining", dtype)
    inputs["attention_mask"][1], inputs["visual_attention_mask"][2] = 0, 0
    return inputs


def wide(output: Any) -> Arrays:
    """``flat`` in float64, from half precisions too."""
    return flat({name: _widened(value) for name, value in output.items()})


def _widened(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_widened, value))
    return value.double() if isinstance(value, torch.Tensor) else tf.cast(value, tf.float64)


@pytest.fixture(scope="module")
def exact() -> Arrays:
    with torch.no_grad():
        return wide(lively_model("pretraining").double()(**masked_inputs(torch.float64), **OPTIONS))


def scores(twin: PreTrainedTFLxmert, exact: Arrays, precision: str) -> dict[str, float]:
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp64": torch.float64}[precision]
    with torch.no_grad():
        rounded = wide(recast(lively_model("pretraining"), dtype)(**masked_inputs(dtype), **OPTIONS))
    # One set of float32 inputs for all policies: the model casts them for itself.
    found = wide(twin(**as_numpy(masked_inputs()), **OPTIONS))
    assert found.keys() == exact.keys()
    scored = {}
    for name, wanted in exact.items():
        score = errors([wanted], [found[name]]).rms / measure_floor([wanted], [rounded[name]], precision).rms
        scored[name] = score if np.isfinite(score) else float("inf")
    return scored


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "float64"])
def test_every_policy_is_as_exact_as_pytorch(policy: str, exact: Arrays) -> None:
    """Fully masked rows included, which a mask bias of the least float16 would make NaN."""
    assert (
        max(scores(twin_of(lively_model("pretraining"), policy), exact, POLICIES[policy][3]).values()) <= LARGEST_SCORE
    )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("task", TASKS)
def test_dtypes_of_variables_and_outputs(task: Any, policy: str) -> None:
    stored, norms, computed, _ = POLICIES[policy]
    twin = twin_of(lively_model(task, TINY), policy)
    assert (twin.dtype_policy.name, twin.compute_dtype) == (policy, computed)
    assert {variable.path: variable.dtype for variable in twin.variables} == {
        variable.path: norms if variable.path.endswith(("gamma", "beta")) else stored for variable in twin.variables
    }
    assert {value.dtype.name for value in twin(as_numpy(inputs_for(task))).to_tuple()} == {computed}


@pytest.fixture
def global_policy() -> Iterator[None]:
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("global_policy")
def test_the_global_policy_is_the_default_and_one_of_its_own_comes_first() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    for task, model in MODELS.items():
        twin = model(TINY)
        assert twin.dtype_policy.name == "mixed_float16"
        assert {part.compute_dtype for part in parts(twin, Attention)} == {"float16"}, task
    own = MODELS["nlvr2"](TINY, dtype=keras.DTypePolicy("float64"))
    assert {variable.dtype for variable in own.variables} == {"float64"}
    assert {part.compute_dtype for part in parts(own, layers.Block)} == {"float64"}


def operations(twin: PreTrainedTFLxmert) -> dict[str, set[str]]:
    """By kind of operation: the dtypes in which the model computes it."""
    given = {name: tf.constant(array) for name, array in as_numpy(inputs_for("pretraining")).items()}
    graph = tf.function(lambda: twin(given, **OPTIONS).to_tuple(), autograph=False).get_concrete_function().graph
    found: dict[str, set[str]] = {}
    for operation in graph.get_operations():
        if operation.outputs:
            found.setdefault(operation.type, set()).add(operation.outputs[0].dtype.name)
    return found


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "mixed_bfloat16"])
def test_norms_softmax_and_gelu_are_float32_islands(policy: str) -> None:
    found = operations(twin_of(lively_model("pretraining", TINY), policy))
    assert [found[kind] for kind in ("Softmax", "Erfc", "Rsqrt")] == [{"float32"}] * 3
    half = POLICIES[policy][2]
    assert found["MatMul"] == found["BatchMatMulV2"] == found["BiasAdd"] == {half}


def test_a_norm_of_equal_numbers_is_its_shift() -> None:
    """In float16 the published eps of 1e-12 is zero, and the norm not a number."""
    norm = LayerNorm(4, 1e-12, "norm", keras.DTypePolicy("float16"))
    norm.shift.assign([1.0, 2.0, 3.0, 4.0])
    assert norm(tf.fill([1, 4], tf.constant(3, tf.float16))).numpy().tolist() == [[1.0, 2.0, 3.0, 4.0]]
    half = tf.constant(1e-12, tf.float16)
    assert np.isinf(tf.math.rsqrt(half))


def test_norms_in_half_precision_are_seen() -> None:
    """A planted fault: what LayerNorm is where its policy is followed to the letter."""

    def in_half(self: Any, hidden: tf.Tensor) -> tf.Tensor:
        gain, shift = (tf.cast(part, hidden.dtype) for part in (self.gain, self.shift))
        centred = hidden - tf.reduce_mean(hidden, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        return centred * tf.math.rsqrt(variance + tf.cast(self.eps, hidden.dtype)) * gain + shift

    twin = twin_of(lively_model("pretraining", TINY), "mixed_float16")
    for norm in parts(twin, LayerNorm):
        patch(norm, in_half)
    assert "float16" in operations(twin)["Rsqrt"]


def test_masks_of_the_least_number_are_seen(exact: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: where everything is masked, transformers' finfo.min swallows the scores, which should decide."""
    monkeypatch.setattr("converters.tensorflow_model.model.MASK_BIAS", -3.4e38)
    assert (
        max(scores(twin_of(lively_model("pretraining"), "mixed_float16"), exact, "fp16").values()) > 20 * LARGEST_SCORE
    )


def test_a_weight_that_float16_cannot_hold_is_named() -> None:
    model = lively_model("model", TINY)
    with torch.no_grad():
        model.pooler.weight[0, 0] = 1e5
    with pytest.raises(ConversionError, match=r"^lxmert.pooler.weight does not fit float16: its largest .* 1e\+05$"):
        twin_of(model, "float16")
    assert np.isfinite(twin_of(model, "mixed_float16").pooler.kernel.numpy()).all()


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables.*vision_:UserWarning")
def test_training_steps_with_loss_scaling_and_one_that_overflows() -> None:
    """Compiled in half precision; float32 steps, which are compiled in test_fit.py, are taken as they are written."""
    given = {**as_numpy(inputs_for("question-answering")), **as_numpy(lively_labels("question-answering"))}
    losses = {}
    for policy in ("float32", "mixed_float16"):
        twin = twin_of(lively_model("question-answering", TINY), policy)
        twin.compile(optimizer=keras.optimizers.SGD(0.01), jit_compile=False, run_eagerly=policy == "float32")
        losses[policy] = twin.fit(given, epochs=3, verbose=0).history["loss"]
    scaled = twin.optimizer
    assert isinstance(scaled, keras.optimizers.LossScaleOptimizer)
    assert losses["mixed_float16"][2] < 0.9 * losses["mixed_float16"][0]
    # Half the digits of float32; the third loss has two steps behind it.
    assert losses["mixed_float16"] == pytest.approx(losses["float32"], rel=2e-2)

    scaled.dynamic_scale.assign(2.0**40)
    before = [variable.numpy() for variable in twin.variables]
    twin.fit(given, verbose=0)
    assert all(np.array_equal(one, other) for one, other in zip(before, map(np.asarray, twin.variables), strict=True))
    assert float(scaled.dynamic_scale) == 2.0**39, "the step is left out, and the next one's loss scaled by less"


def test_a_gradient_that_overflows_in_one_occurrence_of_a_word_is_left_out() -> None:
    """Of a sparse gradient Keras' loss scaling sees one occurrence of a row alone, and let the step through that held NaN."""
    twin = twin_of(lively_model("question-answering", TINY), "mixed_float16")
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))
    flowing_back = tf.constant([[np.inf], [1.0]], tf.float16)  # to the first and the second occurrence of word 3
    with tf.GradientTape() as tape:
        rows = twin.backbone().embeddings.word(tf.constant([3, 3]))
        loss = tf.reduce_sum(rows * flowing_back)
    gradient = tape.gradient(loss, twin.backbone().embeddings.word.weight.value)
    assert not bool(optimizer.check_finite([gradient]))
