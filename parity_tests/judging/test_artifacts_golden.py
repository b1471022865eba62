"""Artifacts of every target compute what TFLxmert of transformers 4.57.6 and the original program were recorded to compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lxmert_export as lx
from lxmert_export.api.export import export
from parity_tests.fixtures.golden_comparison import LARGEST_SCORE, LEAST_FLOOR, rms
from parity_tests.fixtures.golden_files import CHECKPOINTS, model_inputs, recorded

pytestmark = pytest.mark.quick

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "onnx": ("onnx", {}),
    "saved-model": ("tensorflow", {}),
    "keras": ("tensorflow", {"file_format": "keras"}),
    "tflite": ("tflite", {}),
}


# Each way once: recordings of the original program where PyTorch's module is converted, those of TFLxmert where Keras' is.
# Both recordings are compared with both modules in model/test_golden.py and tensorflow/test_golden.py.
@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("pretraining", "onnx"),
        ("transformers_4.57.6_h5", "saved-model"),
        ("transformers_4.57.6_h5", "keras"),
        ("pretraining", "tflite"),
    ],
)
def test_every_recorded_output_of_the_signature(name: str, way: str, tmp_path: Path) -> None:
    target, options = WAYS[way]
    checkpoint = CHECKPOINTS[name]
    artifact = export(
        target, checkpoint, tmp_path / "out", task="pretraining", hidden_states=True, attentions=True, parity=False, **options
    )  # fmt: skip
    inputs, outputs = recorded(checkpoint.parent)
    with lx.load_artifact(artifact.path) as runner:
        found = runner.run({key: tensor.numpy() for key, tensor in model_inputs(inputs).items()})
    compared = sorted(set(found) & set(outputs))
    assert {"prediction_logits", "cross_relationship_score", "question_answering_score"} <= set(compared)
    for key in compared:
        # Both have a rounding of their own, of about one floor each: measured, 1.5 at most.
        error = rms(torch.from_numpy(found[key].copy()) - outputs[key])
        assert error / (LEAST_FLOOR * rms(outputs[key])) <= LARGEST_SCORE, key
