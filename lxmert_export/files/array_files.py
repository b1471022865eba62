"""Reads users' files of named arrays: ``.npz``, ``.safetensors``, and the JSON of ``polygraphy run --save-inputs``."""

from __future__ import annotations

import base64
import io
import math
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lxmert_export.errors import InputError
from lxmert_export.files.json_files import parse_json
from lxmert_export.files.limits import inflates_too_far
from lxmert_export.files.plain_pickles import load_pickle
from lxmert_export.files.zip_archives import open_archive

ARRAY_SIGNATURE = b"\x93NUMPY"  # the first bytes of a .npy file
ZIP_SIGNATURE = b"PK"
POLYGRAPHY_CLASS = "polygraphy_class"  # the key under which Polygraphy stores the class of a JSON object

# What the libraries raise on a file that is damaged, encrypted, of another compression, or made to break them.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError, ValueError, TypeError, EOFError, RuntimeError, OverflowError, MemoryError, SafetensorError, BadZipFile,
    AttributeError, KeyError, zlib.error, SyntaxError, TokenError,  # numpy reads the header of an array as Python
)  # fmt: skip


def read_arrays(path: str | Path, what: str) -> dict[str, NDArray[np.generic]]:
    """Reads all arrays of a ``.npz`` or ``.safetensors`` file, by name.

    ``what`` says in messages what the file is for, such as "inputs". ``InputError``: the file cannot be read.
    """
    file = Path(path)
    try:
        if file.suffix == ".npz":
            return _read_npz(file)
        if file.suffix == ".safetensors":
            return dict(load_file(file))
    except UNREADABLE as error:
        raise InputError(f"{file}: cannot be read as {what}: {error}") from error
    raise InputError(f"{file}: cannot be read as {what}: give a .npz or .safetensors file, or Polygraphy's .json")


def read_plain_data(path: Path) -> dict[str, Any]:
    """Reads the arrays of a ``.npz`` or ``.safetensors`` file, or of a ``.npy`` file as the array named "", by its content.

    An array of Python objects becomes what it holds, such as a dictionary, if that is plain data. ``OSError`` or
    ``ValueError``: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(ARRAY_SIGNATURE))
        if start == ARRAY_SIGNATURE:
            return {"": parse_npy(path.read_bytes())}
        if not start.startswith(ZIP_SIGNATURE):
            return dict(load_file(path))
        _check_members(path)
        with open_archive(path) as archive:
            return {name.removesuffix(".npy"): parse_npy(archive.read(name)) for name in archive.namelist()}
    except (OSError, ValueError):
        raise
    except UNREADABLE as error:
        raise ValueError(f"cannot be read: {error}") from error


def parse_npy(content: bytes) -> Any:
    """Returns the array of a ``.npy`` file's bytes; of one of Python objects, what it holds. ``ValueError``: it is damaged."""
    if not content.startswith(ARRAY_SIGNATURE):  # numpy would read anything else as a pickle or an archive
        raise ValueError("is no array of numpy, as numpy.save writes")
    stream = io.BytesIO(content)
    _, dtype = _header(stream)
    return (
        load_pickle(content[stream.tell() :]) if dtype.hasobject else np.load(io.BytesIO(content), allow_pickle=False)
    )


def read_batches(path: str | Path, what: str) -> list[dict[str, NDArray[np.generic]]]:
    """Reads a file as ``read_arrays`` does, as a list of batches. Polygraphy's JSON has a batch for each feed dict."""
    file = Path(path)
    if file.suffix != ".json":
        return [read_arrays(file, what)]
    try:
        return _read_feed_dicts(parse_json(file.read_text(encoding="utf-8")))
    except UNREADABLE as error:
        raise InputError(f"{file}: cannot be read as {what}: {error}") from error


def _read_feed_dicts(stored: Any) -> list[dict[str, NDArray[np.generic]]]:
    """The arrays of each feed dict, by name. Polygraphy's own reader is not used: it would also unpickle PyTorch files."""
    batches = stored if isinstance(stored, list) else [stored]
    if not batches or not all(isinstance(batch, dict) and POLYGRAPHY_CLASS not in batch for batch in batches):
        raise ValueError("it is not a list of named arrays, as polygraphy run --save-inputs writes")
    return [{name: _decode_array(array, name) for name, array in batch.items()} for batch in batches]


def _decode_array(stored: Any, name: str) -> NDArray[np.generic]:
    """Decodes one array: a JSON object that holds a .npy file in base64."""
    if (
        not isinstance(stored, dict)
        or stored.get(POLYGRAPHY_CLASS) != "ndarray"
        or not isinstance(stored.get("array"), str)
    ):
        raise ValueError(f"{name} is not a numpy array that Polygraphy wrote")
    content = base64.b64decode(stored["array"], validate=True)
    if not content.startswith(ARRAY_SIGNATURE):  # numpy would read anything else as a pickle or an archive
        raise ValueError(f"{name} does not hold a .npy file")
    return _of_numbers(name, partial(np.load, io.BytesIO(content), allow_pickle=False))


def _read_npz(file: Path) -> dict[str, NDArray[np.generic]]:
    """Reads an archive. ``ValueError``: it is something else. numpy's own message would advise to unpickle the file."""
    with file.open("rb") as stream:  # numpy does not close a file that it cannot read
        start = stream.read(len(ARRAY_SIGNATURE))
        if start == ARRAY_SIGNATURE:
            raise ValueError("it is one array, not an archive of named arrays; write it with numpy.savez")
        if not start.startswith(ZIP_SIGNATURE):
            raise ValueError("it is not an archive of arrays, as numpy.savez writes")
        _check_members(file)
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as stored:
            return {name: _of_numbers(name, partial(stored.__getitem__, name)) for name in stored.files}


def _check_members(file: Path) -> None:
    """``ValueError``: an archive that inflates to fill the memory, or an array that claims more bytes than its member has."""
    with open_archive(file) as archive:
        held, size = sum(member.file_size for member in archive.infolist()), file.stat().st_size
        if inflates_too_far(held, size):
            raise ValueError(f"it would inflate from {size} to {held} bytes")
        for member in archive.infolist():
            with archive.open(member) as array:
                if array.read(len(ARRAY_SIGNATURE)) != ARRAY_SIGNATURE:  # a folder, or no array
                    continue
                array.seek(0)
                shape, dtype = _header(array)
            if dtype.itemsize * math.prod(shape) > member.file_size and not dtype.hasobject:
                raise ValueError(f"{member.filename} claims {shape} and has {member.file_size} bytes")


def _header(array: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and the type that a ``.npy`` file claims."""
    version = np.lib.format.read_magic(array)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(array)
    return shape, dtype


def _of_numbers(name: str, read: Callable[[], Any]) -> NDArray[np.generic]:
    try:
        return np.asarray(read())
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ValueError(f"{name} holds Python objects; save it as an array of numbers") from error
