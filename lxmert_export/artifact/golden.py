"""The golden file: sample inputs, reference outputs and noise floors. With it any device can check an artifact without PyTorch.

It is a safetensors file with these tensors:

    input/FAMILY/BATCH/NAME           an input in the signature's dtype; in float16 if that keeps every value exactly
    reference/FAMILY/OUTPUT/BATCH     float64 values of the canonical model at ``sampled_positions`` of the output
    shape/FAMILY/OUTPUT/BATCH         int64 shape of the whole output
    floor/FAMILY/OUTPUT               float64 [floor RMS, reference RMS, number of samples, number of values]
    tie/FAMILY/OUTPUT/BATCH           of outputs that hold integers: uint8, 1 where the reference is near a tie
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from lxmert_export.artifact.directory import GOLDEN_FILE, Artifact
from lxmert_export.errors import PACKAGE, ArtifactError
from lxmert_export.files.json_files import parse_json
from lxmert_export.files.safetensors_files import write_safetensors
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.scores import Floor
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.sample_inputs import Family, SampleInputs
from lxmert_export.spec.signature import Signature

FORMAT = "lxmert-export golden 1"
# The word logits of a full-size model would fill 70 MB. This many per output and batch, evenly spread, show the same errors.
LARGEST_SAMPLE = 8192


@dataclass(frozen=True)
class Golden:
    """What a golden file holds.

    ``reference`` holds small outputs whole, and large outputs as flat arrays of the values at ``sampled_positions``. ``shapes``
    holds the whole shapes, by (family, output), one for each batch; ``floors`` has the same keys.
    """

    samples: SampleInputs
    reference: Recording
    shapes: dict[tuple[str, str], list[tuple[int, ...]]]
    floors: dict[tuple[str, str], Floor]


def sampled_positions(size: int) -> NDArray[np.int64]:
    """Returns the flat positions (int64 [at most 8192]) of an output of ``size`` values that the golden file keeps."""
    return np.linspace(0, size - 1, min(size, LARGEST_SAMPLE)).astype(np.int64)


def is_whole(shape: tuple[int, ...]) -> bool:
    """Whether the golden file keeps every value of an output of this shape."""
    return math.prod(shape) <= LARGEST_SAMPLE


def at_sampled_positions(recording: Recording, golden: Golden) -> Recording:
    """Cuts the large arrays of a recording to the values that the golden file keeps, as flat arrays.

    Arrays of another shape than the reference stay as they are: the comparison refuses them later.
    """
    return {
        key: [
            chunk.reshape(-1)[sampled_positions(chunk.size)] if chunk.shape == shape and not is_whole(shape) else chunk
            for chunk, shape in zip(chunks, golden.shapes.get(key, [c.shape for c in chunks]), strict=True)
        ]
        for key, chunks in recording.items()
    }


def first_batches(samples: SampleInputs) -> SampleInputs:
    """Returns the batches that a golden file holds: as many of each family as its least number of samples needs."""
    families = tuple(Family(f.name, f.batches[: f.first_batches], whole=True) for f in samples.families)
    return SampleInputs(families, samples.not_run)


def write_golden(
    path: Path, samples: SampleInputs, reference: Recording, floors: Mapping[tuple[str, str], Floor]
) -> None:
    """Writes the golden file from what the parity gate ran."""
    tensors: dict[str, NDArray[np.generic]] = {}
    for family in first_batches(samples).families:
        for number, batch in enumerate(family.batches):
            for name, array in batch.items():
                tensors[f"input/{family.name}/{number}/{name}"] = _smallest(array)
    batches = {family.name: family.first_batches for family in samples.families}
    for (family_name, output), chunks in reference.items():
        for number, chunk in enumerate(chunks[: batches[family_name]]):
            place = f"{family_name}/{output}/{number}"
            tensors[f"reference/{place}"] = chunk.reshape(-1)[sampled_positions(chunk.size)].astype(np.float64)
            tensors[f"shape/{place}"] = np.array(chunk.shape, dtype=np.int64)
        floor = floors[family_name, output]
        for number, tied in enumerate((floor.ties or ())[: batches[family_name]]):
            kept = tied.reshape(-1)[sampled_positions(tied.size)]
            tensors[f"tie/{family_name}/{output}/{number}"] = kept.astype(np.uint8)
        tensors[f"floor/{family_name}/{output}"] = np.array(
            [floor.rms, floor.reference_rms, floor.samples, floor.values], dtype=np.float64
        )
    metadata = {"format": FORMAT, "not_run": json.dumps(samples.not_run)}
    write_safetensors(path, tensors, metadata)


def _smallest(array: NDArray[np.generic]) -> NDArray[np.generic]:
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):  # a value that overflows is not equal: the array stays as it is
        half = array.astype(np.float16)
    return half if np.array_equal(half.astype(array.dtype), array) else array


def read_golden(path: Path, signature: Signature) -> Golden:
    """Reads a golden file. ``ArtifactError``: it is damaged, or does not fit the signature."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        if metadata.get("format") != FORMAT:
            raise ArtifactError(f"{path}: not a golden file of this version ({metadata.get('format')!r})")
        return _parse(tensors, _names(parse_json(metadata["not_run"])), signature)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ArtifactError(f"{path}: damaged golden file: {error}") from error


def _names(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("not_run is not a list of names")
    return tuple(values)


def _parse(tensors: Arrays, not_run: tuple[str, ...], signature: Signature) -> Golden:
    dtypes = {spec.name: spec.dtype for spec in signature.inputs}
    inputs: dict[str, dict[int, Arrays]] = {}
    by_batch: dict[str, dict[tuple[str, str], dict[int, NDArray[np.generic]]]] = {
        "reference": {},
        "shape": {},
        "tie": {},
    }
    floors = {}
    for name, array in tensors.items():
        kind, family, rest = name.split("/", 2)
        if kind == "floor":
            rms, reference_rms, samples, values = array.tolist()
            floors[family, rest] = Floor(rms, reference_rms, int(samples), int(values))
        elif kind == "input":
            number, input_name = rest.split("/", 1)
            inputs.setdefault(family, {}).setdefault(int(number), {})[input_name] = array.astype(dtypes[input_name])
        else:
            output, number = rest.rsplit("/", 1)
            by_batch[kind].setdefault((family, output), {})[int(number)] = array
    families = tuple(
        Family(name, tuple(b for _, b in sorted(batches.items())), whole=True) for name, batches in inputs.items()
    )
    if not families or not floors or set(floors) != set(by_batch["reference"]):
        raise ValueError("inputs, reference outputs or floors are missing")
    known = {spec.name for spec in signature.outputs}
    if strange := {output for _, output in floors} - known:
        raise ValueError(f"holds the outputs {', '.join(sorted(strange))}, which the artifact does not have")
    shapes = {
        key: [tuple(array.tolist()) for _, array in sorted(found.items())] for key, found in by_batch["shape"].items()
    }
    reference, ties = (
        {
            key: [
                array.reshape(shape) if is_whole(shape) else array
                for (_, array), shape in zip(sorted(found.items()), shapes[key], strict=True)
            ]
            for key, found in by_batch[kind].items()
        }
        for kind in ("reference", "tie")
    )
    floors |= {key: replace(floors[key], ties=tuple(tied != 0 for tied in found)) for key, found in ties.items()}
    return Golden(SampleInputs(families, not_run), reference, shapes, floors)


def golden_of(artifact: Artifact) -> Golden:
    """Reads the golden file of an artifact. ``ArtifactError``: the artifact has none."""
    if GOLDEN_FILE not in artifact.manifest.files:
        mend = f"judge it by its checkpoint: {PACKAGE} parity {artifact.path} --checkpoint CHECKPOINT"
        if artifact.is_calibrated:
            mend = "it keeps no real inputs to judge it on; export it again"
        raise ArtifactError(f"{artifact.path}: was written with --no-parity, so it has no golden file; {mend}")
    with artifact.unreplaced():
        return read_golden(artifact.file(GOLDEN_FILE), artifact.manifest.signature)
