"""Compares every runner with every other: which pairs are comparable, the cells of all pairs, and one report on all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.manifest import Manifest
from lxmert_export.errors import ArtifactError, BuiltNotRun, ConversionError, InputError, MissingExtra, RuntimeFailed
from lxmert_export.judging.artifact import Judged, artifact_facts
from lxmert_export.parity.cells import REFERENCE, Cell, Status, judge_pair
from lxmert_export.parity.report import ParityReport, RunnerFacts
from lxmert_export.parity.scores import THRESHOLD
from lxmert_export.spec.sample_inputs import Family, SampleInputs
from lxmert_export.spec.signature import Precision
from lxmert_export.spec.weight_names import network_differences, same_network

TRANSFORMERS = "transformers"
# The runners that can be named beside artifacts, and the precision in which each computes (None: float64).
NAMED_RUNNERS: dict[str, Precision | None] = {
    "canonical-fp64": None,
    "canonical-fp32": "fp32",
    "canonical-fp16": "fp16",
    "canonical-bf16": "bf16",
    TRANSFORMERS: "fp32",
}


def judge_each(
    artifacts: Sequence[Artifact], judge_one: Callable[[Artifact], Judged], *, beside: bool = False
) -> tuple[list[Judged], list[RunnerFacts]]:
    """Judges artifacts one after the other. One of several that fails does not stop the others.

    Returns the judged artifacts, and the facts of those that were not judged:

    engine without a GPU                     not judged: ``built-not-run``
    runtime is not installed                 not judged: ``skipped``
    error while running                      judged, with a cell that FAILs
    error while running, nothing else judged the error is raised, unless the runtime crashed or timed out (FAIL)

    ``beside``: whether other runners are judged, too. If no artifact is judged and none of these, the first error is raised.
    """
    judged, others, errors = [], [], []
    for artifact in artifacts:
        try:
            judged.append(judge_one(artifact))
        except (BuiltNotRun, MissingExtra) as error:
            status: Status = "skipped" if isinstance(error, MissingExtra) else "built-not-run"
            others.append(replace(artifact_facts(artifact), not_judged=status, reason=str(error)))
            errors.append(error)
        except (ArtifactError, ConversionError) as error:
            if len(artifacts) == 1 and not beside and not isinstance(error, RuntimeFailed):
                raise
            judged.append(failed(artifact, str(error)))
    if not judged and not beside:
        raise errors[0]
    return judged, others


def failed(artifact: Artifact, reason: str) -> Judged:
    """Returns the result for an artifact that could not be run to its end: one cell that FAILs."""
    cell = Cell(
        artifact.name, REFERENCE, "every output", "all", "native", "FAIL", reason,
        score=None, threshold=THRESHOLD, error_rms=None, error_max=None, floor=None, reference_rms=None, samples=0, values=0,
    )  # fmt: skip
    signature = artifact.manifest.signature
    return Judged(artifact_facts(artifact), signature, SampleInputs((), ()), (cell,), recording={}, floors={})


def report_on(judged: Sequence[Judged], not_judged: Sequence[RunnerFacts] = ()) -> ParityReport:
    """Returns one report on runners that were each judged on their own inputs: their cells, all pairs' cells, and decisions."""
    cells = [cell for one in judged for cell in one.cells]
    apart = [
        f"{one.name} and {other.name}: not compared: a calibrated model is right only for inputs like its calibration's"
        for one, other in combinations(judged, 2)
        if one.recording and other.recording and not _shared_families(one, other)
    ]
    return ParityReport(
        tuple(cells + pair_cells(judged)),
        tuple(dict.fromkeys(family for one in judged for family in one.not_run)),
        (
            *apart,
            *(
                f"{one.name}: computed by the emulator: {one.facts.device} has no kernels for its operators in "
                f"{one.facts.precision}"
                for one in judged
                if one.is_emulated_alone
            ),
            *(f"{one.name}: {setting}" for one in judged for setting in one.facts.settings),
            *(f"{prediction.runner}: {prediction}" for one in judged for prediction in one.predictions),
        ),
        decisions=tuple(decisions for one in judged for decisions in one.decisions),
        not_run={one.name: one.not_run for one in judged},
        laws_not_run=tuple(law for one in judged for law in one.laws_not_run),
        runners=(*(one.facts for one in judged), *not_judged),
        predictions=tuple(prediction for one in judged for prediction in one.predictions),
    )


def _shared_families(one: Judged, other: Judged) -> set[str]:
    """Families on which both runners are compared: without those that one does not take or was not calibrated for."""
    families = [{family for family, _ in side.recording} for side in (one, other)]
    if "recorded" in (one.facts.kind, other.facts.kind):  # a recording has outputs only for its own inputs
        return families[0] & families[1]
    if not (one.is_calibrated or other.is_calibrated):
        return (families[0] | families[1]) - {*one.not_run, *other.not_run}
    theirs = {family.name: family for family in other.samples.families}
    same = {f.name for f in one.samples.families if f.name in theirs and same_inputs(f, theirs[f.name])}
    return same & families[0] & families[1]


def same_inputs(one: Family, other: Family) -> bool:
    """Whether two families hold the same arrays."""
    return (
        one.name == other.name
        and len(one.batches) == len(other.batches)
        and all(
            a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
            for a, b in zip(one.batches, other.batches, strict=True)
        )
    )


def pair_cells(judged: Sequence[Judged]) -> list[Cell]:
    """Returns the cells of every pair of runners that computed anything, over the outputs that both signatures name."""
    cells = []
    for one, other in combinations([one for one in judged if one.recording], 2):
        common = {s.name for s in one.signature.outputs} & {s.name for s in other.signature.outputs}
        families = _shared_families(one, other)
        recordings = tuple(
            {key: chunks for key, chunks in side.recording.items() if key[1] in common and key[0] in families}
            for side in (one, other)
        )
        names, precisions = (one.name, other.name), (one.facts.precision, other.facts.precision)
        cells += judge_pair(names, (recordings[0], recordings[1]), (one.floors, other.floors), precisions, one.samples)
    return cells


def with_names_apart(artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Returns the artifacts; those whose directories have the same name are named by their whole paths in reports."""
    names = Counter(artifact.name for artifact in artifacts)
    return [replace(a, name=a.named(str(a.path))) if names[a.name] > 1 else a for a in artifacts]


def check_opened_once(names: Sequence[str | Path], artifacts: Sequence[Artifact]) -> None:
    """``InputError``: two names are of one artifact in one runtime, such as ``DIR`` and ``DIR@onnxruntime``."""
    keys = [(artifact.path.resolve(), artifact.runtime.name) for artifact in artifacts]
    if twice := [str(name) for name, key in zip(names, keys, strict=True) if keys.count(key) > 1]:
        raise InputError(f"{', '.join(dict.fromkeys(twice))}: named twice; name each once")


def check_comparable(artifacts: Sequence[Artifact]) -> None:
    """Raises ``ArtifactError`` if artifacts differ in task, config or fixed axes, or have no output in common."""
    first, *others = artifacts
    for other in others:
        one, two = first.manifest, other.manifest
        outputs = [{spec.name for spec in m.signature.outputs} for m in (one, two)]
        difference = next(
            (
                what
                for what, same in {
                    f"task ({one.task} and {two.task})": one.task == two.task,
                    f"config ({_config_differences(one, two)})": same_network(
                        one.config, two.config, one.signature.lxmert_task
                    ),
                    f"fixed axes ({one.signature.fixed_sizes or 'none'} and {two.signature.fixed_sizes or 'none'})": (
                        one.signature.fixed_sizes == two.signature.fixed_sizes
                    ),
                    "outputs (none in common)": bool(outputs[0] & outputs[1]),
                }.items()
                if not same
            ),
            None,
        )
        if difference:
            raise ArtifactError(f"{first.path} and {other.path} cannot be compared: they differ in {difference}")


def _config_differences(one: Manifest, other: Manifest) -> str:
    differing = network_differences(one.config, other.config, one.signature.lxmert_task)
    return ", ".join(f"{field} {here} and {there}" for field, here, there in differing)
