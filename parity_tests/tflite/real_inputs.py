"""Inputs as a user would bring them to calibrate on."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.fixtures.random_models import SMALL


def real_inputs(rows: int = 192, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Rows of one distribution, ragged on both sides."""
    generator = np.random.default_rng(seed)
    text, objects = 7, 5
    return {
        "input_ids": generator.integers(1, SMALL.vocab_size, (rows, text)),
        "attention_mask": np.arange(text) < generator.integers(2, text + 1, (rows, 1)),
        "visual_feats": generator.standard_normal((rows, objects, SMALL.visual_feat_dim)).astype(np.float32),
        "visual_pos": generator.random((rows, objects, SMALL.visual_pos_dim)).astype(np.float32),
        "visual_attention_mask": (np.arange(objects) < generator.integers(1, objects + 1, (rows, 1))),
    }
