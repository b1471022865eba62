"""The user's own inputs to judge on, and outputs that another program recorded for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import InputError
from lxmert_export.option_names import option
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.sample_inputs import Family, SampleInputs
from lxmert_export.spec.signature import Signature
from lxmert_export.spec.user_inputs import prepare_user_inputs, read_user_batches

OWN = "own"  # the name of this family in reports; inputs of a recording have the recording's name
RECORDINGS = (".npz", ".safetensors")


@dataclass(frozen=True)
class OwnInputs:
    """Batches of inputs by name, and the outputs that were recorded for each batch (empty if only inputs are given)."""

    path: Path
    inputs: tuple[Arrays, ...]
    outputs: tuple[Arrays, ...]

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
        return Family(self.family_name, tuple(parts), whole=True)


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


def _read(path: str | Path, signature: Signature) -> OwnInputs:
    batches = read_user_batches(path, signature)
    return OwnInputs(Path(path), tuple(batch.inputs for batch in batches), tuple(batch.outputs for batch in batches))
