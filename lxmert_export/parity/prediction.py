"""What the emulator foretells of an fp16 engine: the errors that its ONNX graph makes when every result is rounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxmert_export.parity.report import ParityReport

UNVALIDATED = "unvalidated"  # no device has been asked yet


def predicted_errors(report: ParityReport) -> dict[str, dict[str, Any]]:
    """For each output, the errors of the inputs on which it fares worst, as ``manifest.json`` holds them.

    Empty where nothing was emulated. ``status`` is ``unvalidated`` until a device's own errors stand beside them.
    """
    worst = [cell for cell in report.worst_cells() if cell.arithmetic == "emulated"]
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
    """The same from the ``parity`` of an ONNX artifact's manifest; empty where its gate was skipped."""
    outputs = {} if parity is None else parity["outputs"]
    names = ("inputs", "error_rms", "error_max", "floor", "score")
    return {
        output: {"status": UNVALIDATED, **{name: ways["emulated"][name] for name in names}}
        for output, ways in outputs.items()
        if "emulated" in ways
    }
