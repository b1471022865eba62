"""Damages valid files: as bytes, as JSON, and inside the containers that hold them."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipFile, ZipInfo

import numpy as np

Generator = np.random.Generator
Mutate = Callable[[bytes, Generator], bytes]

MOST_CHANGES = 4  # in one file
LONGEST_PIECE = 200  # bytes that are cut, copied or inserted
INTERESTING_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF)
INTERESTING_NUMBERS = (0, 1, -1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**48, 2**62, 2**63 - 1)
# What json.dumps cannot write: each stands for the text after it.
RAW = {
    "@deep@": "[" * 50_000 + "]" * 50_000,
    "@deep object@": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "@digits@": "9" * 5000,
    "@infinite@": "1e999",
    "@nan@": "NaN",
    "@surrogate@": '"\\ud800"',
    "@twice@": '{"a": 1, "a": 2}',
}
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, 10**40, -(10**40), 0.5, -1.5, 1e300, 1e-320, "", "x", "0", "x" * 5000, "\0",
    "../x", "/etc/passwd", "é\u2028\U0001f600", "a/b/c", "1\n2", [], {}, [None], [[]], [1, "a"], {"": 0}, {"a": {}},
    {"x" * 5000: 1}, *RAW,
)  # fmt: skip


def damaged(content: bytes, generator: Generator) -> bytes:
    """Returns the bytes with one to four changes: bits, bytes and numbers overwritten, pieces cut, copied or inserted."""
    changed = bytearray(content)
    for _ in range(generator.integers(1, MOST_CHANGES + 1)):
        _one_of(CHANGES, generator)(changed, generator)
    return bytes(changed)


def _flip_bits(content: bytearray, generator: Generator) -> None:
    for _ in range(generator.integers(1, 9) if content else 0):
        content[_place(content, generator)] ^= 1 << int(generator.integers(8))


def _set_byte(content: bytearray, generator: Generator) -> None:
    if content:
        content[_place(content, generator)] = _one_of(INTERESTING_BYTES, generator)


def _set_number(content: bytearray, generator: Generator) -> None:
    width = int(_one_of((1, 2, 4, 8), generator))
    number = _one_of(INTERESTING_NUMBERS, generator) % 2 ** (8 * width)
    place = _place(content, generator)
    content[place : place + width] = number.to_bytes(width, _one_of(("little", "big"), generator))


def _truncate(content: bytearray, generator: Generator) -> None:
    del content[_place(content, generator) :]


def _cut(content: bytearray, generator: Generator) -> None:
    place = _place(content, generator)
    del content[place : place + int(generator.integers(1, LONGEST_PIECE))]


def _copy(content: bytearray, generator: Generator) -> None:
    """Puts a piece of the file to another place of it, in addition to or over what stands there."""
    source, place, length = (
        _place(content, generator),
        _place(content, generator),
        int(generator.integers(1, LONGEST_PIECE)),
    )
    piece = content[source : source + length]
    content[place : place + (len(piece) if generator.random() < 0.5 else 0)] = piece


def _insert(content: bytearray, generator: Generator) -> None:
    place, length = _place(content, generator), int(generator.integers(1, LONGEST_PIECE))
    piece = (
        generator.bytes(length) if generator.random() < 0.5 else bytes([_one_of(INTERESTING_BYTES, generator)]) * length
    )
    content[place:place] = piece


CHANGES: Sequence[Callable[[bytearray, Generator], None]] = (
    _flip_bits, _set_byte, _set_number, _truncate, _cut, _copy, _insert,
)  # fmt: skip


def damaged_json(content: bytes, generator: Generator) -> bytes:
    """Returns JSON with one to four values or keys exchanged, left out or added; now and then damaged as bytes."""
    if generator.random() < 0.2:
        return damaged(content, generator)
    return text_of(odd_json(json.loads(content), generator)).encode("utf-8", "surrogatepass")


def odd_json(values: Any, generator: Generator) -> Any:
    """Returns parsed JSON with one to four odd places; ``text_of`` writes it."""
    for _ in range(generator.integers(1, MOST_CHANGES + 1)):
        values = _with_odd_place(values, generator)
    return values


def text_of(values: Any) -> str:
    """Returns the text of what ``odd_json`` returned."""
    text = json.dumps(values, ensure_ascii=False)
    for mark, raw in RAW.items():
        text = text.replace(f'"{mark}"', raw)
    return text


def _with_odd_place(values: Any, generator: Generator) -> Any:
    """Goes down a random way, and changes what it ends at."""
    if isinstance(values, dict) and values and generator.random() < 0.85:
        key = _one_of(list(values), generator)
        chance = generator.random()
        if chance < 0.1:
            return {name: value for name, value in values.items() if name != key}
        if chance < 0.2:
            odd = _one_of(("", "x", "../x", "x" * 5000, "\0", key + key, *values), generator)
            return {odd if name == key else name: value for name, value in values.items()}
        if chance < 0.25:
            return {**values, "unknown": _one_of(ODD_VALUES, generator)}
        return {**values, key: _with_odd_place(values[key], generator)}
    if isinstance(values, list) and values and generator.random() < 0.85:
        place, chance = int(generator.integers(len(values))), generator.random()
        if chance < 0.15:
            return values[:place] + values[place + 1 :]
        if chance < 0.3:
            return [*values, *values[: place + 1]]
        return [*values[:place], _with_odd_place(values[place], generator), *values[place + 1 :]]
    if isinstance(values, int) and not isinstance(values, bool) and generator.random() < 0.4:
        return values + int(_one_of((-1, 1, values, -2 * values, 255), generator))
    return _one_of(ODD_VALUES, generator)


def damaged_safetensors(content: bytes, generator: Generator) -> bytes:
    """Returns a safetensors file with an odd header of the right length, or damaged as bytes."""
    chance = generator.random()
    if chance < 0.3:
        return damaged(content, generator)
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    if chance < 0.6:
        header = damaged_json(header, generator)
    else:
        header, data = _other_tensors(json.loads(header), data, generator)
    return struct.pack("<Q", len(header)) + header + data


def _other_tensors(header: dict[str, Any], data: bytes, generator: Generator) -> tuple[bytes, bytes]:
    """The header and data of a sound safetensors file whose tensors have other names, dtypes, shapes or values."""
    kept = {name: facts for name, facts in header.items() if name != "__metadata__"}
    tensors = {
        name: (facts["dtype"], facts["shape"], data[slice(*facts["data_offsets"])]) for name, facts in kept.items()
    }
    for _ in range(generator.integers(1, MOST_CHANGES + 1)):
        name = _one_of(sorted(tensors), generator)
        changed = _other_tensor(name, *tensors.pop(name), generator)
        tensors.update([changed])
    facts, place = {}, 0
    for name, (dtype, shape, held) in tensors.items():
        facts[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + len(held)]}
        place += len(held)
    metadata = {name: header[name] for name in ("__metadata__",) if name in header}
    return json.dumps({**metadata, **facts}).encode(), b"".join(held for _, _, held in tensors.values())


def _other_tensor(
    name: str, dtype: str, shape: list[int], held: bytes, generator: Generator
) -> tuple[str, tuple[str, list[int], bytes]]:
    """A tensor under another name, or the same bytes as another dtype or shape."""
    if generator.random() < 0.2:
        return _one_of((name + "x", name.rpartition("/")[0], "", "a/b/c", name.upper()), generator), (
            dtype,
            shape,
            held,
        )
    width = int(_one_of((1, 2, 4, 8), generator))
    dtypes = {
        1: ("U8", "I8", "BOOL", "F8_E4M3", "F8_E5M2"), 2: ("F16", "BF16", "I16", "U16"), 4: ("F32", "I32", "U32"),
        8: ("F64", "I64", "U64", "C64"),
    }  # fmt: skip
    count = len(held) // width
    others = (
        (dtype, shape[::-1], held),
        (dtype, [1, *shape, 1], held),
        (dtype, _one_of(([0], [0, 5], [5, 0]), generator), b""),
        (dtype, shape, damaged(held, generator)[: len(held)].ljust(len(held), b"\xff")),
        (_one_of(dtypes[width], generator), [count], held[: count * width]),
        (_one_of(dtypes[width], generator), [count, 1], held[: count * width]),
    )
    return name, _one_of(others, generator)


def damaged_zip(content: bytes, generator: Generator) -> bytes:
    """Returns an archive with right checksums whose members are damaged, exchanged or compressed; or damaged as bytes."""
    if generator.random() < 0.4:
        return damaged(content, generator)
    with ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    chosen = int(generator.integers(len(members)))
    name, held = members[chosen]
    change = generator.random()
    if change < 0.6:
        members[chosen] = (name, (damaged_json if name.endswith(".json") else damaged)(held, generator))
    elif change < 0.7:
        members[chosen] = (name, members[int(generator.integers(len(members)))][1])
    elif change < 0.8:
        del members[chosen]
    elif change < 0.9:
        members[chosen] = (_one_of(("", "../x", "a/", "x" * 5000, name + "x"), generator), held)
    compression = _one_of((ZIP_STORED, ZIP_STORED, ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2, ZIP_LZMA), generator)
    stream = io.BytesIO()
    with ZipFile(stream, "w") as archive:
        for name, held in members:
            archive.writestr(ZipInfo(name), held, compression)
    return stream.getvalue()


def damaged_pickle(content: bytes, generator: Generator) -> bytes:
    """Damages the first kilobyte most of the time: there, a pickle says what its bytes are."""
    start = 1000 if generator.random() < 0.7 else len(content)
    return damaged(content[:start], generator) + content[start:]


def damaged_words(content: bytes, generator: Generator) -> bytes:
    """Returns a list of words with lines exchanged, repeated, blank, long or of other bytes."""
    if generator.random() < 0.4:
        return damaged(content, generator)
    lines = content.split(b"\n")
    for _ in range(generator.integers(1, MOST_CHANGES + 1)):
        place = int(generator.integers(len(lines)))
        odd = (b"", b" ", b"x" * 5000, b"\r", "\u2028".encode(), b"\xff", b"##", b"[CLS]", b"\0", lines[-1], lines[0])
        lines[place : place + int(generator.integers(2))] = [_one_of(odd, generator)]
    return b"\n".join(lines)


def _place(content: bytearray, generator: Generator) -> int:
    return int(generator.integers(len(content))) if content else 0


def _one_of(values: Sequence[Any], generator: Generator) -> Any:
    return values[int(generator.integers(len(values)))]
