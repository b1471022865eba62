"""Takes out of TensorFlow's files what differs from run to run: the dates in a ``.keras`` file, a SavedModel's random id."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import IO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from tensorflow.core.protobuf import fingerprint_pb2

from lxmert_export.errors import ConversionError

FINGERPRINT = "fingerprint.pb"
METADATA, DATE = "metadata.json", "date_saved"
# A member's header stands before its data, and again in the directory at the end of the file.
LOCAL, LOCAL_DATE, LOCAL_LENGTHS = 30, 10, 26  # bytes, and where the date with the CRC, and the lengths are
LISTED, LISTED_DATE, LISTED_LENGTHS = 46, 12, 28
EARLIEST = struct.pack("<HH", 0, (1 << 5) | 1)  # midnight of 1980-01-01, as zip files count


def take_out_dates(path: Path) -> None:
    """Sets every date in a ``.keras`` file to 1980-01-01, in place: the weights are not copied.

    ``ConversionError``: Keras has written the file in another way than it did until now.
    """
    with ZipFile(path) as archive:
        members, listed, metadata = archive.infolist(), archive.start_dir, archive.read(METADATA)
    undated = json.dumps({**json.loads(metadata), DATE: "1980-01-01@00:00:00"}).encode()
    if len(undated) != len(metadata) or any(member.compress_type != ZIP_STORED for member in members):
        raise ConversionError(
            f"{path.name}: this version of Keras writes it in a way that is not known here; install that of constraints.txt"
        )
    with path.open("r+b") as file:
        for member in members:  # the directory lists them in this order
            crc = struct.pack("<I", zlib.crc32(undated) if member.filename == METADATA else member.CRC)
            file.seek(member.header_offset + LOCAL_DATE)
            file.write(EARLIEST + crc)
            file.seek(listed + LISTED_DATE)
            file.write(EARLIEST + crc)
            file.seek(listed + LISTED_LENGTHS)
            listed += LISTED + sum(struct.unpack("<HHH", file.read(6)))  # the name, the extra field, the comment
            if member.filename == METADATA:
                file.seek(_place_of_data(member, file))
                file.write(undated)


def _place_of_data(member: ZipInfo, file: IO[bytes]) -> int:
    file.seek(member.header_offset + LOCAL_LENGTHS)
    name, extra = struct.unpack("<HH", file.read(4))
    return int(member.header_offset + LOCAL + name + extra)


def take_out_id(saved_model: Path) -> None:
    """Removes the random id of a SavedModel, which nothing reads, from its fingerprint."""
    path = saved_model / FINGERPRINT
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.ClearField("uuid")
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))
