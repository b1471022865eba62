"""What the text of a TensorRT-RTX plan tells of its products, and what is done if it tells nothing or something else."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from lxmert_export.api.inspect import inspect_artifact, summary_rows
from lxmert_export.artifact.directory import ENGINE_FILE
from lxmert_export.engines import library
from lxmert_export.engines.devices import resolve
from lxmert_export.engines.gpus import Gpu
from lxmert_export.engines.plan_text import mismatch, products_of
from lxmert_export.errors import ConversionError
from lxmert_export.exporting import engine as building
from parity_tests.fixtures.exports import Exports
from parity_tests.fixtures.random_models import TINY

# Lines as TensorRT-RTX 1.7.1.116 writes them, shortened.
LINES = (
    b'  tensor={ alignment=128 dims={ 96 } name="__mye1" offset=8 stride_order={ 0 } strides={ 1 } type=half }\n'
    b'  tensor={ alignment=128 dims={ 96 } name="__mye2" offset=8 stride_order={ 0 } strides={ 1 } type=half }\n'
    b'  tensor={ alignment=128 dims={ 1 96 } name="__mye3" offset=16 stride_order={ 1 0 } strides={ 96 1 } type=float }\n'
    b'  runtime_fusion={ name=__myl_FcAdd input_args={ "__mye1" "__mye2^deref" "__mye3" } output_args={ "__o" } stream=0 '
    b'layers="[ONNX Layer: a/MatMul]" backbone=gemm }\n'
    b'  runtime_fusion={ name=__myl_Fc input_args={ "__mye3" "unknown" } output_args={ "__o" } backbone=gemm }\n'
    b'  runtime_fusion={ name=__myl_Fc input_args={ "other" "unknown" } output_args={ "__o" } backbone=gemm }\n'
    b'  runtime_fusion={ name=__myl_Conv input_args={ "__mye1" "__mye2" } output_args={ "__o" } backbone=conv }\n'
)


def test_products_are_counted_by_the_type_of_their_factors() -> None:
    assert products_of(b"\x00binary\xff" + LINES) == {"fp16": 1, "fp32": 1}
    for unreadable in (b"", b"\x00" * 64, LINES.replace(b"backbone", b"spine"), LINES.replace(b"type=", b"kind=")):
        assert products_of(unreadable) == {}


def test_a_plan_that_multiplies_otherwise_than_was_parsed_is_told() -> None:
    assert mismatch({"fp16": 25}, {"fp16": 98, "fp32": 1}) is None and mismatch({}, {"fp16": 98}) is None
    assert mismatch({"fp16": 25, "fp32": 3}, {"fp16": 98}) == (
        "the engine's file tells of products 3 in fp32, and TensorRT parsed fp16 alone: verify it on its GPU"
    )


@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_engine_tells_its_precision_itself(precision: str, exports: Exports) -> None:
    made = exports.engine(exports.lively("onnx", "question-answering", TINY, precision=precision))
    found = made.manifest.options["build"]["plan_matmuls"]
    assert set(found) == {precision} and products_of(made.file(ENGINE_FILE).read_bytes()) == found
    rows = dict(summary_rows(inspect_artifact(made.path)))
    assert rows["products in the file"] == f"{found[precision]} in {precision}"


@pytest.mark.tensorrt
def test_a_mismatch_is_told_and_is_no_error(
    exports: Exports, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    import lxmert_export as lx

    graph = exports.lively("onnx", "question-answering", TINY, precision="fp16")
    real = building.convert_to_tensorrt
    monkeypatch.setattr(building, "convert_to_tensorrt", lambda *a, **k: replace(real(*a, **k), plan={"fp32": 9}))
    with caplog.at_level(logging.WARNING):
        made = lx.build_engine(graph.path, tmp_path / "engine")
    assert "the engine's file tells of products 9 in fp32" in caplog.text
    assert (
        "9 in fp32: the engine's file tells" in dict(summary_rows(inspect_artifact(made.path)))["products in the file"]
    )


def test_a_card_that_rtx_refuses_is_told_before_a_build_with_what_to_use_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = resolve("this-gpu", detect=lambda: (Gpu((9, 0), "NVIDIA H200", "580.159.04"),))
    with pytest.raises(ConversionError) as told:
        library.open_builder(device)
    message = str(told.value)
    assert message.startswith(
        "--target this-gpu: TensorRT-RTX does not run on this GPU (compute capability 9.0), and classic TensorRT, which does, is "
        "not installed (pip install "
    )
    assert (
        message.endswith("run the ONNX artifact @cuda instead, made with --optimize-for cuda") and "\n" not in message
    )
