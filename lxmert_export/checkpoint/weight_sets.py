"""Several sets of weights in one directory: an old ``pytorch_model.bin`` beside a new ``model.safetensors`` must not go unseen.

Two sets are the same if their names, shapes and values agree under our names, whatever their dialects. Values that are stored in
two dtypes agree if they are equal in the narrower one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lxmert_export.checkpoint.dialects import our_tensors, upstream_names
from lxmert_export.checkpoint.files import RawWeights, loose_files, read_weights, weight_files
from lxmert_export.checkpoint.mapped_memory import MappedFiles
from lxmert_export.errors import CheckpointError, MissingExtra, first_line
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.weight_names import TIED_DECODER, WORD_EMBEDDING

LOGGER = logging.getLogger(__name__)


def compare_sets(directory: Path, read: Path, raw: RawWeights, config: LxmertConfig) -> None:
    """Compares the weights that were read with every other set in their directory, and says what was read.

    Names and shapes are compared first, then values, one tensor at a time. ``CheckpointError``: another set differs.
    """
    loose = loose_files(directory)
    others = [file for file in (*weight_files(directory), *loose) if file != read]
    if not others:
        return
    ours = _by_our_names(raw, config)
    same, parts = [], {path.resolve() for path in raw.paths}  # whatever the shards of an index are called
    for other in others:
        if other.resolve() in parts:
            continue
        try:
            theirs = read_weights(other)
            parts |= {path.resolve() for path in theirs.paths}
            if other in loose and not _holds_lxmert(theirs):
                continue  # features, for example: nothing in its name says that it holds weights
            named = _by_our_names(theirs, config)
        except (CheckpointError, MissingExtra) as error:
            LOGGER.warning("%s: read, and not compared with %s beside it: %s", read, other.name, first_line(error))
            continue
        if difference := _difference(ours, named, (*raw.paths, *theirs.paths)):
            newer = max((read, other), key=lambda file: file.stat().st_mtime)
            raise CheckpointError(
                f"{directory}: holds two sets of weights that differ, {read.name} and {other.name} ({newer.name} is newer): "
                f"{difference}; name the one to read: {read} or {other}"
            )
        same.append(other.name)
    if same:
        LOGGER.warning("%s: read; %s beside it holds the same weights", read, ", ".join(same))


def _holds_lxmert(raw: RawWeights) -> bool:
    return any("x_layers." in name or "cross_modality_layers." in name for name in raw.tensors)


def _by_our_names(raw: RawWeights, config: LxmertConfig) -> dict[str, Tensor]:
    ours, unexpected = our_tensors(upstream_names(raw), config)
    if unexpected and not ours:
        raise CheckpointError("it holds no LXMERT weights")
    return ours


def _difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], paths: tuple[Path, ...]) -> str | None:
    """Returns the first difference of two sets; None if there is none."""
    ours, theirs = _with_decoder(ours, theirs), _with_decoder(theirs, ours)
    if odd := sorted(ours.keys() ^ theirs.keys()):
        return f"only one has {odd[0]}" + (f" and {len(odd) - 1} more tensors" if len(odd) > 1 else "")
    if odd := [name for name in ours if ours[name].shape != theirs[name].shape]:
        return f"{odd[0]} is {list(ours[odd[0]].shape)} and {list(theirs[odd[0]].shape)}"
    mapped = MappedFiles(paths)
    for name, tensor in ours.items():
        if not _equal(tensor, theirs[name]):
            return f"{name} has other values"
        mapped.forget()
    return None


def _with_decoder(tensors: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Adds a tied word decoder that one set leaves out and the other repeats."""
    if TIED_DECODER in tensors or TIED_DECODER not in other or WORD_EMBEDDING not in tensors:
        return tensors
    return {**tensors, TIED_DECODER: tensors[WORD_EMBEDDING]}


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, in the dtype of the narrower one."""
    if one.dtype != other.dtype:
        narrow = min(one.dtype, other.dtype, key=lambda dtype: (dtype.itemsize, dtype == torch.bfloat16))
        one, other = one.to(narrow), other.to(narrow)
    return torch.equal(one, other)
