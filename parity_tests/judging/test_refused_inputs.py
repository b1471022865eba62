"""Inputs that a model would answer plausibly, and wrongly: every runner refuses them, or warns of them, by name."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import lxmert_export as lx
from lxmert_export.errors import InputError
from lxmert_export.spec.inputs import InputLimits, prepare_inputs
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_inputs

SIGNATURE, LIMITS = task_signature(TINY, "question-answering"), InputLimits.of(TINY)


def given(**changes: Any) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in lively_inputs(TINY).items()} | changes


def filled(name: str, value: float) -> dict[str, Any]:
    array = given()[name].astype(np.float64 if name.startswith("visual") else np.int64)
    array[1, 1] = value
    return given(**{name: array})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (filled("visual_feats", np.nan), "visual_feats holds NaN or infinity: .*allow_nonfinite=True"),
        (filled("visual_pos", -np.inf), "visual_pos holds NaN or infinity"),
        (filled("visual_attention_mask", np.nan), "visual_attention_mask holds NaN or infinity"),
        (filled("attention_mask", 255), r"attention_mask holds 255; a mask holds 1 .* give \(mask > 0\)"),
        (filled("attention_mask", 2), "attention_mask holds 2; a mask"),
        (filled("attention_mask", -1), "attention_mask holds -1; a mask"),
        (
            filled("visual_attention_mask", -10000.0),
            r"visual_attention_mask holds -10000; .*\(mask == 0\) if it is to be",
        ),
        (filled("visual_attention_mask", 0.5), "visual_attention_mask holds 0.5; a mask"),
    ],
)
def test_it_is_refused_by_name(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_inputs(inputs, SIGNATURE, LIMITS)


@pytest.mark.parametrize(
    ("target", "precision"),
    [("onnx", "fp32"), pytest.param("tensorflow", "fp32", marks=pytest.mark.tensorflow),
     pytest.param("tflite", "int8", marks=pytest.mark.tensorflow)],
)  # fmt: skip
def test_every_runtime_refuses_what_is_not_finite_unless_it_is_meant(
    target: str, precision: str, exports: Exports
) -> None:
    artifact = exports.lively(target, "question-answering", TINY, precision=precision)
    with lx.load_artifact(artifact.path) as runner:
        with pytest.raises(InputError, match="visual_feats holds NaN or infinity"):
            runner.run(filled("visual_feats", np.nan))
        answers = runner.run(filled("visual_feats", np.nan), allow_nonfinite=True)
    assert answers["question_answering_score"].shape == (3, TINY.num_qa_labels)


@pytest.mark.parametrize("change", [
    lambda tensor: tensor.requires_grad_() if tensor.is_floating_point() else tensor,
    lambda tensor: tensor.bfloat16() if tensor.is_floating_point() else tensor.int(),
    lambda tensor: tensor.tolist(),
    lambda tensor: tensor.transpose(0, 1).contiguous().transpose(0, 1),
], ids=["grad", "bfloat16", "lists", "strides"])  # fmt: skip
def test_tensors_and_lists_are_taken_as_they_are(change: Any) -> None:
    tensors = lively_inputs(TINY)
    wanted = prepare_inputs(tensors, SIGNATURE, LIMITS)
    found = prepare_inputs({name: change(tensor.clone()) for name, tensor in tensors.items()}, SIGNATURE, LIMITS)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=2**-8)  # half a step of bfloat16


@pytest.mark.parametrize("inputs", [None, [1], np.zeros(3)])
def test_what_is_no_dictionary_is_refused(inputs: Any) -> None:
    with pytest.raises(InputError, match="inputs are a dictionary of arrays by name, not"):
        prepare_inputs(inputs, SIGNATURE, LIMITS)


def test_none_is_left_out() -> None:
    bare = {name: value for name, value in given().items() if "mask" not in name and "type" not in name}
    wanted = prepare_inputs(bare, SIGNATURE, LIMITS)
    found = prepare_inputs({**bare, "attention_mask": None, "token_type_ids": None}, SIGNATURE, LIMITS)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    with pytest.raises(InputError, match="missing input visual_feats"):
        prepare_inputs({**bare, "visual_feats": None}, SIGNATURE, LIMITS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3, 7, dtype=torch.long, device="meta"), "input_ids is a meta tensor"),
        (torch.zeros(3, 7, dtype=torch.long).to_sparse(), "input_ids is a sparse tensor"),
        ([[1, 2, 3], [4, 5]], "input_ids holds lists of different lengths: pad them"),
    ],
)
def test_what_is_no_array_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_inputs(given(input_ids=value), SIGNATURE, LIMITS)


def test_boxes_in_pixels_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="visual_pos holds 0.* to 640; boxes are shares of the picture's size"):
        prepare_inputs(filled("visual_pos", 640), SIGNATURE, LIMITS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_inputs(filled("visual_pos", 1.005), SIGNATURE, LIMITS)
        wide = TINY.replace(visual_pos_dim=6)
        boxes = np.full((3, 5, 6), 640.0)
        prepare_inputs(given(visual_pos=boxes), task_signature(wide, "question-answering"), LIMITS)
