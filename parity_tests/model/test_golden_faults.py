"""Each fault of the table, planted in the canonical model, moves some recorded tensor beyond rounding."""

from __future__ import annotations

import pytest

from parity_tests.faults.torch_faults import FAULTS
from parity_tests.fixtures.golden_comparison import LARGEST_SCORE, scores

TRANSFORMERS, ORIGINAL = "transformers_4.57.6_bin", "pretraining"
# transformers' TensorFlow model could not take a visual mask at all: the original's recording has one.
RECORDING = dict.fromkeys(FAULTS, TRANSFORMERS) | {"ignored_vision_mask": ORIGINAL}


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"fp16_overflow"}))
def test_fault_is_caught(fault: str) -> None:
    assert max(scores(RECORDING[fault], FAULTS[fault]).values()) > 20 * LARGEST_SCORE


@pytest.mark.parametrize("recording", [TRANSFORMERS, ORIGINAL])
def test_fp16_overflow_is_the_same_function_in_float32(recording: str) -> None:
    assert max(scores(recording, FAULTS["fp16_overflow"]).values()) <= LARGEST_SCORE
