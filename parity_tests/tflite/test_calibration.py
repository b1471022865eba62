"""Real inputs for full-integer TFLite: which rows measure and which judge, and files that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lxmert_export.api.export import export
from lxmert_export.errors import InputError
from lxmert_export.exporting.calibration import Calibration, read_calibration
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.random_models import SMALL
from parity_tests.tflite.real_inputs import real_inputs
from parity_tests.tflite.test_converter import written


@pytest.mark.parametrize("fixed", [{"text": 4}, {"objects": 1}])
def test_axes_that_no_scene_of_the_demo_fits_are_one_line(fixed: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 questions about demo scenes .* has 0 rows"):
        export("tflite", "demo", tmp_path / "out", precision="int8", full_integer=True, fixed=fixed)


def numbered_inputs(rows: int) -> dict[str, np.ndarray[Any, Any]]:
    """Rows that their token types tell from one another."""
    return {**real_inputs(rows), "token_type_ids": np.arange(rows)[:, None] + np.zeros((rows, 7), int)}


@pytest.mark.parametrize(("rows", "judged"), [(64, 16), (192, 48), (800, 128)])
def test_one_row_in_four_is_judged_by_up_to_128(rows: int, judged: int) -> None:
    signature = task_signature(SMALL, "question-answering", integer_dtype="int32")
    calibration = Calibration(numbered_inputs(rows), "real")
    (family,) = calibration.judged(signature).families
    assert family.whole and all(family.pools(n, signature.outputs[0]) for n in range(len(family.batches)))
    kept = np.concatenate([batch["token_type_ids"][:, 0] for batch in family.batches])
    used = np.concatenate([batch["token_type_ids"][:, 0] for batch in calibration.batches(signature)])
    assert len(kept) == len(set(kept)) == judged and not set(kept) & set(used)
    assert kept.max() > rows * 0.85  # from all over the file


def test_a_large_fixed_batch_is_judged_too() -> None:
    signature = task_signature(SMALL, "question-answering", integer_dtype="int32", fixed={"batch": 130})
    (family,) = Calibration(numbered_inputs(530), "real").judged(signature).families
    assert [len(batch["visual_pos"]) for batch in family.batches] == [130]


def test_full_integer_without_real_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="measures ranges on real inputs"):
        written("model", tmp_path / "out", precision="int8", full_integer=True)


def _half_of_what_is_needed_and_no_mask(rows: dict[str, Any]) -> dict[str, Any]:
    """Each row is taken twice where nothing is masked, but says nothing new the second time."""
    return {name: array[:32] for name, array in rows.items() if not name.endswith("mask")}


def _few(rows: dict[str, Any]) -> dict[str, Any]:
    return {name: array[:8] for name, array in rows.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_few, "has 8 rows; calibration needs at least 64"),
        (_half_of_what_is_needed_and_no_mask, "has 32 rows; calibration needs at least 64"),
        (lambda rows: {**rows, "attention_mask": rows["attention_mask"] * 7}, "attention_mask holds 7; a mask holds"),
        (lambda rows: {**rows, "visual_attention_mask": rows["visual_attention_mask"] * 0.5}, "visual_attention_mask holds"),
        (lambda rows: {k: v for k, v in rows.items() if k != "visual_pos"}, "missing input visual_pos"),
        (lambda rows: {**rows, "extra": rows["input_ids"]}, "holds extra, which is neither an input nor an output"),
        (lambda rows: {**rows, "visual_pos": rows["visual_pos"] * np.nan}, "visual_pos holds NaN or infinity"),
        (lambda rows: {**rows, "input_ids": rows["input_ids"] + 1000}, "it must be at least 0 and below vocab_size"),
        (lambda rows: {**rows, "input_ids": rows["input_ids"] + 2**32}, "input_ids holds .* to .*, which int32 cannot hold"),
        (lambda rows: {**rows, "visual_feats": rows["visual_feats"] * np.float32(1e30)}, "values may be at most 1e.06"),
        (lambda rows: {**rows, "visual_pos": rows["visual_pos"][:, :, :3]}, "visual_pos has shape"),
        (lambda rows: {**rows, "visual_pos": rows["visual_pos"][:9]}, "visual_pos has shape"),
    ],
)  # fmt: skip
def test_calibration_files_that_do_not_fit(change: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "real.npz"
    np.savez(file, **change(real_inputs()))
    with pytest.raises(InputError, match=message):
        read_calibration(file, task_signature(SMALL, "model", integer_dtype="int32"), InputLimits.of(SMALL))


@pytest.mark.parametrize(
    "name", ["gone.npz", "text.npz", "text.safetensors", "text.csv", "pickled.npz", "cut.npz", "damaged.npz", "one.npz"]
)
def test_calibration_files_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "sound.npz", **real_inputs())  # type: ignore[arg-type]  # numpy's own stub
    sound = bytearray((tmp_path / "sound.npz").read_bytes())
    if name.startswith("cut"):
        (tmp_path / name).write_bytes(sound[: len(sound) // 2])
    if name.startswith("damaged"):
        sound[len(sound) // 2] ^= 255
        (tmp_path / name).write_bytes(sound)
    if name.startswith("one"):
        np.save(tmp_path / "one.npy", np.zeros(3))
        (tmp_path / "one.npy").rename(tmp_path / name)
    if name.startswith("text"):
        (tmp_path / name).write_text("no arrays")
    if name.startswith("pickled"):
        np.savez(tmp_path / name, input_ids=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=name) as caught:
        read_calibration(tmp_path / name, task_signature(SMALL, "model"), InputLimits.of(SMALL))
    assert "allow_pickle" not in str(caught.value), "nobody should follow numpy's advice"
    if name.startswith("pickled"):
        assert "input_ids holds Python objects" in str(caught.value)
