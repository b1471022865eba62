"""Objects and words that are all zeros, as padding is, under biases that are all zeros: no target divides 0 by 0."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import converters.to_tensorflow
import converters.to_tflite
import lxmert_export as lx
from lxmert_export.errors import ConversionError
from lxmert_export.parity.report import ParityError
from lxmert_export.spec.signature import Precision, Task
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY, lively_model


def without_biases() -> Any:
    model = lively_model("question-answering", TINY)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    return model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written") / "saved_model"


@pytest.fixture
def written_once(place: Path) -> Iterator[None]:
    """What is written with TensorFlow: with one signature, which the others are functions of, and for TFLite's converter once.

    The converter reads the same float32 model whatever it makes of it.
    """
    write = converters.to_tflite._write_saved_model

    def write_once(*arguments: Any) -> Path:
        if not place.exists():
            shutil.copytree(write(*arguments), place)
        return place

    served = converters.to_tensorflow.SIGNATURES[:1]
    save = partial(converters.to_tensorflow.convert_to_saved_model, served=served)
    with (
        mock.patch.object(converters.to_tflite, "_write_saved_model", write_once),
        mock.patch.object(converters.to_tensorflow, "SIGNATURES", served),
        mock.patch.object(converters.to_tensorflow, "convert_to_saved_model", save),
    ):
        yield


@pytest.mark.usefixtures("written_once")
@pytest.mark.parametrize(
    ("target", "precision"),
    [("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "bf16"), ("tensorflow", "fp32"), ("tensorflow", "fp16"),
     ("tflite", "fp32"), ("tflite", "fp16"), ("tflite", "int8")],
)  # fmt: skip
def test_every_target_passes_on_zeros_without_biases(target: str, precision: Precision, tmp_path: Path) -> None:
    artifact = lx.export(target, without_biases(), tmp_path / "out", precision=precision)
    assert artifact.report is not None and artifact.report.passed
    assert "zero-padded" in {cell.family for cell in artifact.report.cells}
    assert lx.verify(artifact.path).passed


@pytest.mark.usefixtures("written_once")
def test_the_gate_sees_scalars_in_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TFLite's own float16 conversion stores LayerNorm's eps as 0."""

    def as_tflite_does_it(converter: Any, *arguments: Any) -> None:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    monkeypatch.setattr(converters.to_tflite, "_quantize", as_tflite_does_it)
    monkeypatch.setattr(converters.to_tflite, "store_weights_in_half", lambda content: content)
    with pytest.raises(ParityError, match="zero-padded inputs: NaN or infinity"):
        lx.export("tflite", without_biases(), tmp_path / "out", precision="fp16")


@pytest.mark.parametrize("task", ["question-answering", "pretraining"])
def test_matrices_alone_are_in_half_precision(task: Task, exports: Exports) -> None:
    """Scalars and biases are not; nor is the bias of the vocabulary, beside a decoder that shares the embedding's table."""
    artifact = exports.lively("tflite", task, TINY, precision="fp16", parity=task != "pretraining")
    details = Interpreter(model_path=str(artifact.file("model.tflite"))).get_tensor_details()
    halves = [tensor for tensor in details if tensor["dtype"] == np.float16]
    assert halves and all(len(tensor["shape"]) >= 2 for tensor in halves)
    scalars = [tensor for tensor in details if tensor["dtype"] == np.float32 and not len(tensor["shape"])]
    assert scalars, "LayerNorm's eps is among them"


def test_a_weight_beyond_half_precision_is_named(tmp_path: Path) -> None:
    model = lively_model("question-answering", TINY)
    model.lxmert.pooler.weight.data[3, 4] = 1e5
    with pytest.raises(ConversionError, match="pooler.*does not fit float16: its largest magnitude is 1e"):
        lx.export("tflite", model, tmp_path / "out", precision="fp16")
    assert not any(tmp_path.iterdir())
