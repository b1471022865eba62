"""Predicts the errors of half precision on a GPU, those of the ONNX graph when every result is rounded (emulated), and compares
them with the errors that were measured there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lxmert_export.parity.cells import Cell

if TYPE_CHECKING:
    from lxmert_export.parity.report import ParityReport

UNVALIDATED = "unvalidated"  # not measured on a device yet
# A GPU adds in another order and rounds fused operators only once, so errors differ. Up to this factor they agree.
SAME_SIZE = 2.0


@dataclass(frozen=True)
class Prediction:
    """The RMS error of an output that was predicted at export, and the one that a runner has on the same inputs.

    ``measured``: None if it was not run on them, or its error is not a number.
    """

    runner: str
    output: str
    family: str
    predicted: float
    measured: float | None

    @property
    def ratio(self) -> float | None:
        """Measured ÷ predicted."""
        return None if self.measured is None or not self.predicted else self.measured / self.predicted

    @property
    def status(self) -> str:
        """Whether the prediction holds, in words."""
        if self.ratio is None:
            return f"{UNVALIDATED}: these inputs were not run, or their error is not a number"
        if 1 / SAME_SIZE <= self.ratio <= SAME_SIZE:
            return "validated"
        return f"not borne out: the errors differ by more than a factor of {SAME_SIZE:g}"

    def to_dict(self) -> dict[str, Any]:
        """Its fields, the ratio and the status, as JSON values."""
        return {**vars(self), "ratio": self.ratio, "status": self.status}

    def __str__(self) -> str:
        place = f"{self.output}, {self.family} inputs"
        if self.ratio is None:
            return f"{place}: the predicted error is {self.status}"
        return f"{place}: measured ÷ predicted RMS error {self.ratio:.2f} ({self.measured:.2e} ÷ {self.predicted:.2e})"


def beside_prediction(
    runner: str, cells: Sequence[Cell], predicted: Mapping[str, Mapping[str, Any]]
) -> tuple[Prediction, ...]:
    """Returns for each output with a prediction both errors on the same inputs; ``cells`` are those of one runner."""
    measured = {(cell.output, cell.family): cell.error_rms for cell in cells if cell.kind == "reference"}
    return tuple(
        Prediction(runner, output, row["inputs"], row["error_rms"], measured.get((output, row["inputs"])))
        for output, row in predicted.items()
    )


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
