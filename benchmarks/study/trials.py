"""Runs the trials of one architecture. Each is a line of a file, so that a stopped run continues where it stopped.

Trials are correct checkpoints, faults in weights and inputs, and faults in the graph. Each has its worst score, and the
reason of a cell that failed for another reason than its score.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn

from benchmarks.study import tensorflow_weights, tflite_weights
from benchmarks.study.judging import (
    INT8,
    SUBJECTS,
    Checkpoint,
    ExportedFile,
    Subject,
    export_all,
    export_one,
    worst_of,
)
from benchmarks.study.onnx_weights import OnnxFile
from converters.to_tensorflow import keras_twin
from lxmert_export.api.export import export
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.parity.recording import Recording, Run
from lxmert_export.parity.scores import errors
from lxmert_export.runners.opening import open_emulator, open_runner
from lxmert_export.spec.signature import Task
from parity_tests.faults.graph_faults import GRAPH_FAULTS, GraphFault
from parity_tests.faults.weight_faults import FAULTS, Fault
from parity_tests.fixtures.architectures import ARCHITECTURES, Architecture, drawn_state

EXPORTED_SEED = 0  # of the checkpoint that is exported; trials have other seeds
FIRST_SEED, FAULTY_SEED, INT8_SEED = 1, 500_001, 1_000_001
Row = dict[str, Any]


class Log:
    """The lines of one file; a trial that has a line is not run again."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.jsonl"
        self.rows = [json.loads(line) for line in self._whole_lines()]

    def _whole_lines(self) -> list[str]:
        """Returns the whole lines; removes a last line that was cut short, so that its trial runs again."""
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.path.write_text(whole, encoding="utf-8")
        return whole.splitlines()

    def has(self, kind: str, **key: Any) -> bool:
        """Whether there is a line of this kind with these values."""
        return any(row["kind"] == kind and all(row[name] == key[name] for name in key) for row in self.rows)

    def add(self, kind: str, **values: Any) -> None:
        """Appends a line to the file at once."""
        row = {"kind": kind, **values}
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def run_architecture(architecture: Architecture, directory: Path) -> None:
    """Runs one architecture: the check of swapped weights, faults in weights and inputs, correct trials."""
    log = Log(directory, architecture.name)
    files = export_all(architecture, exported_module(architecture))
    if not log.has("swap"):
        log.add("swap", architecture=architecture.name, differences=swap_differences(architecture, files))
    for row in weight_fault_trials(architecture, FAULTY_SEED, files, partial(log.has, "fault")):
        log.add("fault", architecture=architecture.name, seed=FAULTY_SEED, **row)
    for seed in range(FIRST_SEED, FIRST_SEED + architecture.trials):
        if not log.has("trial", seed=seed):
            log.add("trial", architecture=architecture.name, seed=seed, **correct_trial(architecture, seed, files))


def run_graph_faults(architecture: Architecture, directory: Path) -> None:
    """Runs the faults of the graph, of one architecture only: each fault needs a new export to every target."""
    log = Log(directory, f"{architecture.name} graph faults")
    for row in graph_fault_trials(architecture, FAULTY_SEED, partial(log.has, "fault")):
        log.add("fault", architecture=architecture.name, seed=FAULTY_SEED, **row)


def run_int8(directory: Path) -> None:
    """Runs int8 of every architecture beside its simulation; networks that int8 keeps must not alarm."""
    log = Log(directory, "int8")
    for architecture in ARCHITECTURES:
        file = export_one(architecture, exported_module(architecture), INT8)
        for seed in range(INT8_SEED, INT8_SEED + 2 * architecture.trials):
            if not log.has("int8", architecture=architecture.name, seed=seed):
                log.add("int8", architecture=architecture.name, seed=seed, **int8_trial(architecture, seed, file))


def exported_module(architecture: Architecture) -> nn.Module:
    """The checkpoint that is exported. It has biases, for those that are all 0 cannot be told apart in a file's bytes."""
    return architecture.module(drawn_state(replace(architecture, biases=True), EXPORTED_SEED))


def int8_trial(architecture: Architecture, seed: int, file: ExportedFile) -> Row:
    """Returns the worst scores of an int8 file and of the simulation, with reasons as ``worst_of`` gives them."""
    checkpoint = Checkpoint.drawn(architecture, seed, [INT8])
    recording = checkpoint.record(file.with_weights(checkpoint.module))
    return {
        "file": worst_of(checkpoint.judge(INT8, recording)),
        "simulated": worst_of(checkpoint.judge(INT8, checkpoint.simulate_int8())),
    }


def swap_differences(architecture: Architecture, files: Mapping[Subject, ExportedFile]) -> Row:
    """Returns how far files with swapped weights are from real exports of these weights, in floors; 0: equal bits."""
    checkpoint = Checkpoint.drawn(architecture, FIRST_SEED)
    differences = {}
    for subject, file in files.items():
        swapped = checkpoint.record(file.with_weights(checkpoint.module))
        real = recorded_export(checkpoint, subject)
        differences[subject.name] = max(
            errors(real[key], swapped[key]).rms / floor.rms for key, floor in checkpoint.floors[subject.floor].items()
        )
    return differences


def recorded_export(checkpoint: Checkpoint, subject: Subject) -> Recording:
    """Records what a checkpoint's own artifact computes, written and opened as the command does it."""
    signature = checkpoint.architecture.signature
    with tempfile.TemporaryDirectory(prefix="lxmert-export-study-") as place:
        artifact = export(
            subject.target, checkpoint.module, Path(place) / "artifact", precision=subject.precision, parity=False,
            signature=signature,
        )  # fmt: skip
        emulated = subject.target == "onnx" and subject.precision != "fp32"
        with open_emulator(artifact) if emulated else open_runner(artifact) as runner:
            return checkpoint.record(runner.run)


def correct_trial(architecture: Architecture, seed: int, files: Mapping[Subject, ExportedFile]) -> Row:
    """Judges a random checkpoint in every target, alone and in pairs; no score may exceed the threshold."""
    checkpoint = Checkpoint.drawn(architecture, seed)
    recordings = {subject: checkpoint.record(file.with_weights(checkpoint.module)) for subject, file in files.items()}
    scores = {s.name: worst_of(checkpoint.judge(s, recording)) for s, recording in recordings.items()}
    return {"scores": scores, "pairs": checkpoint.judge_pairs(recordings)}


def weight_fault_trials(
    architecture: Architecture, seed: int, files: Mapping[Subject, ExportedFile], done: Callable[..., bool]
) -> Iterator[Row]:
    """Yields the trials of all faults in weights or inputs, in every target, against the sound checkpoint."""
    checkpoint = None
    for fault in FAULTS:
        if done(fault=fault.name):
            continue
        checkpoint = checkpoint or Checkpoint.drawn(architecture, seed)
        yield weight_fault_trial(checkpoint, fault, files)


def weight_fault_trial(checkpoint: Checkpoint, fault: Fault, files: Mapping[Subject, ExportedFile]) -> Row:
    """Returns for one fault in every target: float64 effect in floors, worst score, and reason (see ``worst_of``)."""
    architecture = checkpoint.architecture
    faulty = architecture.module(fault.faulty_state(checkpoint.state, architecture))
    effects = checkpoint.effects(checkpoint.faulty_reference(faulty, fault.change_inputs))
    found = {}
    for subject, file in files.items():
        cells = checkpoint.judge(subject, checkpoint.record(file.with_weights(faulty), fault.change_inputs))
        found[subject.name] = [effects[subject], *worst_of(cells)]
    return {"fault": fault.name, "place": "input" if fault.change_state is None else "weights", "found": found}


def graph_fault_trials(architecture: Architecture, seed: int, done: Callable[..., bool]) -> Iterator[Row]:
    """Yields the trials of all faults of the graph, each exported again to every target."""
    checkpoint = None
    for fault in GRAPH_FAULTS:
        if done(fault=fault.name):
            continue
        checkpoint = checkpoint or Checkpoint.drawn(architecture, seed)
        yield graph_fault_trial(checkpoint, fault)


def graph_fault_trial(checkpoint: Checkpoint, fault: GraphFault) -> Row:
    """As ``weight_fault_trial``, for a fault of the graph."""
    faulty = copy.deepcopy(checkpoint.module)
    fault.in_torch(faulty)
    effects = checkpoint.effects(checkpoint.faulty_reference(faulty))
    found = {}
    for subject in SUBJECTS:
        recording = checkpoint.record(faulty_run(checkpoint, subject, faulty, fault))
        found[subject.name] = [effects[subject], *worst_of(checkpoint.judge(subject, recording))]
    return {"fault": fault.name, "place": "graph", "found": found}


def faulty_run(checkpoint: Checkpoint, subject: Subject, faulty: nn.Module, fault: GraphFault) -> Run:
    """Returns a function that runs a faulty model's artifact of a target."""
    config, signature = checkpoint.architecture.config, checkpoint.architecture.signature
    if subject.target == "onnx":
        return OnnxFile(faulty, config, signature, subject.precision).with_weights(faulty)
    with quiet_native_logs():
        tensorflow = subject.target == "tensorflow"
        task = cast(Task, signature.task)
        twin = keras_twin(checkpoint.module, config, task, subject.precision if tensorflow else "fp32")
    fault.in_keras(twin)
    if tensorflow:
        return tensorflow_weights.served(tensorflow_weights.written_and_loaded(twin, signature))
    return tflite_weights.served(tflite_weights.converted(twin, signature, subject.precision))
