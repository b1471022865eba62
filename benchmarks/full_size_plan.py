"""What `make parity` covers: which artifacts of which task, and how each is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lxmert_export.spec.signature import Task


@dataclass(frozen=True)
class Export:
    """One kind of artifact: the command that writes it, and the artifact it is made from (None: the checkpoint)."""

    name: str
    command: str
    options: tuple[str, ...] = ()
    origin: str | None = None

    def arguments(self, directory: Path, checkpoint: Path) -> list[str]:
        """Returns the arguments with which Python writes the artifact into ``directory / name``."""
        source, gate = (checkpoint, ["--no-parity"]) if self.origin is None else (directory / self.origin, [])
        options = [*self.options, *gate, "--overwrite"]
        return ["-m", "lxmert_export.cli", self.command, str(source), "-o", str(directory / self.name), *options]


# Full-integer TFLite and int8 ONNX are left out: they are accurate for real inputs only, and a random network has none.
EXPORTS = (
    Export("onnx-fp32", "onnx"),
    Export("onnx-fp16", "onnx", ("--fp16",)),
    Export("onnx-bf16", "onnx", ("--bf16",)),
    Export("saved-model-fp32", "tensorflow"),
    Export("saved-model-fp16", "tensorflow", ("--fp16",)),
    Export("keras-fp32", "tensorflow", ("--format", "keras")),
    Export("tflite-fp32", "tflite"),
    Export("tflite-fp16", "tflite", ("--fp16",)),
    Export("tflite-int8", "tflite", ("--int8",)),
    Export("tensorrt-fp32", "tensorrt", origin="onnx-fp32"),
    Export("tensorrt-fp16", "tensorrt", origin="onnx-fp16"),
    Export("tensorrt-bf16", "tensorrt", origin="onnx-bf16"),
)


def kinds_named(*names: str) -> tuple[Export, ...]:
    """Returns the kinds with these names, in the order in which they are made."""
    assert set(names) <= {kind.name for kind in EXPORTS}, names
    return tuple(kind for kind in EXPORTS if kind.name in names)


# Question answering in every kind; the other tasks in ONNX (float32 and a half precision) and TensorFlow.
PLAN: dict[Task, tuple[Export, ...]] = {
    "question-answering": EXPORTS,
    "model": kinds_named("onnx-fp32", "onnx-fp16", "saved-model-fp32"),
    "pretraining": kinds_named("onnx-fp32", "onnx-bf16", "keras-fp32"),
    "nlvr2": kinds_named("onnx-fp32", "onnx-bf16", "saved-model-fp32"),
}


def targets_that_must_pass(kinds: Sequence[Export]) -> list[str]:
    """Returns the targets of some kinds that a CPU can run; without a GPU, an engine is built but not run."""
    return sorted({kind.command for kind in kinds} - {"tensorrt"})
