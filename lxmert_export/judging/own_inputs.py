"""A user's own inputs to judge on, and outputs that some program recorded for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lxmert_export.errors import InputError
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.sample_inputs import Family
from lxmert_export.spec.signature import Signature
from lxmert_export.spec.user_inputs import prepare_user_inputs, read_user_batches

OWN = "own"  # what this family of inputs is called in reports; a recording's inputs go by its name
RECORDINGS = (".npz", ".safetensors")


@dataclass(frozen=True)
class OwnInputs:
    """Batches of inputs by name, and outputs that were recorded for each, none where they are inputs alone."""

    path: Path
    inputs: tuple[Arrays, ...]
    outputs: tuple[Arrays, ...]

    @property
    def name(self) -> str:
        """What reports call a recording: its file's name."""
        return self.path.name

    @property
    def recorded(self) -> list[str]:
        """Which outputs every batch has a recording of."""
        first = self.outputs[0] if self.outputs else {}
        return [name for name in first if all(name in batch for batch in self.outputs)]

    @property
    def family_name(self) -> str:
        """The family that reports list its inputs under."""
        return self.name if self.recorded else OWN

    def family(self, signature: Signature, limits: InputLimits) -> Family:
        """Its inputs as a signature takes them, optional ones filled in; ``InputError`` where it does not."""
        parts = [part for inputs in self.inputs for part in prepare_user_inputs(self.path, inputs, signature, limits)]
        return Family(self.family_name, tuple(parts), whole=True)


def read_recording(path: str | Path, signature: Signature) -> OwnInputs:
    """Reads a file of inputs and of outputs that some program computed of them; ``InputError`` where there are none."""
    read = _read(path, signature)
    if not read.recorded:
        raise InputError(f"{path}: holds inputs and no outputs of them: give it as --inputs")
    return read


def read_own_inputs(path: str | Path, signature: Signature) -> OwnInputs:
    """Reads a file of inputs alone; ``InputError`` where outputs are among them."""
    read = _read(path, signature)
    if any(read.outputs):
        raise InputError(f"{path}: holds outputs too: name it beside the artifacts, to be judged as one of them")
    return read


def _read(path: str | Path, signature: Signature) -> OwnInputs:
    batches = read_user_batches(path, signature)
    return OwnInputs(Path(path), tuple(batch.inputs for batch in batches), tuple(batch.outputs for batch in batches))
