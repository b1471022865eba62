"""A user's own inputs to judge on, and outputs that some program recorded for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lxmert_export.errors import InputError
from lxmert_export.files.array_files import read_batches
from lxmert_export.spec.inputs import Arrays, InputLimits, prepare_inputs
from lxmert_export.spec.sample_inputs import Family
from lxmert_export.spec.signature import Signature

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
        parts = [part for inputs in self.inputs for part in self._parts(inputs, signature, limits)]
        return Family(self.family_name, tuple(parts), whole=True)

    def _parts(self, inputs: Arrays, signature: Signature, limits: InputLimits) -> list[Arrays]:
        """One batch, in the batches that a fixed axis takes."""
        try:
            prepared = prepare_inputs(inputs, signature.of_any_batch(), limits)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error
        batch = signature.fixed_sizes.get("batch")
        rows = len(prepared["input_ids"])
        if batch is None:
            return [prepared]
        if rows % batch:
            raise InputError(
                f"{self.path}: {rows} rows do not part into batches of {batch}, which the artifact is fixed to"
            )
        return [{name: array[n : n + batch] for name, array in prepared.items()} for n in range(0, rows, batch)]


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
    """Arrays named as a signature's inputs and outputs.

    ``InputError``: it cannot be read, holds arrays of other names or what is no finite number.
    """
    batches = read_batches(path, "inputs")
    input_names, output_names = ([spec.name for spec in specs] for specs in (signature.inputs, signature.outputs))
    for arrays in batches:
        if unknown := sorted(set(arrays) - {*input_names, *output_names}):
            known = ", ".join((*input_names, *output_names))
            raise InputError(
                f"{path}: holds {', '.join(unknown)}, which is neither input nor output; the names are {known}"
            )
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InputError(f"{path}: {name} holds NaN or infinity")
    inputs, outputs = ([_named(arrays, names) for arrays in batches] for names in (input_names, output_names))
    return OwnInputs(Path(path), tuple(inputs), tuple(outputs))


def _named(arrays: Mapping[str, NDArray[np.generic]], names: Sequence[str]) -> Arrays:
    return {name: array for name, array in arrays.items() if name in names}
