"""The rows of feature files in tab-separated text: fields, numbers, and arrays in base64.

Two dialects. Their sources: airsplay/lxmert, src/utils.py; peteanderson80/bottom-up-attention, tools/generate_tsv.py. The second
has the width before the height, and ids that are numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIELDS: dict[str, tuple[str, ...]] = {
    "airsplay-tsv": (
        "img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf", "num_boxes", "boxes", "features",
    ),
    "bottom-up-tsv": ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features"),
}  # fmt: skip
SIZES = {"airsplay-tsv": ("img_w", "img_h"), "bottom-up-tsv": ("image_w", "image_h")}
DIALECTS = {len(fields): dialect for dialect, fields in FIELDS.items()}
BOX_BYTES = 4 * 4
FLOAT = np.dtype("<f4")


@dataclass(frozen=True)
class Row:
    """A row whose fields fit one another. ``boxes`` and ``features`` are still in base64."""

    id: str
    size: tuple[int, int]
    objects: int
    width: int
    boxes: memoryview
    features: memoryview


def id_of(row: bytes) -> str | None:
    """Returns the id that a row begins with; None if it has none."""
    start = row[:1000].split(b"\t", 1)
    try:
        id = start[0].decode("utf-8") if len(start) == 2 else ""
    except UnicodeDecodeError:
        return None
    return id if id.strip() else None


def parse_row(row: bytes | memoryview, dialect: str, features_at: int) -> Row:
    """Takes a row apart. ``ValueError`` says what is wrong with it. Nothing is decoded yet.

    ``row``: its bytes without the end of the line. ``features_at``: where its last field begins, behind the last tab.
    """
    names = FIELDS[dialect]
    fields = bytes(row[: max(features_at - 1, 0)]).split(b"\t")
    if len(fields) != len(names) - 1:
        raise ValueError(f"has {len(fields) + 1} fields instead of {len(names)}: it is cut, or of another format")
    by_name = dict(zip(names[:-1], fields, strict=True))  # all but the features, which are long
    try:
        id = fields[0].decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("its id is not UTF-8") from None
    if id.startswith("\ufeff"):
        raise ValueError("begins with a byte order mark: save the file as UTF-8 without it")
    if not id.strip():
        raise ValueError("its id is empty")
    width, height = SIZES[dialect]
    size = (_number(by_name, width), _number(by_name, height))
    objects = _number(by_name, "num_boxes")
    boxes, features = _text(memoryview(by_name["boxes"])), _text(memoryview(row)[features_at:])
    if (found := decoded_size(boxes)) != objects * BOX_BYTES:
        raise ValueError(
            f"its boxes have {found} bytes instead of {objects * BOX_BYTES}, for {objects} objects: it is cut, or no float32"
        )
    row_bytes = decoded_size(features)
    if row_bytes % (objects * FLOAT.itemsize) or not row_bytes:
        raise ValueError(f"its features have {row_bytes} bytes, which {objects} objects cannot share: it is cut")
    return Row(id, size, objects, row_bytes // (objects * FLOAT.itemsize), boxes, features)


def decode(text: memoryview, objects: int) -> NDArray[np.float32]:
    """Decodes an array in base64 (float32 [objects, …]). ``ValueError``: it is not base64."""
    return np.frombuffer(_library().b64decode(text, validate=True), FLOAT).reshape(objects, -1)


def encode(array: NDArray[np.generic]) -> bytes:
    """Returns an array's float32 numbers in base64."""
    encoded: bytes = _library().b64encode(np.ascontiguousarray(array, FLOAT).tobytes())
    return encoded


def decoded_size(text: memoryview) -> int:
    """Returns the bytes of an array in base64. ``ValueError``: no array has so many characters."""
    if len(text) % 4 or not len(text):
        raise ValueError(f"an array has {len(text)} characters of base64, not a multiple of 4: it is cut")
    return len(text) // 4 * 3 - bytes(text[-2:]).count(b"=")


@cache
def _library() -> Any:
    """pybase64 where it is installed: it is many times as fast as Python's own, and has the same functions."""
    try:
        return import_module("pybase64")
    except ImportError:
        return import_module("base64")


def _number(fields: dict[str, bytes], name: str) -> int:
    text = fields[name][:20]
    if not text.isdigit() or not int(text):
        raise ValueError(f"its {name} is {text.decode('utf-8', 'backslashreplace')!r}, not a whole number above 0")
    return int(text)


def _text(field: memoryview) -> memoryview:
    """The base64 of a field: some programs of Python 3 wrote it as ``b'…'``."""
    return field[2:-1] if bytes(field[:2]) == b"b'" and bytes(field[-1:]) == b"'" else field
