"""Reads users' files of inputs. The same rules hold for judging, calibrating and linting.

| file                                          | contents                                             |
|-----------------------------------------------|------------------------------------------------------|
| ``.npz``, ``.safetensors``                    | one batch: an array [rows, …] for each input         |
| ``.json`` of ``polygraphy run --save-inputs`` | a batch for each feed dict; their sizes may differ   |

``labels`` (int [rows], the number of each row's true answer) may be there, too. Masks and token types may be left out. Every
number must be finite. Features and boxes are at most 1e6 in size; masks hold only 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lxmert_export.errors import InputError
from lxmert_export.files.array_files import read_batches
from lxmert_export.spec.inputs import Arrays, InputLimits, prepare_inputs
from lxmert_export.spec.signature import Signature

# No real feature or box is larger. TensorFlow's calibrator kills the process if values are near float32's largest.
LARGEST_MAGNITUDE = 1e6
LABELS = "labels"  # the name of the true answers in a file


@dataclass(frozen=True)
class UserBatch:
    """Inputs by name as the file has them, the outputs that some program recorded for them, and the true answers, if any."""

    inputs: Arrays
    outputs: Arrays
    labels: NDArray[np.generic] | None


def read_user_batches(path: str | Path, signature: Signature) -> list[UserBatch]:
    """Reads all batches of a file.

    ``InputError``: the file cannot be read, holds an array of an unknown name, holds no inputs, or breaks the rules above.
    """
    input_names, output_names = ([spec.name for spec in specs] for specs in (signature.inputs, signature.outputs))
    batches = []
    for arrays in read_batches(path, "inputs"):
        if unknown := sorted(set(arrays) - {*input_names, *output_names, LABELS}):
            known = ", ".join((*input_names, *output_names, LABELS))
            raise InputError(
                f"{path}: holds {', '.join(unknown)}, which is neither an input nor an output; the names are {known}"
            )
        inputs, outputs = _named(arrays, input_names), _named(arrays, output_names)
        if wrong := [name for name, array in arrays.items() if not _is_finite(array)]:
            raise InputError(f"{path}: {', '.join(wrong)} holds NaN or infinity")
        if needed := [spec.name for spec in signature.inputs if not inputs and not spec.optional]:
            raise InputError(f"{path}: missing input {', '.join(needed)}")
        batches.append(UserBatch(inputs, outputs, arrays.get(LABELS)))
    return batches


def prepare_user_inputs(path: str | Path, inputs: Arrays, signature: Signature, limits: InputLimits) -> list[Arrays]:
    """Prepares one batch of a file for a signature: optional inputs are filled in, and a fixed batch axis splits the rows.

    ``InputError``: the batch does not fit the signature, or its rows do not fill whole batches.
    """
    try:
        prepared = prepare_inputs(inputs, signature.of_any_batch(), limits)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    _check_numbers(path, prepared, signature)
    size, rows = signature.fixed_sizes.get("batch"), len(next(iter(prepared.values())))
    if size is None:
        return [prepared]
    if rows % size:
        raise InputError(f"{path}: {rows} rows do not fill batches of {size}, the artifact's fixed size")
    return [{name: array[n : n + size] for name, array in prepared.items()} for n in range(0, rows, size)]


def read_user_pieces(path: str | Path, signature: Signature, limits: InputLimits, rows: int) -> list[Arrays]:
    """Reads a file of inputs in batches of at most ``rows`` rows; if the batch axis is fixed, in whole ones of its size.

    Rows that fill no fixed batch are left out. ``InputError``: as above, the file holds outputs, or it fills no batch.
    """
    fixed = signature.fixed_sizes.get("batch")
    size, pieces, seen = fixed or rows, [], 0
    for batch in _inputs_alone(path, signature, limits):
        count = len(next(iter(batch.values())))
        seen += count
        firsts = range(0, count - size + 1 if fixed else count, size)
        pieces += [{name: array[n : n + size] for name, array in batch.items()} for n in firsts]
    if not pieces:
        raise InputError(f"{path}: has {seen} rows; the batch axis is fixed to {size}")
    return pieces


def _inputs_alone(path: str | Path, signature: Signature, limits: InputLimits) -> Iterator[Arrays]:
    batches = read_user_batches(path, signature)
    if any(batch.outputs for batch in batches):
        raise InputError(f"{path}: holds outputs, too: give a file that holds only inputs")
    for batch in batches:
        yield from prepare_user_inputs(path, batch.inputs, signature.of_any_batch(), limits)


def read_user_rows(path: str | Path, signature: Signature, limits: InputLimits) -> Arrays:
    """Reads all rows of a file of inputs as one batch, even if the signature's batch axis is fixed.

    ``InputError``: as of the functions above, or its batches differ in length.
    """
    parts = list(_inputs_alone(path, signature, limits))
    lengths = {tuple(array.shape[1:] for array in part.values()) for part in parts}
    if len(lengths) > 1:
        raise InputError(f"{path}: its batches have different numbers of words or objects: pad them to one length")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check_numbers(path: str | Path, inputs: Arrays, signature: Signature) -> None:
    """Holds the inputs of LXMERT's own tasks to the rules above. Those of a user's own module may mean something else."""
    if signature.lxmert_task is None:
        return
    for name, array in inputs.items():
        if array.dtype.kind == "f" and (largest := float(np.abs(array).max())) > LARGEST_MAGNITUDE:
            raise InputError(f"{path}: {name} reaches {largest:.3g}; values may be at most {LARGEST_MAGNITUDE:g}")


def _is_finite(array: NDArray[np.generic]) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _named(arrays: Mapping[str, NDArray[np.generic]], names: Sequence[str]) -> Arrays:
    return {name: array for name, array in arrays.items() if name in names}
