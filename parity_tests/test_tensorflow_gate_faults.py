"""Faults that a port to Keras could commit, planted before conversion: SavedModel's and TFLite's gates must fail for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import converters.to_tensorflow
from lxmert_export.api import export
from lxmert_export.errors import ParityError
from lxmert_export.parity.report import ParityReport
from parity_tests.planted_keras_faults import FAULTS
from parity_tests.random_models import SMALL, lively_model

# One layer of each kind more than the least: a fault in one of two layers must show as well.
CONFIG = SMALL.replace(l_layers=2, x_layers=1, r_layers=1)
KERAS_TWIN = converters.to_tensorflow.keras_twin


def planted(fault: str, target: str, directory: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> ParityReport:
    """The report of a conversion whose Keras model has a fault."""

    def faulty_twin(*arguments: Any, **keywords: Any) -> Any:
        model = KERAS_TWIN(*arguments, **keywords)
        FAULTS[fault](model)
        return model

    monkeypatch.setattr(converters.to_tensorflow, "keras_twin", faulty_twin)
    with pytest.raises(ParityError) as failed:
        export(target, lively_model("pretraining", CONFIG), directory / "out", object_heads=True, **options)
    assert not (directory / "out").exists()
    return failed.value.report


@pytest.mark.parametrize("fault", FAULTS)
def test_a_saved_model_with_a_fault_fails(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = planted(fault, "tensorflow", tmp_path, monkeypatch)
    # Rounding alone never exceeds 2; what fails here fails for the fault.
    assert max(cell.score or float("inf") for cell in report.failures) > cell_threshold(report)


@pytest.mark.parametrize(
    "fault", ["transposed_kernel", "swapped_gain_and_shift", "layers_off_by_one", "ignored_vision_mask"]
)
def test_a_tflite_file_with_a_fault_fails(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(fault, "tflite", tmp_path, monkeypatch)


@pytest.mark.parametrize("fault", ["transposed_kernel", "swapped_gain_and_shift", "one_weight_changed"])
def test_a_keras_file_with_a_fault_fails(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(fault, "tensorflow", tmp_path, monkeypatch, file_format="keras")


def cell_threshold(report: ParityReport) -> float:
    """The score that a cell may have at most."""
    return report.cells[0].threshold
