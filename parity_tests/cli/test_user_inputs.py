"""A file of the user's inputs follows the same rules wherever it is given: to judge, to calibrate, or to lint."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import lxmert_export as lx
from lxmert_export.exporting.fp16_lint import lint
from parity_tests.fixtures.checking import check_here
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_model

Rows = dict[str, NDArray[Any]]
Use = Callable[[Path, Exports], object]


def judging(file: Path, exports: Exports) -> object:
    graph = exports.lively("onnx", "question-answering", TINY)
    checkpoint = file.parent / "checkpoint"
    lx.save_checkpoint(lively_model("question-answering", TINY), checkpoint)
    return check_here([graph.path], checkpoint=checkpoint, inputs=file)


def calibrating(file: Path, exports: Exports) -> object:
    model = lively_model("question-answering", TINY)
    return lx.export("tflite", model, file.parent / "out", precision="int8", full_integer=True, calibration=file)


def linting(file: Path, exports: Exports) -> object:
    return lint(exports.lively("onnx", "question-answering", TINY), file)


def rows() -> Rows:
    generator = np.random.default_rng(0)
    return {
        "input_ids": generator.integers(1, TINY.vocab_size, (3, 6)),
        "attention_mask": np.ones((3, 6), np.int64),
        "visual_feats": generator.normal(size=(3, 5, TINY.visual_feat_dim)).astype(np.float32),
        "visual_pos": generator.uniform(0, 1, (3, 5, 4)).astype(np.float32),
    }


def with_value(name: str, value: float) -> Callable[[Rows], Rows]:
    def change(given: Rows) -> Rows:
        given[name].flat[0] = value
        return given

    return change


@pytest.mark.parametrize("use", [judging, calibrating, linting])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda given: {**given, "words": given["input_ids"]}, "holds words, which is neither an input nor an output"),
        (with_value("visual_feats", float("nan")), "visual_feats holds NaN or infinity"),
        (with_value("visual_feats", 3e6), r"visual_feats reaches 3e\+06; values may be at most 1e\+06"),
        (with_value("attention_mask", 2), r"attention_mask holds 2; a mask holds 1 for what is seen and 0"),
        (with_value("input_ids", TINY.vocab_size), f"input_ids holds {TINY.vocab_size}; it must be"),
        (lambda given: {name: array for name, array in given.items() if name != "visual_pos"}, "visual_pos"),
        (lambda given: {**given, "visual_pos": given["visual_pos"][:2]}, r"visual_pos has shape .2, 5, 4.; expected"),
    ],
    ids=["unknown", "nan", "huge", "mask", "id", "missing", "rows"],
)  # fmt: skip
def test_the_same_file_is_refused_for_the_same_reason(
    use: Use, change: Callable[[Rows], Rows], told: str, exports: Exports, tmp_path: Path
) -> None:
    file = tmp_path / "rows.npz"
    np.savez(file, **change(rows()))
    with pytest.raises(lx.InputError) as refused:
        use(file, exports)
    line = str(refused.value)
    assert line.startswith(f"{file}: ") and re.search(told, line) and "\n" not in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("use", [judging, linting])
def test_a_file_of_sound_rows_is_taken(use: Use, exports: Exports, tmp_path: Path) -> None:
    file = tmp_path / "rows.npz"
    np.savez(file, **rows())
    use(file, exports)
