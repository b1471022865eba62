"""Finds where an artifact goes wrong: compares its intermediates with the canonical model's, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.judging.artifact import taken_by
from lxmert_export.judging.own_inputs import OwnInputs, with_own_inputs
from lxmert_export.model.signature_module import DTYPES
from lxmert_export.model.twins import with_rounded_weights
from lxmert_export.parity.divergence import Divergence, Drift, drift_curve, finite, first_jump
from lxmert_export.parity.points import Point, network_points
from lxmert_export.parity.scores import EPS, int8_floor
from lxmert_export.progress import Progress, counted, silent
from lxmert_export.reference.gate import samples_for
from lxmert_export.reference.torch_intermediates import TorchIntermediates
from lxmert_export.runners.intermediates import open_intermediates
from lxmert_export.spec.inputs import Arrays

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Search:
    """A call of ``locate`` that another process can run."""

    artifact: Artifact
    module: nn.Module
    files: Sequence[OwnInputs] = ()

    def run(self, progress: Progress = silent) -> Divergence:
        """Calls ``locate`` in this process."""
        return locate(self.artifact, self.module, progress, files=self.files)


def locate(
    artifact: Artifact, module: nn.Module, progress: Progress = silent, *, files: Sequence[OwnInputs] = ()
) -> Divergence:
    """Returns the first layer whose score jumps, and the first operator family in it, from the artifact's own graph.

    ``module``: the canonical model that the artifact was made from. ``files``: the user's inputs, beside the drawn ones.
    The score of a point is like that of an output: its error against float64 / the canonical model's error at the artifact's
    precision.

    ``ArtifactError``: the target does not show its intermediates, the file has no names, or the task is the user's own.
    """
    drifts, tensors = measure_drifts(artifact, module, progress, files=files)
    jump = first_jump(drifts)
    known = len(network_points(artifact.manifest.config, artifact.manifest.signature))
    sound = Divergence(artifact.name, drift_curve(drifts), points=len(tensors), points_known=known)
    if jump is None:
        return sound
    point = jump.point
    return replace(
        sound, layer=point.layer, family=point.family, module=point.module, tensor=tensors[point], inputs=jump.inputs,
        score=finite(jump.score),
    )  # fmt: skip


def measure_drifts(
    artifact: Artifact, module: nn.Module, progress: Progress = silent, *, files: Sequence[OwnInputs] = ()
) -> tuple[list[Drift], Mapping[Point, str]]:
    """Returns the drift at every point on every family of inputs, in execution order, and each point's tensor in the file."""
    manifest = artifact.manifest
    if manifest.signature.lxmert_task is None:
        raise ArtifactError(
            f"{artifact.path}: task {manifest.task!r} belongs to a module of your own, whose layers are unknown"
        )
    points = network_points(manifest.config, manifest.signature)
    with ExitStack() as held:
        runner, tensors = open_intermediates(artifact, points)
        held.enter_context(runner)
        points = tuple(point for point in points if point in tensors)
        canonical = held.enter_context(_Canonical(artifact, module, points))
        samples = taken_by(runner, with_own_inputs(samples_for(artifact), files, artifact))
        advance = counted(progress, f"inside {artifact.name}", sum(f.first_batches for f in samples.families))
        by_family: dict[str, list[Drift]] = {}
        for family in samples.families:
            by_family[family.name] = [Drift(point, family.name, manifest.precision) for point in points]
            for batch in family.batches[: family.first_batches]:
                got = runner.run(batch)
                reference = {name: _rows_of(array, got[name]) for name, array in canonical.reference(batch).items()}
                noise = canonical.noise(batch, reference)
                for drift in by_family[family.name]:
                    name = drift.point.name
                    drift.add(reference[name], got[name], noise[name])
                advance(family.name)
    return [drifts[place] for place in range(len(points)) for drifts in by_family.values()], tensors


def _rows_of(whole: Array, got: Array) -> Array:
    """Returns the rows that an artifact computes: row 0 of an axis of which its outputs read no other.

    The axis has one row there, or none: [batch, hidden] is row 0 of [batch, text, hidden].
    """
    for axis in range(1, whole.ndim if whole.size != got.size else 0):
        before, after = whole.shape[:axis], whole.shape[axis + 1 :]
        if got.shape in ((*before, 1, *after), (*before, *after)):
            return whole[(slice(None),) * axis + (slice(1),)]
    return whole


class _Canonical(ExitStack):
    """The canonical model at its points, in float64 and in the artifact's precision. The error of the latter is the noise."""

    def __init__(self, artifact: Artifact, module: nn.Module, points: Sequence[Point]) -> None:
        super().__init__()
        manifest = artifact.manifest
        self.precision = manifest.precision
        self.arithmetic = str(manifest.options.get("arithmetic", manifest.precision))
        self._points, self._module = points, module
        self._signature, self._limits = manifest.signature, manifest.limits
        self._runners: dict[str, TorchIntermediates] = {}

    def reference(self, batch: Arrays) -> Arrays:
        """Returns the tensor at each point in float64."""
        return self._run("fp64", batch)

    def noise(self, batch: Arrays, reference: Arrays) -> dict[str, float]:
        """Returns the sum of squared errors that the precision causes anyway, at each point.

        As for outputs, int8's is not measured. At points where the model overflows in fp16, it is bf16's, scaled to fp16's step.
        """
        if self.precision == "int8":
            return {name: int8_floor([array]).rms ** 2 * array.size for name, array in reference.items()}
        errors = self._errors(self.arithmetic, batch, reference)
        if self.arithmetic == "fp16" and not all(map(np.isfinite, errors.values())):
            step = (EPS["fp16"] / EPS["bf16"]) ** 2
            wide = self._errors("bf16", batch, reference)
            errors = {name: error if np.isfinite(error) else wide[name] * step for name, error in errors.items()}
        return errors

    def _errors(self, arithmetic: str, batch: Arrays, reference: Arrays) -> dict[str, float]:
        computed = self._run(arithmetic, batch)
        with np.errstate(over="ignore", invalid="ignore"):
            return {
                name: float(
                    np.square(_rows_of(computed[name], exact).astype(np.float64) - exact.astype(np.float64)).sum()
                )
                for name, exact in reference.items()
            }

    def _run(self, arithmetic: str, batch: Arrays) -> Arrays:
        if arithmetic not in self._runners:
            module = self._module
            if arithmetic != "fp64" and self.arithmetic != self.precision:
                module = with_rounded_weights(module, DTYPES[self.precision])
            runner = TorchIntermediates(module, self._signature, self._limits, arithmetic, self._points)
            self._runners[arithmetic] = self.enter_context(runner)
        return self._runners[arithmetic].run(batch)
