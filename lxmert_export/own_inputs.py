"""A user's own inputs to judge on, and outputs that some program recorded for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lxmert_export.array_files import read_arrays
from lxmert_export.errors import InputError
from lxmert_export.runners.runner import InputLimits, prepare_inputs
from lxmert_export.sample_inputs import Arrays, Family
from lxmert_export.signature import Signature

OWN, RECORDED = "own", "recorded"  # what these families of inputs are called in reports
RECORDINGS = (".npz", ".safetensors")


@dataclass(frozen=True)
class OwnInputs:
    """Inputs by name, and outputs that were recorded for them, none where they are inputs alone."""

    path: Path
    inputs: Arrays
    outputs: Arrays

    @property
    def name(self) -> str:
        """What reports call a recording: its file's name."""
        return self.path.name

    @property
    def family_name(self) -> str:
        """The family that reports list its inputs under."""
        return RECORDED if self.outputs else OWN

    def family(self, signature: Signature, limits: InputLimits) -> Family:
        """Its inputs as a signature takes them, optional ones filled in; ``InputError`` where it does not."""
        try:
            prepared = prepare_inputs(self.inputs, signature.of_any_batch(), limits)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error
        batch = signature.fixed_sizes.get("batch")
        rows = len(prepared["input_ids"])
        if batch is None:
            return Family(self.family_name, (prepared,), whole=True)
        if rows % batch:
            raise InputError(
                f"{self.path}: {rows} rows do not part into batches of {batch}, which the artifact is fixed to"
            )
        parts = [{name: array[n : n + batch] for name, array in prepared.items()} for n in range(0, rows, batch)]
        return Family(self.family_name, tuple(parts), whole=True)


def read_own_inputs(path: str | Path, signature: Signature) -> OwnInputs:
    """Reads a file of arrays named as a signature's inputs, and of outputs named as its, where it is a recording.

    ``InputError``: it cannot be read, holds arrays of other names or what is no finite number.
    """
    arrays = read_arrays(path, "inputs")
    inputs = _named(arrays, {spec.name for spec in signature.inputs})
    outputs = _named(arrays, {spec.name for spec in signature.outputs})
    if unknown := sorted(set(arrays) - set(inputs) - set(outputs)):
        known = ", ".join(spec.name for spec in (*signature.inputs, *signature.outputs))
        raise InputError(
            f"{path}: holds {', '.join(unknown)}, which is neither input nor output; the names are {known}"
        )
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{path}: {name} holds NaN or infinity")
    return OwnInputs(Path(path), inputs, outputs)


def _named(arrays: Mapping[str, NDArray[np.generic]], names: set[str]) -> Arrays:
    return {name: array for name, array in arrays.items() if name in names}
