"""The parity gate: the canonical model in float64 as reference, at the artifact's precision as floor, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lxmert_export.artifact import GOLDEN_FILE, Artifact
from lxmert_export.config import LxmertConfig
from lxmert_export.errors import ConversionError
from lxmert_export.golden import write_golden
from lxmert_export.held_out import HeldOut
from lxmert_export.judging import Judged, Progress, counted, judge_artifact, record_runner, report_on, silent
from lxmert_export.onnx_file import read_onnx_facts
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.report import Floors, ParityReport
from lxmert_export.parity.scores import measure_floor
from lxmert_export.runners.opening import ONNX_FILE
from lxmert_export.runners.runner import InputLimits
from lxmert_export.runners.torch_module import TorchRunner
from lxmert_export.sample_inputs import SampleInputs, sample_inputs
from lxmert_export.signature import Precision, Signature, task_signature


def pass_gate(
    artifact: Artifact, module: nn.Module, providers: Sequence[str], progress: Progress = silent
) -> ParityReport:
    """Judges an artifact against the module it was made from, and writes its golden file.

    The report is returned whatever it says; the caller refuses an artifact that did not pass.
    """
    judged, samples, reference = _judge(artifact, module, providers, progress)
    write_golden(artifact.file(GOLDEN_FILE), samples, reference, judged.floors)
    return report_on([judged], samples)


def check_against_module(
    artifacts: Sequence[Artifact], module: nn.Module, providers: Sequence[str], progress: Progress = silent
) -> ParityReport:
    """Judges artifacts of one task against a module in float64, and every pair of them against each other."""
    results = [_judge(artifact, module, providers, progress) for artifact in artifacts]
    return report_on([judged for judged, _, _ in results], results[0][1])


def _judge(
    artifact: Artifact, module: nn.Module, providers: Sequence[str], progress: Progress
) -> tuple[Judged, SampleInputs, Recording]:
    check_precision(artifact)
    manifest = artifact.manifest
    samples = sample_inputs(manifest.signature, manifest.config)
    reference = run_reference(module, manifest.signature, manifest.config, samples, progress)
    floors = run_floors(module, manifest.signature, manifest.config, samples, reference, manifest.precision, progress)
    return judge_artifact(artifact, samples, reference, floors, providers, progress=progress), samples, reference


def run_reference(
    module: nn.Module, signature: Signature, config: LxmertConfig, samples: SampleInputs, progress: Progress = silent
) -> Recording:
    """The float64 outputs of a module."""
    limits = InputLimits.of(config)
    return record_runner(lambda: TorchRunner(module, signature, limits, "fp64"), samples, signature, progress)


def run_floors(
    module: nn.Module,
    signature: Signature,
    config: LxmertConfig,
    samples: SampleInputs,
    reference: Recording,
    precision: Precision,
    progress: Progress = silent,
) -> Floors:
    """The noise floor of a precision for every output and family: the module's own error in that precision."""
    limits = InputLimits.of(config)
    computed = record_runner(lambda: TorchRunner(module, signature, limits, precision), samples, signature, progress)
    return {key: measure_floor(chunks, computed[key], precision) for key, chunks in reference.items()}


def answer_held_out(
    module: nn.Module, config: LxmertConfig, questions: HeldOut, progress: Progress = silent
) -> HeldOut:
    """Held-out questions with a module's float64 answers to them, and its floors in all of their precisions."""
    signature, limits = task_signature(config, "question-answering"), InputLimits.of(config)

    def answers(precision: str) -> list[NDArray[np.generic]]:
        with TorchRunner(module, signature, limits, precision) as runner:
            advance = counted(progress, runner.name, questions.batch_count(signature))
            return questions.ask(runner.run, signature, advance)

    reference = answers("fp64")
    floors = [measure_floor(reference, answers(precision), precision).rms for precision in questions.precisions]
    return replace(questions, reference=np.concatenate(reference).astype(np.float64), floors=np.array(floors))


def check_precision(artifact: Artifact) -> None:
    """``ConversionError`` unless every matmul of the file computes in the manifest's precision, its weights stored so."""
    precision = artifact.manifest.precision
    facts = read_onnx_facts(artifact.file(ONNX_FILE))
    if set(facts.matmuls) != {precision} or set(facts.matmul_weights) != {precision}:
        raise ConversionError(
            f"{artifact.path}: called {precision}, but its matmuls compute in {facts.matmuls} over weights stored in "
            f"{facts.matmul_weights}"
        )
