"""Our model computes every tensor that the original programs recorded, to float32 rounding."""

from __future__ import annotations

import pytest
from safetensors import safe_open

from parity_tests.fixtures.golden_comparison import LARGEST_SCORE, scores
from parity_tests.fixtures.golden_files import CHECKPOINTS, GOLDEN

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_recorded_tensor(name: str) -> None:
    found = scores(name)
    with safe_open(CHECKPOINTS[name].parent / "outputs.safetensors", "np") as file:
        assert set(found) == set(file.keys())
    assert {key: score for key, score in found.items() if not score <= LARGEST_SCORE} == {}


def test_every_checkpoint_and_every_recording_is_compared() -> None:
    weights = {path for suffix in ("*.pth", "*.bin", "*.h5") for path in GOLDEN.rglob(suffix)}
    assert weights == set(CHECKPOINTS.values())
    assert {path.parent for path in GOLDEN.rglob("outputs.safetensors")} == {path.parent for path in weights}
