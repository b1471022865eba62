"""Files of named arrays, as users bring them: ``.npz`` and ``.safetensors``."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lxmert_export.errors import InputError

ARRAY_SIGNATURE = b"\x93NUMPY"  # of a .npy file


def read_arrays(path: str | Path, what: str) -> dict[str, NDArray[np.generic]]:
    """All arrays of a file by name; ``InputError`` says where it cannot be read as ``what``."""
    file = Path(path)
    try:
        if file.suffix == ".npz":
            return _read_npz(file)
        if file.suffix == ".safetensors":
            return dict(load_file(file))
    except (OSError, ValueError, TypeError, EOFError, SafetensorError, BadZipFile, zlib.error) as error:
        raise InputError(f"{file}: cannot be read as {what}: {error}") from error
    raise InputError(f"{file}: {what} are a .npz or .safetensors file")


def _read_npz(file: Path) -> dict[str, NDArray[np.generic]]:
    """All arrays of an archive. ``ValueError`` says what it is instead, without numpy's advice to run what it holds."""
    with file.open("rb") as stream:  # numpy leaves a file open that it cannot read
        start = stream.read(len(ARRAY_SIGNATURE))
        if start == ARRAY_SIGNATURE:
            raise ValueError("it is one array, not an archive of named ones")
        if not start.startswith(b"PK"):
            raise ValueError("it is no archive of arrays, as numpy.savez writes")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as stored:
            return {name: _array(stored, name) for name in stored.files}


def _array(stored: Any, name: str) -> NDArray[np.generic]:
    try:
        return np.asarray(stored[name])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ValueError(f"{name} holds Python objects; save it as an array of numbers") from error
