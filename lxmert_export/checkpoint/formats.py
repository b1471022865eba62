"""Decides what a weight file is, in one place, by its whole signature; and reads no further than that."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

from lxmert_export.errors import CheckpointError
from lxmert_export.files.lfs_pointers import not_copied
from lxmert_export.files.limits import LARGEST_SAFETENSORS_HEADER

Format = Literal["safetensors", "zip", "pickle", "h5"]

H5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")  # an archive, and an empty one
PICKLE_PROTOCOLS = range(2, 6)  # a pickle begins with 0x80 and its protocol
LONGEST_SIGNATURE = 16


def format_of(path: Path) -> Format:
    """Returns the format of a weight file, whatever its name is.

    | the file begins with | format |
    |---|---|
    | the length of a JSON header (uint64, little-endian, at most 8 MB), then ``{`` | ``safetensors`` |
    | ``\\x89HDF\\r\\n\\x1a\\n`` | ``h5`` |
    | ``PK\\x03\\x04`` | ``zip``: PyTorch's archive |
    | ``\\x80`` and a protocol from 2 to 5 | ``pickle``: PyTorch's older layout |

    The length of a safetensors header may begin with the bytes of another signature, so safetensors is asked first.
    ``CheckpointError``: the file cannot be read, is empty, is a Git LFS pointer, or is none of these.
    """
    try:
        with path.open("rb") as file:
            start = file.read(LONGEST_SIGNATURE)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if problem := not_copied(start):
        raise CheckpointError(f"{path}: {problem}")
    if start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= LARGEST_SAFETENSORS_HEADER:
        return "safetensors"
    if start.startswith(H5_SIGNATURE):
        return "h5"
    if start.startswith(ZIP_SIGNATURES):
        return "zip"
    if len(start) > 1 and start[0] == 0x80 and start[1] in PICKLE_PROTOCOLS:
        return "pickle"
    if start[8:9] == b"{":
        raise CheckpointError(
            f"{path}: damaged safetensors file: its header claims more than {LARGEST_SAFETENSORS_HEADER} bytes"
        )
    raise CheckpointError(f"{path}: is not a PyTorch, safetensors or HDF5 file; copy or download it again")
