"""Judges one checkpoint in every target and precision; its reference and floors are computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.study.int8_simulation import in_int8
from benchmarks.study.onnx_weights import OnnxFile
from benchmarks.study.tensorflow_weights import SavedModelFile
from benchmarks.study.tflite_weights import TfliteFile
from lxmert_export.parity.cells import Cell, Floors, judge, judge_pair
from lxmert_export.parity.recording import Recording, Run, record
from lxmert_export.parity.scores import errors
from lxmert_export.reference.yardstick import run_floors, run_reference
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.sample_inputs import Family, SampleInputs, sample_inputs
from lxmert_export.spec.signature import Precision
from parity_tests.fixtures.architectures import Architecture, State, drawn_state

ChangeInputs = Callable[[Mapping[str, NDArray[np.generic]]], Arrays]
Target = Literal["onnx", "tensorflow", "tflite"]


class ExportedFile(Protocol):
    """A written artifact that can be run with other weights."""

    def with_weights(self, module: nn.Module) -> Run:
        """Runs it with a module's weights."""
        ...


@dataclass(frozen=True)
class Subject:
    """A target in a precision; ``arithmetic`` is what it computes in if only its weights have ``precision``."""

    target: Target
    precision: Precision
    arithmetic: Precision | None = None

    @property
    def name(self) -> str:
        """The name in the results."""
        return f"{self.target} {self.precision}"

    @property
    def floor(self) -> tuple[Precision, Precision | None]:
        """The key of the floors; subjects with the same key have the same floors."""
        return self.precision, None if self.precision == "int8" else self.arithmetic


INT8 = Subject("tflite", "int8", arithmetic="fp32")
SUBJECTS = (
    Subject("onnx", "fp32"),
    Subject("onnx", "fp16"),
    Subject("onnx", "bf16"),
    Subject("tensorflow", "fp32"),
    Subject("tensorflow", "fp16"),
    Subject("tflite", "fp32"),
    Subject("tflite", "fp16", arithmetic="fp32"),
    INT8,
)
FILES: dict[Target, type[Any]] = {"onnx": OnnxFile, "tensorflow": SavedModelFile, "tflite": TfliteFile}


def export_all(architecture: Architecture, module: nn.Module) -> dict[Subject, ExportedFile]:
    """Exports a module in every target and precision."""
    return {subject: export_one(architecture, module, subject) for subject in SUBJECTS}


def export_one(architecture: Architecture, module: nn.Module, subject: Subject) -> ExportedFile:
    """Exports a module in one target and precision."""
    file: ExportedFile = FILES[subject.target](module, architecture.config, architecture.signature, subject.precision)
    return file


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's module, inputs, float64 outputs and floors, by which its artifacts are judged."""

    architecture: Architecture
    state: State
    module: nn.Module
    samples: SampleInputs
    reference: Recording
    floors: Mapping[tuple[Precision, Precision | None], Floors]

    @classmethod
    def drawn(cls, architecture: Architecture, seed: int, subjects: Sequence[Subject] = SUBJECTS) -> Checkpoint:
        """Draws weights and inputs from a seed, and computes the floors of some subjects."""
        state = drawn_state(architecture, seed)
        module = architecture.module(state)
        config, signature = architecture.config, architecture.signature
        samples = sample_inputs(signature, config, seed=seed)
        reference = run_reference(module, signature, config, samples)
        floors = {
            (precision, arithmetic): run_floors(
                module, signature, config, samples, reference, precision, arithmetic=arithmetic
            )
            for precision, arithmetic in dict.fromkeys(subject.floor for subject in subjects)
        }
        return cls(architecture, state, module, samples, reference, floors)

    def record(self, run: Run, change_inputs: ChangeInputs | None = None) -> Recording:
        """Records what an artifact computes on this checkpoint's inputs, or on inputs that a fault changed."""
        return record(_on(run, change_inputs), self.samples, self.architecture.signature)

    def judge(self, subject: Subject, recording: Recording) -> list[Cell]:
        """Returns the cells of the gate; an emulated run is judged as a native one."""
        return judge(
            subject.name, recording, self.reference, self.floors[subject.floor], self.architecture.signature, "native",
            precision=subject.precision, samples=self.samples,
        )  # fmt: skip

    def judge_pairs(self, recordings: Mapping[Subject, Recording]) -> dict[str, float]:
        """Returns the worst score of every pair."""
        pairs = {}
        for one, other in combinations(recordings, 2):
            cells = judge_pair(
                (one.name, other.name), (recordings[one], recordings[other]),
                (self.floors[one.floor], self.floors[other.floor]), (one.precision, other.precision),
            )  # fmt: skip
            pairs[f"{one.name} | {other.name}"] = worst_score(cells)
        return pairs

    def simulate_int8(self) -> Recording:
        """Returns what the canonical model computes in int8, in the types of the signature."""
        architecture = self.architecture
        computed = run_reference(in_int8(self.module), architecture.signature, architecture.config, self.samples)
        return {key: [chunk.astype(np.float32) for chunk in chunks] for key, chunks in computed.items()}

    def effects(self, faulty: Recording) -> dict[Subject, float]:
        """Returns how much a fault changes the float64 outputs, in floors of each subject: the most of any cell."""
        return {
            subject: max(
                errors(chunks, faulty[key]).rms / self.floors[subject.floor][key].rms
                for key, chunks in self.reference.items()
            )
            for subject in SUBJECTS
        }

    def faulty_reference(self, module: nn.Module, change_inputs: ChangeInputs | None = None) -> Recording:
        """Returns the float64 outputs of a faulty module, or of a sound one on changed inputs."""
        samples = self.samples
        if change_inputs is not None:
            families = tuple(
                Family(f.name, tuple(change_inputs(batch) for batch in f.batches), f.whole) for f in samples.families
            )
            samples = SampleInputs(families, samples.not_run)
        return run_reference(module, self.architecture.signature, self.architecture.config, samples)


def worst_score(cells: list[Cell]) -> float:
    """Returns the largest score; infinite if a cell has none."""
    return max(float("inf") if cell.score is None else cell.score for cell in cells)


def worst_of(cells: list[Cell]) -> tuple[float, str | None]:
    """Returns the largest score, and the reason of a cell that fails otherwise: names, NaN, int8's choices."""
    return worst_score(cells), next((cell.reason for cell in cells if cell.reason), None)


def _on(run: Run, change_inputs: ChangeInputs | None) -> Run:
    return run if change_inputs is None else lambda inputs: run(change_inputs(inputs))


def use_one_core() -> None:
    """Uses one thread, because others use this machine, too."""
    torch.set_num_threads(1)
