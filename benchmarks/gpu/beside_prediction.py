"""What the emulator foretold of an engine's error, beside what the GPU shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lxmert_export.parity.cells import Cell

# A GPU adds in another order and rounds fused operators once, so errors of one size differ: a factor of two is the same size.
SAME_SIZE = 2.0


def beside_prediction(cells: Sequence[Cell], foretold: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each output that something was foretold of: both errors on the same inputs, and whether one bears the other out."""
    measured = {(cell.output, cell.family): cell for cell in cells}
    found = {}
    for output, figures in foretold.items():
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
        return "unvalidated: these inputs were not run, or gave no error that can be measured"
    if 1 / SAME_SIZE <= ratio <= SAME_SIZE:
        return "validated"
    return f"not borne out: off by more than a factor of {SAME_SIZE:g}"
