"""Faults that a port to Keras could commit, planted before conversion: SavedModel's and TFLite's gates must fail for each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import converters.to_tensorflow
from lxmert_export.api.export import export
from lxmert_export.judging.pairs import report_on
from lxmert_export.parity.report import ParityReport
from lxmert_export.reference.gate import judge_by
from lxmert_export.reference.yardstick import Yardstick
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.spec.sample_inputs import sample_inputs
from parity_tests.faults.keras_faults import FAULTS
from parity_tests.fixtures.random_models import SMALL, lively_model

# One layer of each kind more than the least: a fault in one of two layers must show as well.
CONFIG = SMALL.replace(l_layers=2, x_layers=1, r_layers=1)
DETECTABLE = 20.0
KERAS_TWIN = converters.to_tensorflow.keras_twin
SAVE = converters.to_tensorflow.convert_to_saved_model
SERVED = converters.to_tensorflow.SIGNATURES[:1]


@pytest.fixture(scope="module")
def yardstick() -> Yardstick:
    """The sound model in float64, and its floors: computed once for all faults."""
    return Yardstick(lively_model("pretraining", CONFIG), CONFIG)


@pytest.fixture
def planted(yardstick: Yardstick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ParityReport]:
    """What the gate says of a conversion whose Keras model has a fault."""

    def judge(fault: str, target: str, **options: Any) -> ParityReport:
        def faulty_twin(*arguments: Any, **keywords: Any) -> Any:
            model = KERAS_TWIN(*arguments, **keywords)
            FAULTS[fault](model)
            return model

        monkeypatch.setattr(converters.to_tensorflow, "keras_twin", faulty_twin)
        # The one signature that is judged against float64 will do; the others are functions of it.
        monkeypatch.setattr(converters.to_tensorflow, "SIGNATURES", SERVED)
        monkeypatch.setattr(converters.to_tensorflow, "convert_to_saved_model", partial(SAVE, served=SERVED))
        out = tmp_path / f"{target} {options}"
        artifact = export(target, yardstick.module, out, object_heads=True, parity=False, **options)
        samples = sample_inputs(artifact.manifest.signature, CONFIG)
        report = report_on([judge_by(yardstick, artifact, samples, (CPU,))])
        assert not report.passed
        return report

    return judge


def test_without_a_fault_it_passes(yardstick: Yardstick, tmp_path: Path) -> None:
    artifact = export("tensorflow", yardstick.module, tmp_path / "out", object_heads=True, parity=False)
    samples = sample_inputs(artifact.manifest.signature, CONFIG)
    assert report_on([judge_by(yardstick, artifact, samples, (CPU,))]).passed


@pytest.mark.parametrize("fault", FAULTS)
def test_a_saved_model_with_a_fault_fails(fault: str, planted: Callable[..., ParityReport]) -> None:
    report = planted(fault, "tensorflow")
    # Not by a hair: the least of them, eps, is told of by 36 floors.
    assert max(cell.score or float("inf") for cell in report.failures) > DETECTABLE


# What moves nothing further than a precision's own rounding does; the scores that they passed with, of 8; sound files' [behind].
UNSEEN = {
    "fp16 weights": {"layer_norm_eps": 4.8, "pytorchs_layer_norm_eps": 2.2, "gelu_tanh": 2.2},  # [1.8]
    "fp16": {
        "layer_norm_eps": 1.0,
        "pytorchs_layer_norm_eps": 0.5,
        "gelu_tanh": 0.5,
        "one_weight_changed": 6.1,
    },  # [0.5]
    "int8": {
        "layer_norm_eps": 3.3,
        "pytorchs_layer_norm_eps": 3.3,
        "gelu_tanh": 3.2,
        "one_weight_changed": 3.4,
    },  # [3.3]
}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in {*UNSEEN["int8"], "wrong_head_count"}])
def test_an_int8_file_with_a_fault_fails(fault: str, planted: Callable[..., ParityReport]) -> None:
    """Heads cannot be miscounted here: with dynamic axes they are split by number, not by shape."""
    planted(fault, "tflite", precision="int8")


@pytest.mark.parametrize(
    "fault", ["transposed_kernel", "swapped_gain_and_shift", "layers_off_by_one", "ignored_vision_mask"]
)
def test_an_fp16_saved_model_with_a_fault_fails(fault: str, planted: Callable[..., ParityReport]) -> None:
    planted(fault, "tensorflow", precision="fp16")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    "fault",
    ["transposed_kernel", "swapped_gain_and_shift", "layers_off_by_one", "ignored_vision_mask", "one_weight_changed"],
)
def test_a_tflite_file_with_a_fault_fails(fault: str, precision: str, planted: Callable[..., ParityReport]) -> None:
    planted(fault, "tflite", precision=precision)


@pytest.mark.parametrize("fault", ["transposed_kernel", "swapped_gain_and_shift", "one_weight_changed"])
def test_a_keras_file_with_a_fault_fails(fault: str, planted: Callable[..., ParityReport]) -> None:
    planted(fault, "tensorflow", file_format="keras")
