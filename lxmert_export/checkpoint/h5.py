"""Keras' HDF5 weight layout, as transformers' TFLxmert classes write and read it (``tf_model.h5``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from lxmert_export.errors import CheckpointError, first_line
from lxmert_export.files.hdf5_files import NotPlainDataError, plain_datasets, refuse_drivers
from lxmert_export.files.limits import inflates_too_far
from lxmert_export.files.patient_file import patient_file

# Keras writes these attributes into the root; transformers ignores them.
BACKEND, KERAS_VERSION = "tensorflow", "2.21.0"
# HDF5 stores an attribute in the object's header, which holds 64 KiB.
LARGEST_ATTRIBUTE = 64512


def read_h5(path: Path) -> tuple[dict[str, Tensor], dict[str, bool]]:
    """Reads the floating-point tensors by variable name, without the model's name and ``:0``.

    Also returns each name that is stored twice, with whether the copies are equal. Raises ``CheckpointError`` for a damaged file,
    and for a file with soft or external links.
    """
    tensors: dict[str, Tensor] = {}
    repeated: dict[str, bool] = {}
    try:
        with path.open("rb") as stream:
            refuse_drivers(stream)
        with h5py.File(path, "r") as file:
            found = [(_variable_name(parts), item) for parts, item in plain_datasets(file) if item.dtype.kind == "f"]
            claimed, stored = sum(dataset.nbytes for _, dataset in found), path.stat().st_size
            if inflates_too_far(claimed, stored):
                raise CheckpointError(f"{path}: claims {claimed} bytes of weights and has {stored}; write it again")
            for name, dataset in found:
                tensor = torch.from_numpy(dataset[...].astype(dataset.dtype.newbyteorder("="), copy=False))
                if name in tensors:
                    repeated[name] = repeated.get(name, True) and torch.equal(tensor, tensors[name])
                tensors[name] = tensor
    except NotPlainDataError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged HDF5 file: {first_line(error)}") from error
    return tensors, repeated


def _variable_name(parts: tuple[str, ...]) -> str:
    """Returns ``path/kernel`` for the parts layer, model's name, path…, ``kernel:0``.

    The model's name varies, and is missing in some files.
    """
    inner = list(parts[1:])  # Keras groups by layer, and repeats the layer's name below the model's
    if inner and inner[0].startswith("tf_lxmert"):
        inner = inner[1:]
    return "/".join(inner).removesuffix(":0")


def write_h5(path: Path, layers: Mapping[str, Mapping[str, Tensor]], model_name: str) -> None:
    """Writes tensors by layer, then by variable name. ``model_name`` is Keras' name of the whole model.

    ``OSError``: the file cannot be written.
    """
    with patient_file(path) as stream, h5py.File(stream, "w") as file:
        file.attrs["backend"], file.attrs["keras_version"] = BACKEND, KERAS_VERSION
        _set_names(file, "layer_names", list(layers))
        for layer, variables in layers.items():
            group = file.create_group(layer)
            names = [f"{model_name}/{name}:0" for name in variables]
            _set_names(group, "weight_names", names)
            for name, tensor in zip(names, variables.values(), strict=True):
                group.create_dataset(name, data=tensor.contiguous().numpy())
        _set_names(file.create_group("top_level_model_weights"), "weight_names", [])


def _set_names(group: h5py.Group, attribute: str, names: list[str]) -> None:
    """Stores a list of names as Keras does: in pieces ``attribute0``, ``attribute1``, … if one would be too large."""
    encoded = np.array([name.encode() for name in names]) if names else np.array([], dtype="S1")
    pieces = max(1, -(-encoded.nbytes // LARGEST_ATTRIBUTE))
    if pieces == 1:
        group.attrs[attribute] = encoded
        return
    for number, piece in enumerate(np.array_split(encoded, pieces)):
        group.attrs[f"{attribute}{number}"] = piece
