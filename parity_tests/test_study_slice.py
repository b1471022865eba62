"""A small slice of `make study`: no alarm on random correct checkpoints, alone or in pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.study import ARCHITECTURES, Architecture, Bench, correct_trials
from lxmert_export.parity.scores import PAIR_THRESHOLD, THRESHOLD

FEW = 8


@pytest.mark.parametrize("architecture", ARCHITECTURES[:2], ids=lambda architecture: architecture.name)
def test_no_alarm_on_correct_checkpoints(architecture: Architecture, tmp_path: Path) -> None:
    cells = correct_trials(Bench(architecture, tmp_path), FEW)
    assert not [cell for cell in cells if cell.status != "pass"]
    assert {cell.against for cell in cells} == {"float64", "fp16"}
    # A wide gap below the thresholds: the study's largest score of a correct export is 1.29.
    assert max(cell.score or 0 for cell in cells) < min(THRESHOLD, PAIR_THRESHOLD) / 2
