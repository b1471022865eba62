"""What artifacts are measured by: the float64 outputs of the canonical model, and the noise floors of each precision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, cast

import numpy as np
from torch import nn

from lxmert_export.judging.artifact import record_runner
from lxmert_export.model.signature_module import DTYPES
from lxmert_export.model.twins import with_rounded_weights
from lxmert_export.parity.cells import Floors
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.scores import EPS, Floor, int8_floor, measure_floor
from lxmert_export.progress import Progress, silent
from lxmert_export.reference.determinism import check_deterministic
from lxmert_export.reference.near_ties import near_ties
from lxmert_export.reference.tf32 import runner_of
from lxmert_export.reference.torch_runner import TorchRunner
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.sample_inputs import SampleInputs
from lxmert_export.spec.signature import ComputedPrecision, Signature


class Yardstick:
    """A module's float64 outputs and noise floors, each computed once for all artifacts with the same inputs and outputs."""

    def __init__(self, module: nn.Module, config: LxmertConfig, progress: Progress = silent) -> None:
        self.module, self.config = module, config
        self._progress = progress
        self._known: dict[Hashable, Any] = {}

    def reference(self, signature: Signature, samples: SampleInputs) -> Recording:
        """Returns the float64 outputs."""

        def run() -> Recording:
            return run_reference(self.module, signature, self.config, samples, self._progress)

        return cast(Recording, self._once(("reference", *_alike(signature, samples)), run))

    def floors(
        self, signature: Signature, samples: SampleInputs, precision: ComputedPrecision, arithmetic: str | None = None
    ) -> Floors:
        """Returns the noise floors of a precision.

        ``arithmetic``: the precision in which the artifact computes, if only its weights have ``precision``.
        """

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
    """Identifies signatures and samples that have the same reference, whatever the width of ids and the dtype of outputs."""
    inputs = tuple((s.name, s.axes, s.dtype if s.is_float else "integer") for s in signature.inputs)
    digest = hashlib.sha256()
    for family in samples.families:
        digest.update(family.name.encode())
        for batch in family.batches:
            for array in batch.values():
                digest.update(array.astype(np.float64).tobytes())
    return inputs, tuple(spec.name for spec in signature.outputs), digest.digest()


def run_reference(
    module: nn.Module, signature: Signature, config: LxmertConfig, samples: SampleInputs, progress: Progress = silent
) -> Recording:
    """Returns the float64 outputs of a module. ``ConversionError``: the module is random."""
    limits = InputLimits.of(config)
    if samples.families:
        check_deterministic(module, signature, limits, samples.families[0].batches[0])
    return record_runner(lambda: TorchRunner(module, signature, limits, "fp64"), samples, signature, progress)


def run_floors(
    module: nn.Module,
    signature: Signature,
    config: LxmertConfig,
    samples: SampleInputs,
    reference: Recording,
    precision: ComputedPrecision,
    progress: Progress = silent,
    *,
    arithmetic: str | None = None,
) -> Floors:
    """Returns the noise floor of a precision for every output and family: the module's own error in that precision.

    ``arithmetic``: the precision in which the artifact computes, if only its weights have ``precision``. int8's floor is not
    measured (``int8_floor``). If an output overflows in fp16, its floor is bf16's, scaled to fp16's step: an artifact with more
    float32 islands need not overflow. The floor of integers is 0, but where they are near a tie (``near_ties``).
    """
    if precision == "int8":
        return {key: int8_floor(chunks) for key, chunks in reference.items()}
    arithmetic = arithmetic or precision
    if arithmetic != precision:
        module = with_rounded_weights(module, DTYPES[precision])
    limits = InputLimits.of(config)

    def floors_of(arithmetic: str) -> dict[tuple[str, str], Floor]:
        computed = record_runner(lambda: runner_of(module, signature, limits, arithmetic), samples, signature, progress)
        return {key: measure_floor(chunks, computed[key], arithmetic) for key, chunks in reference.items()}

    floors = floors_of(arithmetic)
    ties = near_ties(module, signature, limits, samples, reference, arithmetic, progress)
    floors |= {key: replace(floors[key], ties=tied) for key, tied in ties.items()}
    if arithmetic == "fp16" and not all(np.isfinite(floor.rms) for floor in floors.values()):
        return _floors_without_range(floors, floors_of("bf16"))
    return floors


def _floors_without_range(floors: Floors, of_bf16: Floors) -> Floors:
    """fp16's floors; where the module overflows in fp16, the error that rounding alone would cause, estimated from bf16.

    bf16 has float32's range and rounds to fewer digits than fp16. Rounding errors are proportional to the rounding step.
    """
    step = EPS["fp16"] / EPS["bf16"]
    return {
        key: floor if np.isfinite(floor.rms) else replace(of_bf16[key], rms=of_bf16[key].rms * step)
        for key, floor in floors.items()
    }
