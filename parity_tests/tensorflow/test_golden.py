"""The Keras models compute every tensor that the original programs recorded, TFLxmert of transformers 4.57.6 among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from converters.tensorflow_model.model import MODELS
from lxmert_export.checkpoint.read import read_checkpoint
from parity_tests.faults.keras_faults import FAULTS, Plant
from parity_tests.fixtures.golden_comparison import LARGEST_SCORE, scores
from parity_tests.fixtures.golden_files import CHECKPOINTS
from parity_tests.fixtures.keras_models import CalledAsInPytorch

pytestmark = pytest.mark.quick

# The faults that move the recordings least, and the recording that each is looked for in: transformers' TensorFlow model could
# not take a visual mask at all, and nothing of its object head was recorded. Measured: 132 floors or more.
LEAST = {
    "gelu_tanh": "transformers_4.57.6_h5",
    "pytorchs_layer_norm_eps": "transformers_4.57.6_h5",
    "one_weight_changed": "transformers_4.57.6_h5",
    "objects_masked_as_words": "pretraining",
    "attributes_off_by_one": "pretraining",
}


def loading(plant: Plant = lambda model: None) -> Callable[[Path, torch.dtype], CalledAsInPytorch]:
    """How a golden checkpoint is loaded into Keras, with a fault planted."""

    def load(path: Path, dtype: torch.dtype) -> CalledAsInPytorch:
        checkpoint = read_checkpoint(path)
        model = MODELS[checkpoint.task].from_checkpoint(checkpoint, dtype=str(dtype).removeprefix("torch."))
        plant(model)
        return CalledAsInPytorch(model)

    return load


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_recorded_tensor(name: str) -> None:
    found = scores(name, load=loading())
    with safe_open(CHECKPOINTS[name].parent / "outputs.safetensors", "np") as file:
        assert set(found) == set(file.keys())
    assert {key: score for key, score in found.items() if not score <= LARGEST_SCORE} == {}


@pytest.mark.parametrize("fault", LEAST)
def test_fault_is_caught_by_a_recording(fault: str) -> None:
    assert max(scores(LEAST[fault], load=loading(FAULTS[fault])).values()) > 20 * LARGEST_SCORE
