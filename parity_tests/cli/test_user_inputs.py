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
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Signature, TensorSpec, task_signature
from lxmert_export.spec.user_inputs import prepare_user_inputs, read_user_pieces
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


def whole_features(given: Rows) -> Rows:
    return {**given, "visual_feats": np.full_like(given["visual_feats"], 5e6).astype(np.int64)}


@pytest.mark.parametrize("use", [judging, calibrating, linting])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda given: {**given, "words": given["input_ids"]}, "holds words, which is neither an input nor an output"),
        (with_value("visual_feats", float("nan")), "visual_feats holds NaN or infinity"),
        (with_value("visual_feats", 3e6), r"visual_feats reaches 3e\+06; values may be at most 1e\+06"),
        (whole_features, r"visual_feats reaches 5e\+06; values may be at most 1e\+06"),
        (with_value("attention_mask", 2), r"attention_mask holds other values than 0 \(masked\) and 1 \(seen\)"),
        (with_value("input_ids", TINY.vocab_size), f"input_ids holds {TINY.vocab_size}; it must be"),
        (lambda given: {name: array for name, array in given.items() if name != "visual_pos"}, "visual_pos"),
        (lambda given: {**given, "visual_pos": given["visual_pos"][:2]}, r"visual_pos has shape .2, 5, 4.; expected"),
    ],
    ids=["unknown", "nan", "huge", "huge-integers", "mask", "id", "missing", "rows"],
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


@pytest.mark.parametrize("use", [calibrating, linting])
def test_outputs_are_refused_where_inputs_alone_are_read(use: Use, exports: Exports, tmp_path: Path) -> None:
    file = tmp_path / "rows.npz"
    np.savez(file, **rows(), question_answering_score=np.zeros((3, TINY.num_qa_labels), np.float32))
    with pytest.raises(lx.InputError, match="holds outputs, too"):
        use(file, exports)


@pytest.mark.parametrize(("fixed", "sizes"), [(None, [4, 4, 2]), (3, [3, 3, 3])])
def test_rows_are_linted_few_at_a_time(fixed: int | None, sizes: list[int], tmp_path: Path) -> None:
    signature = task_signature(TINY, "question-answering", fixed={"batch": fixed} if fixed else None)
    many = {name: np.concatenate([array] * 4)[:10] for name, array in rows().items()}
    np.savez(tmp_path / "rows.npz", **many)
    pieces = read_user_pieces(tmp_path / "rows.npz", signature, InputLimits.of(TINY), 4)
    assert [len(piece["input_ids"]) for piece in pieces] == sizes
    np.savez(tmp_path / "few.npz", **{name: array[:2] for name, array in many.items()})
    if fixed:
        with pytest.raises(lx.InputError, match="has 2 rows; the batch axis is fixed to 3"):
            read_user_pieces(tmp_path / "few.npz", signature, InputLimits.of(TINY), 4)


def test_a_module_of_your_own_may_mean_something_else_by_a_mask(tmp_path: Path) -> None:
    usual = task_signature(TINY, "question-answering")
    mask = TensorSpec("my_attention_mask", "float32", ("batch", "text"))
    signature = Signature("mine", (*usual.inputs, mask), usual.outputs)
    given = {**rows(), "my_attention_mask": np.full((3, 6), -1e4)}
    given["visual_feats"] *= 1e7
    assert prepare_user_inputs("x.npz", given, signature, InputLimits.of(TINY))


@pytest.mark.parametrize("use", [judging, linting])
def test_a_file_of_sound_rows_is_taken(use: Use, exports: Exports, tmp_path: Path) -> None:
    file = tmp_path / "rows.npz"
    np.savez(file, **rows())
    use(file, exports)
