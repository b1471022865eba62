"""The parity gate: judges an artifact by the module that it was made from, and writes its golden file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lxmert_export.artifact.directory import GOLDEN_FILE, Artifact
from lxmert_export.artifact.golden import read_golden, write_golden
from lxmert_export.artifact.precision import check_precision
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.judging.artifact import Judged, JudgingRequest, Laws
from lxmert_export.judging.held_out import HeldOut
from lxmert_export.judging.own_process import run_within
from lxmert_export.judging.pairs import report_on
from lxmert_export.option_names import option
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.report import ParityReport
from lxmert_export.parity.scores import measure_floor
from lxmert_export.progress import Progress, counted, silent
from lxmert_export.reference.tf32 import runner_of
from lxmert_export.reference.yardstick import Yardstick
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.sample_inputs import SampleInputs
from lxmert_export.spec.signature import task_signature


def pass_gate(
    artifact: Artifact,
    module: nn.Module,
    providers: Sequence[str],
    progress: Progress = silent,
    *,
    samples: SampleInputs | None = None,
) -> ParityReport:
    """Judges an artifact by the module that it was made from, and writes its golden file.

    ``samples``: real inputs, for an artifact that was calibrated for real inputs only; all others are judged on drawn inputs.
    A failed report is returned, not raised: the caller refuses the artifact.
    """
    samples = samples or artifact.drawn_inputs()
    yardstick = Yardstick(module, artifact.manifest.config, progress)
    reference = yardstick.reference(artifact.manifest.signature, samples)
    _check_finite(artifact, reference)
    judged = judge_by(yardstick, artifact, samples, providers, progress, laws="slice")
    write_golden(artifact.file(GOLDEN_FILE), samples, reference, judged.floors)
    return report_on([judged])


def _check_finite(artifact: Artifact, reference: Recording) -> None:
    """``ConversionError``: a user's own module is not finite on some family of inputs, so nothing can be compared there."""
    families = sorted(
        {family for (family, _), chunks in reference.items() if not all(np.isfinite(c).all() for c in chunks)}
    )
    if not families or artifact.manifest.signature.lxmert_task is not None:
        return
    fault = f"{artifact.name}: the module itself gives NaN or infinity in float64 on"
    if len(families) == len({family for family, _ in reference}):
        raise ConversionError(f"{fault} all inputs: look at its weights, and at what its forward divides by")
    raise ConversionError(
        f"{fault} {', '.join(families)} inputs: mend it, or leave them out with "
        f"{option('without_families', tuple(families))}, and the report will say so"
    )


def samples_for(artifact: Artifact) -> SampleInputs:
    """Returns drawn inputs or, for an artifact that was calibrated for real inputs only, those in its golden file."""
    manifest = artifact.manifest
    if artifact.is_calibrated:
        if GOLDEN_FILE not in manifest.files:
            raise ArtifactError(
                f"{artifact.path}: written with --no-parity, so it keeps no real inputs to judge it on; export it again"
            )
        return read_golden(artifact.file(GOLDEN_FILE), manifest.signature).samples
    return artifact.drawn_inputs()


def judge_by(
    yardstick: Yardstick,
    artifact: Artifact,
    samples: SampleInputs,
    providers: Sequence[str],
    progress: Progress = silent,
    *,
    laws: Laws = "none",
    time_limit: float | None = None,
) -> Judged:
    """Judges one artifact by a module, after a check that its files have the precision that its manifest says."""
    if artifact.target.facts is not None:
        check_precision(artifact)
    manifest = artifact.manifest
    reference = yardstick.reference(manifest.signature, samples)
    floors = yardstick.floors(
        manifest.signature, samples, artifact.computed_precision, manifest.options.get("arithmetic")
    )
    return run_within(JudgingRequest(artifact, samples, reference, floors, providers, laws=laws), time_limit, progress)


def answer_held_out(
    module: nn.Module, config: LxmertConfig, questions: HeldOut, progress: Progress = silent
) -> HeldOut:
    """Returns held-out questions with a module's float64 answers, and its noise floor in each of their precisions."""
    signature, limits = task_signature(config, "question-answering"), InputLimits.of(config)

    def answers(precision: str) -> list[NDArray[np.generic]]:
        with runner_of(module, signature, limits, precision) as runner:
            advance = counted(progress, runner.name, questions.batch_count(signature))
            return questions.ask(runner.run, signature, advance)

    reference = answers("fp64")
    floors = [measure_floor(reference, answers(precision), precision).rms for precision in questions.precisions]
    return replace(questions, reference=np.concatenate(reference).astype(np.float64), floors=np.array(floors))
