"""lxmert-export converts a trained LXMERT to ONNX, TensorFlow, TFLite and TensorRT, and checks each result numerically.

This module offers every public name. A name's module, and with it its framework, is imported when the name is first used.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lxmert_export.api.artifact import load_artifact
    from lxmert_export.api.ask import ask
    from lxmert_export.api.bench import bench
    from lxmert_export.api.checkpoint import load_checkpoint, save_checkpoint
    from lxmert_export.api.engine import build_engine
    from lxmert_export.api.evaluate import evaluate
    from lxmert_export.api.export import export
    from lxmert_export.api.parity import (
        check_device_report,
        check_laws,
        check_parity,
        compare_with_baseline,
        judge_report,
        locate,
        verify,
    )
    from lxmert_export.api.predict import predict
    from lxmert_export.artifact.directory import Artifact, open_artifact
    from lxmert_export.artifact.manifest import Manifest
    from lxmert_export.benching.report import BenchReport
    from lxmert_export.engines.options import BuildOptions
    from lxmert_export.errors import (
        ArtifactError,
        CheckpointError,
        ConfigError,
        ConversionError,
        InputError,
        LxmertExportError,
        MissingExtra,
    )
    from lxmert_export.exporting.activation_ranges import lint_artifact, lint_ranges
    from lxmert_export.graphs.fp16_linter import Finding, lint_fp16
    from lxmert_export.model.lxmert import LxmertForNLVR2, LxmertForPreTraining, LxmertForQuestionAnswering, LxmertModel
    from lxmert_export.model.outputs import (
        LxmertForNLVR2Output,
        LxmertForPreTrainingOutput,
        LxmertForQuestionAnsweringOutput,
        LxmertModelOutput,
    )
    from lxmert_export.parity.cells import Cell
    from lxmert_export.parity.decisions import Decisions
    from lxmert_export.parity.divergence import Divergence, LayerDrift
    from lxmert_export.parity.figures import Figures
    from lxmert_export.parity.prediction import predicted_by_manifest, predicted_errors
    from lxmert_export.parity.report import ParityError, ParityReport, RunnerFacts
    from lxmert_export.predicting.prediction import Predicted
    from lxmert_export.runners.runner import Runner
    from lxmert_export.scoring.report import EvaluationReport
    from lxmert_export.spec.config import LxmertConfig
    from lxmert_export.spec.signature import Precision, Signature, TensorSpec, task_signature
    from lxmert_export.tokenizer.batch_encoding import BatchEncoding
    from lxmert_export.tokenizer.fast import LxmertTokenizerFast
    from lxmert_export.tokenizer.opening import load_tokenizer
    from lxmert_export.tokenizer.pure import LxmertTokenizer

__version__ = "0.1.0"

# onnxruntime 1.32 tells Microsoft of every session, on Linux, too, and its function disable_telemetry_events does not stop it;
# huggingface_hub tells versions with each download. Both look at these when they are first used. A user's own choice stays.
for _setting in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_setting, "1")

# The module of each public name.
_HOMES = {
    "lxmert_export.api.checkpoint": ("load_checkpoint", "save_checkpoint"),
    "lxmert_export.api.export": ("export",),
    "lxmert_export.api.artifact": ("load_artifact",),
    "lxmert_export.api.ask": ("ask",),
    "lxmert_export.api.bench": ("bench",),
    "lxmert_export.api.evaluate": ("evaluate",),
    "lxmert_export.api.predict": ("predict",),
    "lxmert_export.api.parity": (
        "check_parity", "verify", "judge_report", "compare_with_baseline", "check_laws", "locate", "check_device_report",
    ),
    "lxmert_export.api.engine": ("build_engine",),
    "lxmert_export.engines.options": ("BuildOptions",),
    "lxmert_export.spec.config": ("LxmertConfig",),
    "lxmert_export.model.lxmert": ("LxmertModel", "LxmertForPreTraining", "LxmertForQuestionAnswering", "LxmertForNLVR2"),
    "lxmert_export.model.outputs": (
        "LxmertModelOutput", "LxmertForPreTrainingOutput", "LxmertForQuestionAnsweringOutput", "LxmertForNLVR2Output",
    ),
    "lxmert_export.spec.signature": ("Precision", "Signature", "TensorSpec", "task_signature"),
    "lxmert_export.tokenizer.opening": ("load_tokenizer",),
    "lxmert_export.tokenizer.fast": ("LxmertTokenizerFast",),
    "lxmert_export.tokenizer.pure": ("LxmertTokenizer",),
    "lxmert_export.tokenizer.batch_encoding": ("BatchEncoding",),
    "lxmert_export.artifact.directory": ("Artifact", "open_artifact"),
    "lxmert_export.artifact.manifest": ("Manifest",),
    "lxmert_export.graphs.fp16_linter": ("Finding", "lint_fp16"),
    "lxmert_export.exporting.activation_ranges": ("lint_artifact", "lint_ranges"),
    "lxmert_export.runners.runner": ("Runner",),
    "lxmert_export.benching.report": ("BenchReport",),
    "lxmert_export.scoring.report": ("EvaluationReport",),
    "lxmert_export.predicting.prediction": ("Predicted",),
    "lxmert_export.parity.report": ("ParityReport", "ParityError", "RunnerFacts"),
    "lxmert_export.parity.cells": ("Cell",),
    "lxmert_export.parity.figures": ("Figures",),
    "lxmert_export.parity.decisions": ("Decisions",),
    "lxmert_export.parity.divergence": ("Divergence", "LayerDrift"),
    "lxmert_export.parity.prediction": ("predicted_errors", "predicted_by_manifest"),
    "lxmert_export.errors": (
        "LxmertExportError", "CheckpointError", "ConfigError", "ArtifactError", "InputError", "MissingExtra",
        "ConversionError",
    ),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
# Modules that import a library at their top, and the names of these libraries in ``extras``.
_NEEDS = {
    "lxmert_export.model.lxmert": ("TORCH",),
    "lxmert_export.graphs.fp16_linter": ("ONNX", "ONNX_IR"),
    "lxmert_export.exporting.activation_ranges": ("ONNX", "ONNX_IR", "ONNXRUNTIME"),
}

__all__ = [
    "__version__",
    *_HOME_OF,
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME_OF[name]
    if home in _NEEDS:
        extras = import_module("lxmert_export.extras")
        extras.require(name, *(getattr(extras, library) for library in _NEEDS[home]))
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
