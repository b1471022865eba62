"""Compares the error that the emulator predicted for an engine with the error measured on the GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lxmert_export.parity.cells import Cell

# A GPU adds in another order and rounds fused operators only once, so errors differ. Up to this factor they agree.
SAME_SIZE = 2.0


def beside_prediction(cells: Sequence[Cell], predicted: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns for each output with a prediction both errors on the same inputs, and whether they agree."""
    measured = {(cell.output, cell.family): cell for cell in cells}
    found = {}
    for output, figures in predicted.items():
        cell = measured.get((output, figures["inputs"]))
        error = None if cell is None else cell.error_rms
        ratio = None if error is None else error / figures["error_rms"]
        found[output] = {
            "inputs": figures["inputs"],
            "foretold_rms": figures["error_rms"],
            "measured_rms": error,
            "measured_over_foretold": ratio,
            "status": _status(ratio),
        }
    return found


def _status(ratio: float | None) -> str:
    if ratio is None:
        return "unvalidated: these inputs were not run, or their error is not a number"
    if 1 / SAME_SIZE <= ratio <= SAME_SIZE:
        return "validated"
    return f"not borne out: the errors differ by more than a factor of {SAME_SIZE:g}"
