"""The parity gate: the canonical model in float64 as reference, at the artifact's precision as floor, and the verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lxmert_export.artifact import GOLDEN_FILE, Artifact
from lxmert_export.config import LxmertConfig
from lxmert_export.errors import ArtifactError
from lxmert_export.golden import read_golden, write_golden
from lxmert_export.graph_facts import check_precision
from lxmert_export.held_out import HeldOut
from lxmert_export.isolating import Request, run_within
from lxmert_export.judging import Judged, Progress, counted, record_runner, silent
from lxmert_export.matrix import report_on
from lxmert_export.parity.cells import Floors
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.report import ParityReport
from lxmert_export.parity.scores import EPS, int8_floor, measure_floor
from lxmert_export.recast import with_rounded_weights
from lxmert_export.runners.runner import InputLimits
from lxmert_export.runners.torch_module import DTYPES, TorchRunner
from lxmert_export.sample_inputs import SampleInputs, sample_inputs
from lxmert_export.signature import Precision, Signature, task_signature


def pass_gate(
    artifact: Artifact,
    module: nn.Module,
    providers: Sequence[str],
    progress: Progress = silent,
    *,
    samples: SampleInputs | None = None,
) -> ParityReport:
    """Judges an artifact against the module it was made from, and writes its golden file.

    ``samples`` are real inputs, for an artifact that was calibrated for such alone; all others are judged on drawn ones. The
    report is returned whatever it says; the caller refuses an artifact that did not pass.
    """
    samples = samples or sample_inputs(artifact.manifest.signature, artifact.manifest.config)
    yardstick = Yardstick(module, artifact.manifest.config, progress)
    judged = judge_by(yardstick, artifact, samples, providers, progress)
    reference = yardstick.reference(artifact.manifest.signature, samples)
    write_golden(artifact.file(GOLDEN_FILE), samples, reference, judged.floors)
    return report_on([judged])


def samples_for(artifact: Artifact) -> SampleInputs:
    """Drawn inputs; of an artifact that was calibrated for real ones, those that its golden file keeps."""
    manifest = artifact.manifest
    if artifact.is_calibrated:
        if GOLDEN_FILE not in manifest.files:
            raise ArtifactError(
                f"{artifact.path}: written with --no-parity, so the real inputs that it is right for are lost; export it again"
            )
        return read_golden(artifact.file(GOLDEN_FILE), manifest.signature).samples
    return sample_inputs(manifest.signature, manifest.config)


class Yardstick:
    """A module's float64 outputs and noise floors, each computed once for all that share inputs and outputs."""

    def __init__(self, module: nn.Module, config: LxmertConfig, progress: Progress = silent) -> None:
        self.module, self.config = module, config
        self._progress = progress
        self._known: dict[Hashable, Any] = {}

    def reference(self, signature: Signature, samples: SampleInputs) -> Recording:
        """The float64 outputs."""

        def run() -> Recording:
            return run_reference(self.module, signature, self.config, samples, self._progress)

        return cast(Recording, self._once(("reference", *_alike(signature, samples)), run))

    def floors(
        self, signature: Signature, samples: SampleInputs, precision: Precision, arithmetic: str | None = None
    ) -> Floors:
        """The noise floors of a precision; ``arithmetic`` is what it computes in, where its weights alone are of it."""

        def run() -> Floors:
            reference = self.reference(signature, samples)
            return run_floors(
                self.module,
                signature,
                self.config,
                samples,
                reference,
                precision,
                self._progress,
                arithmetic=arithmetic,
            )

        return cast(Floors, self._once(("floors", precision, arithmetic, *_alike(signature, samples)), run))

    def _once(self, key: Hashable, run: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = run()
        return self._known[key]


def _alike(signature: Signature, samples: SampleInputs) -> tuple[Hashable, ...]:
    """What two signatures must share to have the same reference: not the width of ids, nor the dtype of outputs."""
    inputs = tuple((s.name, s.axes, s.dtype if "float" in s.dtype else "integer") for s in signature.inputs)
    digest = hashlib.sha256()
    for family in samples.families:
        digest.update(family.name.encode())
        for batch in family.batches:
            for array in batch.values():
                digest.update(array.astype(np.float64).tobytes())
    return inputs, tuple(spec.name for spec in signature.outputs), digest.digest()


def judge_by(
    yardstick: Yardstick,
    artifact: Artifact,
    samples: SampleInputs,
    providers: Sequence[str],
    progress: Progress = silent,
    *,
    laws: bool = False,
    time_limit: float | None = None,
) -> Judged:
    """Judges one artifact by a module, once its files are found to be of the precision that its manifest says."""
    if not artifact.is_engine:
        check_precision(artifact)
    manifest = artifact.manifest
    reference = yardstick.reference(manifest.signature, samples)
    floors = yardstick.floors(manifest.signature, samples, manifest.precision, manifest.options.get("arithmetic"))
    return run_within(Request(artifact, samples, reference, floors, providers, laws=laws), time_limit, progress)


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
    *,
    arithmetic: str | None = None,
) -> Floors:
    """The noise floor of a precision for every output and family: the module's own error in that precision.

    ``arithmetic`` is what it computes in, where its weights alone are of the precision. int8's floor is not measured, and
    fp16's where the module overflows is bf16's, brought to fp16's step: an artifact with more float32 islands need not overflow.
    """
    if precision == "int8":
        return {key: int8_floor(chunks) for key, chunks in reference.items()}
    arithmetic = arithmetic or precision
    if arithmetic != precision:
        module = with_rounded_weights(module, DTYPES[precision])
    limits = InputLimits.of(config)

    def floors_of(arithmetic: str) -> Floors:
        computed = record_runner(
            lambda: TorchRunner(module, signature, limits, arithmetic), samples, signature, progress
        )
        return {key: measure_floor(chunks, computed[key], arithmetic) for key, chunks in reference.items()}

    floors = floors_of(arithmetic)
    if arithmetic == "fp16" and not all(np.isfinite(floor.rms) for floor in floors.values()):
        return _floors_without_range(floors, floors_of("bf16"))
    return floors


def _floors_without_range(floors: Floors, of_bf16: Floors) -> Floors:
    """fp16's floors, where the module leaves fp16's range: what its precision alone would cost.

    bf16 has float32's range and rounds as fp16 does, to fewer digits: rounding errors grow with the step.
    """
    step = EPS["fp16"] / EPS["bf16"]
    return {
        key: floor if np.isfinite(floor.rms) else replace(of_bf16[key], rms=of_bf16[key].rms * step)
        for key, floor in floors.items()
    }


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
