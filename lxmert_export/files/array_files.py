"""Files of named arrays, as users bring them: ``.npz``, ``.safetensors``, and the JSON of ``polygraphy run --save-inputs``."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lxmert_export.errors import InputError

ARRAY_SIGNATURE = b"\x93NUMPY"  # of a .npy file
POLYGRAPHY_CLASS = "polygraphy_class"  # the key under which Polygraphy names what a JSON object was


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


def read_batches(path: str | Path, what: str) -> list[dict[str, NDArray[np.generic]]]:
    """As ``read_arrays``, a batch after the other: one, but of Polygraphy's JSON as many as it has feed dicts."""
    file = Path(path)
    if file.suffix != ".json":
        return [read_arrays(file, what)]
    try:
        return _read_feed_dicts(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, EOFError, MemoryError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as {what}: {error}") from error


def _read_feed_dicts(stored: Any) -> list[dict[str, NDArray[np.generic]]]:
    """Arrays by name of each feed dict. Read without Polygraphy, whose own reader would open PyTorch's files, too."""
    batches = stored if isinstance(stored, list) else [stored]
    if not batches or not all(isinstance(batch, dict) and POLYGRAPHY_CLASS not in batch for batch in batches):
        raise ValueError("it is no list of arrays by name, as polygraphy run --save-inputs writes")
    return [{name: _decode_array(array, name) for name, array in batch.items()} for batch in batches]


def _decode_array(stored: Any, name: str) -> NDArray[np.generic]:
    """One array: an object that holds a .npy file in base64."""
    if (
        not isinstance(stored, dict)
        or stored.get(POLYGRAPHY_CLASS) != "ndarray"
        or not isinstance(stored.get("array"), str)
    ):
        raise ValueError(f"{name} is no numpy array of Polygraphy's")
    content = base64.b64decode(stored["array"], validate=True)
    if not content.startswith(ARRAY_SIGNATURE):  # numpy would take it for a pickle or an archive
        raise ValueError(f"{name} holds no .npy file")
    return _of_numbers(name, partial(np.load, io.BytesIO(content), allow_pickle=False))


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
            return {name: _of_numbers(name, partial(stored.__getitem__, name)) for name in stored.files}


def _of_numbers(name: str, read: Callable[[], Any]) -> NDArray[np.generic]:
    try:
        return np.asarray(read())
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ValueError(f"{name} holds Python objects; save it as an array of numbers") from error
