"""The parity gate: the canonical model in float64 as reference, at the artifact's precision as floor, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lxmert_export.artifact import GOLDEN_FILE, Artifact
from lxmert_export.config import LxmertConfig
from lxmert_export.errors import ConversionError
from lxmert_export.golden import write_golden
from lxmert_export.judging import Judged, Progress, judge_artifact, pair_cells, record_runner, silent
from lxmert_export.onnx_file import read_onnx_facts
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.report import Floors, ParityReport
from lxmert_export.parity.scores import measure_floor
from lxmert_export.runners.opening import ONNX_FILE
from lxmert_export.runners.runner import InputLimits
from lxmert_export.runners.torch_module import TorchRunner
from lxmert_export.sample_inputs import SampleInputs, sample_inputs
from lxmert_export.signature import Precision, Signature


def pass_gate(
    artifact: Artifact, module: nn.Module, providers: Sequence[str], progress: Progress = silent
) -> ParityReport:
    """Judges an artifact against the module it was made from, and writes its golden file.

    The report is returned whatever it says; the caller refuses an artifact that did not pass.
    """
    judged, samples, reference = _judge(artifact, module, providers, progress)
    write_golden(artifact.file(GOLDEN_FILE), samples, reference, judged.floors)
    return ParityReport(tuple(judged.cells), samples.not_run)


def check_against_module(
    artifacts: Sequence[Artifact], module: nn.Module, providers: Sequence[str], progress: Progress = silent
) -> ParityReport:
    """Judges artifacts of one task against a module in float64, and every pair of them against each other."""
    results = [_judge(artifact, module, providers, progress) for artifact in artifacts]
    judged = [one for one, _, _ in results]
    cells = [cell for one in judged for cell in one.cells]
    return ParityReport(tuple(cells + pair_cells(judged)), results[0][1].not_run)


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


def check_precision(artifact: Artifact) -> None:
    """``ConversionError`` unless every matmul of the file computes in the manifest's precision, its weights stored so."""
    precision = artifact.manifest.precision
    facts = read_onnx_facts(artifact.file(ONNX_FILE))
    if set(facts.matmuls) != {precision} or set(facts.matmul_weights) != {precision}:
        raise ConversionError(
            f"{artifact.path}: called {precision}, but its matmuls compute in {facts.matmuls} over weights stored in "
            f"{facts.matmul_weights}"
        )
