"""The user's own inputs to judge on, and outputs that another program recorded for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import InputError
from lxmert_export.option_names import option
from lxmert_export.parity.cells import Floors
from lxmert_export.parity.decisions import AnswerKey, Decisions, decide
from lxmert_export.parity.recording import Arithmetic, Recording
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.sample_inputs import Family, SampleInputs
from lxmert_export.spec.signature import ANSWER_OUTPUT, Signature
from lxmert_export.spec.user_inputs import LABELS, UserBatch, prepare_user_inputs, read_user_batches

# Outputs whose answers can be right or wrong: VQA's and GQA's, and those of NLVR2.
LABELLED_OUTPUTS = (ANSWER_OUTPUT, "logits")
OWN = "own"  # the name of this family in reports; inputs of a recording have the recording's name
RECORDINGS = (".npz", ".safetensors")


@dataclass(frozen=True)
class OwnInputs:
    """Batches of inputs by name, and the outputs that were recorded for each batch (empty if only inputs are given).

    ``labels``: the numbers of the true answers, int64 [rows of all batches], if the file has them.
    """

    path: Path
    inputs: tuple[Arrays, ...]
    outputs: tuple[Arrays, ...]
    labels: NDArray[np.int64] | None = None

    @property
    def name(self) -> str:
        """The name of a recording in reports: its file's name."""
        return self.path.name

    @property
    def recorded(self) -> list[str]:
        """The outputs that were recorded for every batch."""
        first = self.outputs[0] if self.outputs else {}
        return [name for name in first if all(name in batch for batch in self.outputs)]

    @property
    def family_name(self) -> str:
        """The name of the family of these inputs in reports."""
        return self.name if self.recorded else OWN

    def family(self, signature: Signature, limits: InputLimits) -> Family:
        """Returns the inputs as a family for a signature, with optional inputs filled in. ``InputError``: they do not fit."""
        parts = [part for inputs in self.inputs for part in prepare_user_inputs(self.path, inputs, signature, limits)]
        return Family(self.family_name, tuple(parts), whole=True, labels=self.labels)


def read_recording(path: str | Path, signature: Signature) -> OwnInputs:
    """Reads a file of inputs, with outputs that some program computed for them. ``InputError``: it holds no outputs."""
    read = _read(path, signature)
    if not read.recorded:
        raise InputError(f"{path}: holds inputs but no outputs: give it as {option('inputs')}")
    return read


def read_own_inputs(path: str | Path, signature: Signature) -> OwnInputs:
    """Reads a file of inputs. ``InputError``: it also holds outputs."""
    read = _read(path, signature)
    if any(read.outputs):
        raise InputError(f"{path}: holds outputs too: name it beside the artifacts to judge it like one of them")
    return read


def with_own_inputs(drawn: SampleInputs, files: Sequence[OwnInputs], artifact: Artifact) -> SampleInputs:
    """Returns the drawn families and those from files. A calibrated artifact is right only for its calibration's inputs."""
    if artifact.is_calibrated:
        return drawn
    manifest = artifact.manifest
    own = tuple(file.family(manifest.signature, manifest.limits) for file in files)
    return SampleInputs((*drawn.families, *own), drawn.not_run)


def decide_by_labels(
    runner: str,
    arithmetic: Arithmetic,
    recording: Recording,
    reference: Recording,
    floors: Floors,
    samples: SampleInputs,
    *,
    precision: str,
) -> list[Decisions]:
    """Compares a runner's answers with float64's and the true ones, on each family of inputs that has labels."""
    decided = []
    for family in samples.families:
        key = next(((family.name, name) for name in LABELLED_OUTPUTS if (family.name, name) in reference), None)
        if family.labels is None or key is None:
            continue
        answers = AnswerKey(reference[key], family.labels, np.zeros_like(family.labels), ())
        computed, floor = recording.get(key), floors[key].rms
        decided.append(decide(runner, arithmetic, computed, answers, floor, precision=precision, inputs=family.name))
    return decided


def _read(path: str | Path, signature: Signature) -> OwnInputs:
    batches = read_user_batches(path, signature)
    inputs, outputs = (tuple(getattr(batch, part) for batch in batches) for part in ("inputs", "outputs"))
    return OwnInputs(Path(path), inputs, outputs, _labels(path, batches, signature))


def _labels(path: str | Path, batches: Sequence[UserBatch], signature: Signature) -> NDArray[np.int64] | None:
    """The true answers of all rows. ``InputError``: they do not fit the rows, or the answers that the artifact knows."""
    given = [batch.labels for batch in batches]
    if all(labels is None for labels in given):
        return None
    spec = next((spec for name in LABELLED_OUTPUTS for spec in signature.outputs if spec.name == name), None)
    if spec is None:
        raise InputError(
            f"{path}: holds {LABELS}, but the artifact gives no answers ({' or '.join(LABELLED_OUTPUTS)}): leave them out"
        )
    for labels, batch in zip(given, batches, strict=True):
        rows = len(next(iter(batch.inputs.values()), ()))
        if labels is None or labels.shape != (rows,) or labels.dtype.kind not in "iu":
            found = "missing" if labels is None else f"{labels.dtype} {list(labels.shape)}"
            raise InputError(
                f"{path}: {LABELS} must hold the number of the true answer of each of {rows} rows, not {found}"
            )
        count = int(spec.axes[-1])
        if rows and not (labels.min() >= 0 and labels.max() < count):
            raise InputError(
                f"{path}: {LABELS} holds {labels.min()} to {labels.max()}; answers are numbered 0 to {count - 1}"
            )
    return np.concatenate([labels.astype(np.int64) for labels in given if labels is not None])
