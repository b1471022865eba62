"""Options in one value: what does not fit together is refused by name, and nothing that was asked for is ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import lxmert_export as lx
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.exporting.options import ExportOptions
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.onnx.test_converter import RETRIEVAL, Retrieval

pytestmark = pytest.mark.quick

SIGNATURE = task_signature(TINY, "model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "coreml"}, "unknown target 'coreml'; choose from onnx, tensorflow, tflite"),
        ({"target": "tensorrt"}, "unknown target 'tensorrt'; .*; lx.build_engine builds engines"),  # which lx.build_engine builds
        ({"target": lively_model("model", TINY)}, "unknown target of type LxmertModel; choose from onnx"),  # swapped arguments
        ({"target": "tflite", "precision": "bf16"}, "target tflite has no precision 'bf16'"),
        ({"target": "onnx", "io_dtype": "float64"}, "unknown io_dtype 'float64'; choose from float32, float16"),
        ({"target": "tflite", "opset": 20, "io_dtype": "float16"}, "io_dtype, opset: not an option of fp32 tflite"),
        ({"target": "onnx", "fp32_islands": "auto"}, "fp32_islands: not an option of fp32 onnx"),
        ({"target": "tflite", "precision": "fp16", "full_integer": True}, "full_integer: not an option of fp16 tflite"),
        ({"target": "tflite", "precision": "int8", "calibration": "x.npz"}, "calibration: only full_integer uses it"),
        ({"target": "onnx", "precision": "fp16", "fp32_islands": "auto", "parity": False}, "leave parity=False out"),
        ({"target": "onnx", "keep_failed": "x", "parity": False}, "keep_failed: only the parity gate refuses artifacts"),
        ({"target": "onnx", "attention": "operator", "opset": 22}, "needs opset 23 or later"),
        ({"target": "onnx", "signature": SIGNATURE, "hidden_states": True}, "hidden_states: the given signature contains"),
        ({"target": "onnx", "signature": SIGNATURE, "fixed": {"batch": 1}, "io_dtype": "float16"}, "fixed, io_dtype: "),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError, match=message) as caught:
        ExportOptions(**options)
    assert "\n" not in str(caught.value)


class Own(nn.Module):
    """A user's module around a backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = lively_model("model", TINY)


@pytest.mark.parametrize(
    ("checkpoint", "options", "message"),
    [
        ("demo", {"config": TINY}, "config: demo is a checkpoint, which has its own config; leave it out"),
        (
            lively_model("model", TINY),
            {"revision": "main"},
            "revision: only for a checkpoint, not for a module in memory; leave it out",
        ),
        (
            lively_model("model", TINY),
            {"num_attention_heads": 2},
            "num_attention_heads: only for a checkpoint",
        ),
        (lively_model("model", TINY), {"task": "pretraining"}, "task pretraining: the task of LxmertModel is model"),
        (Own(), {"task": "model", "signature": SIGNATURE}, "task model: the task of Own is none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else type(value).__name__,
)
def test_what_the_source_cannot_heed_is_refused(
    checkpoint: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match=message):
        lx.export("onnx", checkpoint, tmp_path / "out", **options)
    assert not any(tmp_path.iterdir())


def test_what_is_said_twice_and_is_the_same_is_heeded(tmp_path: Path) -> None:
    model = lively_model("model", TINY)
    assert lx.export("onnx", model, tmp_path / "out", task="model", parity=False).manifest.task == "model"


def test_no_fixed_axes_are_as_good_as_none() -> None:
    options = ExportOptions("onnx", signature=task_signature(TINY, "model"), fixed={})
    assert options.fixed is None and options == ExportOptions("onnx", signature=task_signature(TINY, "model"))


@pytest.mark.tensorflow
@pytest.mark.parametrize("target", ["tensorflow", "tflite"])
def test_a_module_of_your_own_is_refused_by_targets_that_take_none(target: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConversionError, match=f"module of your own: target {target} takes the classes .* export yours to onnx"
    ):
        lx.export(target, Retrieval().eval(), tmp_path / "out", signature=RETRIEVAL)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_name_of_the_output_is_no_default(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match="is the current directory, as an empty name is, too"):
        lx.export("onnx", lively_model("model", TINY), "", parity=False, overwrite=overwrite)
    assert not any(tmp_path.iterdir())
