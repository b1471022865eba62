"""Static int8 ONNX of one random network: with and without smoothing, and beside a simulation without a converter."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.study.int8_simulation import LARGEST, rounded
from benchmarks.study.judging import Checkpoint, Subject, worst_of
from converters.onnx.quantized import write_quantized
from converters.to_onnx import convert_to_onnx
from lxmert_export.artifact.directory import ONNX_FILE
from lxmert_export.exporting.activation_steps import Step, apart, choose_steps
from lxmert_export.exporting.smoothing import choose_smoothed_steps
from lxmert_export.parity.recording import Recording
from lxmert_export.reference.yardstick import run_reference
from lxmert_export.runners.onnx.session import OnnxRuntimeRunner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.sample_inputs import Family, SampleInputs, sample_inputs
from parity_tests.fixtures.architectures import Architecture

SUBJECT = Subject("onnx", "int8")
CALIBRATION_SEED = 10_000_000  # plus the network's own: no judged input is calibrated on


def static_trial(architecture: Architecture, seed: int) -> dict[str, Any]:
    """Returns the worst scores of the simulation and of both files, with reasons as ``worst_of`` gives them."""
    checkpoint = Checkpoint.drawn(architecture, seed, [SUBJECT])
    samples = sample_inputs(architecture.signature, architecture.config, seed=CALIBRATION_SEED + seed)
    rows = [batch for family in samples.families for batch in family.batches]
    with tempfile.TemporaryDirectory(prefix="lxmert-export-study-") as place:
        files = StaticFiles(checkpoint, rows, Path(place))
        steps, factors = choose_smoothed_steps(files.wide, *apart(rows), LARGEST)
        outcomes = {
            "plain": files.record(choose_steps(files.wide, *apart(rows), LARGEST), {}),
            "smoothed": files.record(steps, factors),
            "simulated": simulated(checkpoint, rows),
        }
    scores = {name: worst_of(checkpoint.judge(SUBJECT, recording)) for name, recording in outcomes.items()}
    return {**scores, "layer_norms": len(factors)}


@dataclass(frozen=True)
class StaticFiles:
    """The int8 files of one network, calibrated on rows."""

    checkpoint: Checkpoint
    rows: Sequence[Arrays]
    place: Path

    @cached_property
    def wide(self) -> Path:
        """The float32 file."""
        architecture, directory = self.checkpoint.architecture, self.place / "wide"
        directory.mkdir()
        limits = InputLimits.of(architecture.config)
        convert_to_onnx(self.checkpoint.module, architecture.signature, limits, directory, precision="fp32")
        return directory / ONNX_FILE

    def record(self, steps: Mapping[str, Step], factors: Mapping[str, NDArray[np.float32]]) -> Recording:
        """Returns what the file with these steps computes. Without optimisation, so that no kernel of this CPU saturates."""
        directory = Path(tempfile.mkdtemp(dir=self.place))
        chosen = {name: step.step for name, step in steps.items()}
        path = write_quantized(self.wide, directory, chosen, weight_range=LARGEST, factors=factors)
        architecture = self.checkpoint.architecture
        limits = InputLimits.of(architecture.config)
        with OnnxRuntimeRunner(
            path, architecture.signature, limits, precision="int8", optimize=False, threads=1
        ) as runner:
            return self.checkpoint.record(runner.run)


def simulated(checkpoint: Checkpoint, rows: Sequence[Arrays]) -> Recording:
    """Returns what the canonical model computes with linear layers in static int8: float64, but for the rounding."""
    architecture = checkpoint.architecture
    module = copy.deepcopy(checkpoint.module).double()
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    largest = [torch.zeros((), dtype=torch.float64) for _ in linear]

    def measure(number: int, values: Tensor) -> None:
        largest[number] = torch.maximum(largest[number], values.abs().max())

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, n=n: measure(n, inputs[0])) for n, layer in enumerate(linear)
    ]
    calibration = SampleInputs((Family("calibration", tuple(rows)),), ())
    run_reference(module, architecture.signature, architecture.config, calibration)
    for hook in hooks:
        hook.remove()
    for layer, most in zip(linear, largest, strict=True):
        layer.weight = nn.Parameter(rounded(layer.weight), requires_grad=False)
        step = most.clamp_min(torch.finfo(torch.float64).tiny) / LARGEST
        layer.register_forward_pre_hook(lambda _, inputs, step=step: (_in_steps(inputs[0], step),))
    computed = run_reference(module, architecture.signature, architecture.config, checkpoint.samples)
    return {key: [chunk.astype(np.float32) for chunk in chunks] for key, chunks in computed.items()}


def _in_steps(values: Tensor, step: Tensor) -> Tensor:
    return (values / step).round().clamp(-LARGEST, LARGEST) * step
