"""Predicts the errors of a half-precision engine on a GPU: those of its ONNX graph when every result is rounded (emulated)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxmert_export.parity.report import ParityReport

UNVALIDATED = "unvalidated"  # not measured on a device yet


def predicted_errors(report: ParityReport) -> dict[str, dict[str, Any]]:
    """Returns, for each output, its errors on its worst inputs, as ``manifest.json`` holds them.

    Empty if nothing was emulated. ``status`` is ``unvalidated``: the errors were not measured on a device.
    """
    worst = [cell for cell in report.worst_cells() if cell.arithmetic == "emulated" and cell.kind == "reference"]
    return {
        cell.output: {
            "status": UNVALIDATED,
            "inputs": cell.family,
            "error_rms": cell.error_rms,
            "error_max": cell.error_max,
            "floor": cell.floor,
            "score": cell.score,
        }
        for cell in worst
    }


def predicted_by_manifest(parity: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Returns the same from the ``parity`` entry of an ONNX artifact's manifest; empty if its gate was skipped."""
    outputs = {} if parity is None else parity["outputs"]
    names = ("inputs", "error_rms", "error_max", "floor", "score")
    return {
        output: {"status": UNVALIDATED, **{name: by_arithmetic["emulated"][name] for name in names}}
        for output, by_arithmetic in outputs.items()
        if "emulated" in by_arithmetic
    }
