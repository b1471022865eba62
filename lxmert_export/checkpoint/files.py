"""Opens weight files: detects the format from the content, runs no code from the file, and checks tensors before use."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lxmert_export.checkpoint.archives import PickledStart, check_archive
from lxmert_export.checkpoint.formats import Format, format_of
from lxmert_export.checkpoint.lxmert_inside import nested_tensors
from lxmert_export.checkpoint.other_kinds import (
    is_part,
    refuse_adapter,
    refuse_converted,
    refuse_other_kinds,
    refuse_shard,
)
from lxmert_export.errors import CheckpointError, first_line, shortened
from lxmert_export.extras import H5PY, require
from lxmert_export.files.json_files import read_json
from lxmert_export.files.path_spelling import is_plain_name
from lxmert_export.files.replacing import TENSORFLOW_FILE

# The first of these that a directory holds is read. A `.pth` file of any name comes after them.
PREFERRED_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# What trainers write beside the weights.
TRAINING_STATE = (
    "rng_state*.pth", "optimizer*.pt", "optimizer*.pth", "optimizer*.bin", "scheduler*.pt", "scheduler*.pth", "scheduler*.bin",
    "scaler*.pt", "scaler*.pth", "training_args.bin",
)  # fmt: skip
# Weights under other names are never read by themselves, and compared with what is read.
LOOSE_SUFFIXES = (".pt", ".ckpt", ".bin", ".safetensors")
FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class RawWeights:
    """Tensors by their names in the files, not yet checked.

    Names in nested dictionaries are joined with dots. ``repeated`` holds each name that occurs twice, and whether the copies
    are equal.
    """

    paths: tuple[Path, ...]
    format: Format
    tensors: Mapping[str, Tensor]
    repeated: Mapping[str, bool]
    metadata: Mapping[str, str]


def find_weight_file(path: Path) -> Path:
    """Returns the weight file of a checkpoint's path, which is a file or a directory.

    Raises ``CheckpointError`` if a directory holds no weights, nothing but several ``.pth`` files, or an adapter beside its
    weights; or if the path is a converted model, a training's state, or weights in parts.
    """
    if path.is_file():
        if is_training_state(path.name):
            raise CheckpointError(
                f"{path}: holds the state of a training, not weights; name the model's file beside it"
            )
        refuse_converted(path)
        refuse_shard(path)
        return path
    found = weight_files(path)
    if len(found) > 1 and found[0].suffix == ".pth" and found[1].suffix == ".pth":
        names = ", ".join(file.name for file in found if file.suffix == ".pth")
        raise CheckpointError(f"{path}: holds several .pth files ({names}); name the one to read")
    if found:
        refuse_adapter(path, found[0])
        return found[0]
    refuse_converted(path)
    refuse_other_kinds(path, [file.name for file in loose_files(path)])
    expected = ", ".join((*PREFERRED_FILES, "*.pth", TENSORFLOW_FILE))
    raise CheckpointError(f"{path}: holds no weights; expected one of {expected}")


def weight_files(directory: Path) -> list[Path]:
    """Returns the sets of weights in a directory, the one that is read first; of a sharded set, its index."""
    preferred = [directory / name for name in PREFERRED_FILES]
    entries = sorted(directory.iterdir()) if directory.is_dir() else []
    originals = [file for file in entries if file.suffix == ".pth" and not is_training_state(file.name)]
    return [file for file in (*preferred, *originals, directory / TENSORFLOW_FILE) if file.is_file()]


def loose_files(directory: Path) -> list[Path]:
    """Returns the files that may hold weights, and are read only if they are named: ``best.pt``, ``last.ckpt``."""
    taken = {*PREFERRED_FILES, TENSORFLOW_FILE}
    found = (file for file in sorted(directory.iterdir()) if file.suffix in LOOSE_SUFFIXES and file.is_file())
    return [file for file in found if not (file.name in taken or is_training_state(file.name) or is_part(file.name))]


def is_training_state(name: str) -> bool:
    """Whether a file of this name holds a training's state, such as its optimizer's, and no weights."""
    return any(fnmatch(name, pattern) for pattern in TRAINING_STATE)


def read_weights(path: Path) -> RawWeights:
    """Opens a weight file or a shard index, memory-mapped if the format allows it.

    Raises ``CheckpointError`` for a file that is damaged, of another format, or unsafe to load.
    """
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    return _read_file(path)


def _read_file(path: Path) -> RawWeights:
    return READERS[format_of(path)](path)


def _read_shards(index: Path) -> RawWeights:
    names = _shard_names(index)
    shards = [_read_file(index.parent / name) for name in names]
    tensors: dict[str, Tensor] = {}
    repeated: dict[str, bool] = {}
    for shard in shards:
        for name, tensor in shard.tensors.items():
            if name in tensors:
                repeated[name] = False
            tensors[name] = tensor
        repeated |= shard.repeated
    return RawWeights(tuple(index.parent / n for n in names), shards[0].format, tensors, repeated, shards[0].metadata)


def _shard_names(index: Path) -> list[str]:
    try:
        places = read_json(index)["weight_map"]
        names = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: damaged index of a sharded checkpoint: {error}") from error
    for name in names:
        if not isinstance(name, str) or not is_plain_name(name):
            raise CheckpointError(f"{index}: names a file outside its directory: {name!r}")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: the shard {name} is missing; download it again")
    if not names:
        raise CheckpointError(f"{index}: lists no shards; download it again")
    return names


def _read_safetensors(path: Path) -> RawWeights:
    repeated = _repeated_header_keys(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged safetensors file: {first_line(error)}") from error
    return RawWeights((path,), "safetensors", tensors, repeated, metadata)


def _repeated_header_keys(path: Path) -> dict[str, bool]:
    """Returns the keys that occur twice in the JSON header: a JSON reader would silently keep only the last value."""
    seen: list[str] = []
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > path.stat().st_size - 8:
            raise CheckpointError(f"{path}: damaged safetensors file: its header claims {length} bytes")
        header = file.read(length)

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if any(isinstance(value, dict) for _, value in pairs):  # the outermost object, which lists the tensors
            seen.extend(key for key, _ in pairs)
        return dict(pairs)

    try:
        json.loads(header, object_pairs_hook=note)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged safetensors file: {first_line(error)}") from error
    return {key: False for key, count in Counter(seen).items() if count > 1}


def _read_archive(path: Path) -> RawWeights:
    """Reads PyTorch's archive. It is memory-mapped if all of its members are stored as they are."""
    return _load(path, path, mapped=check_archive(path))


def _read_pickle(path: Path) -> RawWeights:
    with path.open("rb") as file:
        return _load(path, PickledStart(path, file), mapped=False)


def _load(path: Path, opened: Any, *, mapped: bool) -> RawWeights:
    try:
        with warnings.catch_warnings():
            # torch warns of pickle protocols that it may not support: a file that it cannot read is refused below.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            # weights_only: nothing is unpickled that could run code.
            loaded = torch.load(opened, map_location="cpu", weights_only=True, mmap=mapped or None)
    except pickle.UnpicklingError as error:
        reason = "it holds more than tensors, and loading it could run code"
        if "Unsupported" not in str(error) and "weights_only" not in str(error) and "Weights only" not in str(error):
            reason = first_line(error)
        raise CheckpointError(f"{path}: refused: {reason}; save only its state_dict()") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError,
            AssertionError, OverflowError, UnicodeDecodeError, MemoryError, struct.error) as error:  # fmt: skip
        raise CheckpointError(f"{path}: damaged PyTorch file: {first_line(error)}; copy it again") from error
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not a state_dict of tensors by name")
    tensors: dict[str, Tensor] = {}
    repeated = {}
    for name, tensor in nested_tensors(loaded):
        if name in tensors:
            repeated[name] = False
        tensors[name] = tensor
    return RawWeights((path,), "pickle", tensors, repeated, {})


def _read_h5(path: Path) -> RawWeights:
    require(f"reading {path.name}", H5PY)
    from lxmert_export.checkpoint.h5 import read_h5

    tensors, repeated = read_h5(path)
    return RawWeights((path,), "h5", tensors, repeated, {"format": "tf"})


READERS: Mapping[Format, Callable[[Path], RawWeights]] = {
    "safetensors": _read_safetensors,
    "zip": _read_archive,
    "pickle": _read_pickle,
    "h5": _read_h5,
}


def check_stored(tensors: Mapping[str, Tensor]) -> None:
    """Checks that all are dense floating-point tensors whose bytes are really stored.

    Raises one ``CheckpointError`` that names all others.
    """
    faults = []
    for name, tensor in tensors.items():
        if tensor.is_meta:
            faults.append(f"{name} has no values: it was saved from the meta device, before any weights were loaded")
        elif tensor.layout != torch.strided or tensor.dtype not in FLOAT_DTYPES:
            kind = tensor.dtype if tensor.layout == torch.strided else tensor.layout
            faults.append(f"{name} is {kind}, not a dense floating-point tensor")
        # A stride of 0 lets a file of a thousand bytes claim 10^12 elements, so the claimed bytes must be stored.
        elif (claimed := tensor.numel() * tensor.element_size()) > (stored := tensor.untyped_storage().nbytes()):
            faults.append(f"{name} claims {claimed} bytes and stores {stored}")
    if faults:
        raise CheckpointError(shortened(faults))
