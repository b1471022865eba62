"""Our model computes every tensor that the original programs recorded, to float32 rounding; a planted fault does not."""

from __future__ import annotations

import pytest

from parity_tests.golden_comparison import LARGEST_SCORE, scores
from parity_tests.golden_files import ORIGINALS
from parity_tests.planted_faults import FAULTS

RECORDINGS = (*ORIGINALS, "transformers_4.57.6")


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_recorded_tensor(name: str) -> None:
    found = scores(name)
    assert {key: score for key, score in found.items() if not score <= LARGEST_SCORE} == {}


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"fp16_overflow", "ignored_vision_mask"}))
def test_fault_in_the_model_is_caught(fault: str) -> None:
    found = scores("transformers_4.57.6", FAULTS[fault])
    assert max(found.values()) > LARGEST_SCORE


def test_ignored_vision_mask_is_caught() -> None:
    # transformers' TensorFlow model could not take a visual mask at all: the original's recording has one.
    assert max(scores("pretraining", FAULTS["ignored_vision_mask"]).values()) > LARGEST_SCORE


def test_fp16_overflow_is_no_fault_in_float64() -> None:
    assert max(scores("transformers_4.57.6", FAULTS["fp16_overflow"]).values()) <= LARGEST_SCORE
