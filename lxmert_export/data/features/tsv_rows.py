"""The rows of feature files in tab-separated text: fields, numbers, and arrays in base64.

Two dialects. Their sources: airsplay/lxmert, src/utils.py; peteanderson80/bottom-up-attention, tools/generate_tsv.py. The second
has the width before the height, and ids that are numbers.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

FIELDS: dict[str, tuple[str, ...]] = {
    "airsplay-tsv": (
        "img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf", "num_boxes", "boxes", "features",
    ),
    "bottom-up-tsv": ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features"),
}  # fmt: skip
DIALECTS = {len(fields): dialect for dialect, fields in FIELDS.items()}
BOX_BYTES = 4 * 4
FLOAT = np.dtype("<f4")
HEAD = 1 << 14  # bytes: before the features, a row of 100 objects has 8,000


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
        return start[0].decode("utf-8") if len(start) == 2 else None
    except UnicodeDecodeError:
        return None


def parse_row(row: bytes | memoryview, dialect: str) -> Row:
    """Takes a row apart. ``ValueError`` says what is wrong with it. Nothing is decoded yet.

    ``row``: its bytes without the end of the line.
    """
    names = FIELDS[dialect]
    fields = _split(row, len(names))
    if len(fields) != len(names):
        raise ValueError(f"has {len(fields)} fields instead of {len(names)}: it is cut, or of another format")
    by_name = dict(zip(names, fields, strict=True))
    id_field, width, height = (
        ("img_id", "img_w", "img_h") if dialect == "airsplay-tsv" else ("image_id", "image_w", "image_h")
    )
    try:
        id = str(by_name[id_field], "utf-8")
    except UnicodeDecodeError:
        raise ValueError("its id is not UTF-8") from None
    if id.startswith("\ufeff"):
        raise ValueError("begins with a byte order mark: save the file as UTF-8 without it")
    size = (_number(by_name, width), _number(by_name, height))
    objects = _number(by_name, "num_boxes")
    boxes, features = _text(by_name["boxes"]), _text(by_name["features"])
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
    return np.frombuffer(_decoder()(text), FLOAT).reshape(objects, -1)


def decoded_size(text: memoryview) -> int:
    """Returns the bytes of an array in base64. ``ValueError``: no array has so many characters."""
    if len(text) % 4 or not len(text):
        raise ValueError(f"an array has {len(text)} characters of base64, not a multiple of 4: it is cut")
    return len(text) // 4 * 3 - bytes(text[-2:]).count(b"=")


@cache
def _decoder() -> Callable[[memoryview], bytes]:
    """pybase64's decoder where it is installed: it is many times as fast as Python's own."""
    try:
        import pybase64
    except ImportError:
        return lambda text: base64.b64decode(text, validate=True)
    return lambda text: pybase64.b64decode(text, validate=True)


def _split(row: bytes | memoryview, most: int) -> list[memoryview]:
    """The fields of a row, without copying them; one field more than there should be, and no further.

    All but the last begin near the start, so that of mapped memory only the start is copied to look for tabs.
    """
    view = memoryview(row)
    content = row if isinstance(row, bytes) else bytes(view[:HEAD])
    if content.count(b"\t") < most - 1:
        content = bytes(row)
    fields: list[memoryview] = []
    start = 0
    while len(fields) < most and (tab := content.find(b"\t", start)) >= 0:
        fields.append(view[start:tab])
        start = tab + 1
    return [*fields, view[start:]]


def _number(fields: dict[str, memoryview], name: str) -> int:
    text = bytes(fields[name][:20])
    if not text.isdigit() or not int(text):
        raise ValueError(f"its {name} is {text.decode('utf-8', 'backslashreplace')!r}, not a whole number above 0")
    return int(text)


def _text(field: memoryview) -> memoryview:
    """The base64 of a field: some programs of Python 3 wrote it as ``b'…'``."""
    return field[2:-1] if bytes(field[:2]) == b"b'" and bytes(field[-1:]) == b"'" else field
