"""Each fault of ``planted_keras_faults`` moves an output of the Keras model by far more than float32 rounds it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lxmert_export.model.twins import recast
from lxmert_export.parity.scores import errors, measure_floor
from parity_tests.faults.keras_faults import FAULTS, Plant
from parity_tests.fixtures.keras_models import Arrays, as_numpy, flat, twin_of
from parity_tests.fixtures.random_models import SMALL, inputs_for, lively_model

# What the conversion gate allows is 8 floors. Measured: the sound model has 2e-9, the least fault (eps 1e-5) 36.
DETECTABLE, SOUND = 20.0, 1e-6
OPTIONS = {"output_object_heads": True, "output_hidden_states": True, "output_attentions": True}


@pytest.fixture(scope="module")
def exact() -> Arrays:
    return outputs_of_torch(lively_model("pretraining").double())


@pytest.fixture(scope="module")
def floors(exact: Arrays) -> dict[str, float]:
    rounded = outputs_of_torch(recast(lively_model("pretraining"), torch.float32))
    return {name: measure_floor([array], [rounded[name]], "fp32").rms for name, array in exact.items()}


def outputs_of_torch(model: Any) -> Arrays:
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        return flat(model(**inputs_for("pretraining", dtype), **OPTIONS))


def scores(exact: Arrays, floors: dict[str, float], plant: Plant = lambda model: None) -> dict[str, float]:
    """By output: how many float32 floors the Keras model in float64 is away from PyTorch in float64."""
    twin = twin_of(lively_model("pretraining"))
    plant(twin)
    found = flat(twin(as_numpy(inputs_for("pretraining", torch.float64)), **OPTIONS))
    assert set(found) == set(exact)
    return {
        name: errors([array], [found[name]]).rms / floors[name] if found[name].shape == array.shape else float("inf")
        for name, array in exact.items()
    }


def test_the_sound_model_is_no_fault(exact: Arrays, floors: dict[str, float]) -> None:
    assert max(scores(exact, floors).values()) < SOUND


# Faults of one head or one output; all others move every head's scores.
LOCAL = {
    "untied_decoder": {"prediction_logits"},
    "attributes_off_by_one": {"attribute_logits"},
    "last_token_pooled": {"cross_relationship_score", "question_answering_score"},
    "second_token_pooled": {"cross_relationship_score", "question_answering_score"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_seen(fault: str, exact: Arrays, floors: dict[str, float]) -> None:
    """That of one head there, and nowhere else."""
    found = scores(exact, floors, FAULTS[fault])
    assert max(found.values()) > DETECTABLE
    moved = {name for name, score in found.items() if score > SOUND}
    assert fault not in LOCAL or moved == LOCAL[fault]


def test_the_small_model_leaves_no_fault_without_a_place() -> None:
    """Two language layers to exchange, square kernels, objects fewer than words, both masks ragged."""
    inputs = inputs_for("pretraining")
    assert SMALL.l_layers >= 2
    assert inputs["visual_feats"].shape[1] < inputs["input_ids"].shape[1]
    assert all(0 < inputs[mask].mean(dtype=torch.float32) < 1 for mask in ("attention_mask", "visual_attention_mask"))
