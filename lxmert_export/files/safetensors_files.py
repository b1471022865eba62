"""Writes safetensors files whose bytes depend on their contents alone."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[np.generic]], metadata: Mapping[str, str]) -> None:
    """Writes arrays by name, with metadata in the order of its keys.

    safetensors itself writes the metadata of two files with the same contents in different orders. ``OSError``: it cannot be
    written.
    """
    with failed_writes():
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path, dict(metadata))
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        assert len(text) == length, "the same JSON in another order has the same length"
        file.seek(8)
        file.write(text)


@contextmanager
def failed_writes() -> Iterator[None]:
    """Raises the system's ``OSError`` for safetensors' own, which holds its number in its message alone."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
