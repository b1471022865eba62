"""Reads protocol buffers and FlatBuffers without their schemas' code: just far enough to see what a file is made of.

Devices have a runtime and none of the packages that know these formats whole.
Sources: protobuf.dev/programming-guides/encoding and flatbuffers.dev/internals.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lxmert_export.files.limits import MOST_FIELDS, MOST_TABLES

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10  # bytes
LARGEST_KEY = 2**32 - 1


class Message:
    """A message of a protocol buffer, or a string, which looks the same. ``ValueError`` from every method: it is none.

    ``left``: how many fields may still be read of the file, a number that all of its messages share.
    """

    __slots__ = ("_content", "_left")

    def __init__(self, content: memoryview, left: list[int]) -> None:
        self._content, self._left = content, left

    @classmethod
    def root(cls, content: memoryview, *, most: int = MOST_FIELDS) -> Message:
        """Returns the message that a file is, of which at most so many fields may be read."""
        return cls(content, [most])

    def digest(self) -> bytes:
        """Returns the SHA-256 of its bytes, as the file has them."""
        return hashlib.sha256(self._content).digest()

    def fields(self) -> Iterator[tuple[int, Message | int]]:
        """Yields the number and the value of every field: bytes, or a whole number."""
        message, left, place = self._content, self._left, 0
        while place < len(message):
            left[0] -= 1
            if left[0] < 0:
                raise ValueError("holds far more fields than such files have")
            key, place = _varint(message, place)
            if key > LARGEST_KEY:  # a runtime would cut it, and take it for another field
                raise ValueError("holds the number of a field that no protocol buffer has")
            number, kind = key >> 3, key & 7
            if kind == VARINT:
                value, place = _varint(message, place)
                yield number, value
                continue
            if kind == LENGTH:
                length, place = _varint(message, place)
            elif kind in (FIXED32, FIXED64):
                length = 4 if kind == FIXED32 else 8
            else:
                raise ValueError(f"holds a field of the unknown kind {kind}")
            if not number or place + length > len(message):
                raise ValueError("is cut, or is no protocol buffer")
            yield number, Message(message[place : place + length], left)
            place += length

    def messages(self, *path: int) -> Iterator[Message]:
        """Yields the inner messages, or strings, that the field numbers of ``path`` lead to."""
        first, *further = path
        for number, value in self.fields():
            if number == first and isinstance(value, Message):
                if further:
                    yield from value.messages(*further)
                else:
                    yield value

    def last_text(self, number: int) -> str:
        """Returns a string field; empty if there is none. Of a field that is there twice, the last counts."""
        found = [value.text() for value in self.messages(number)]
        return found[-1] if found else ""

    def text(self) -> str:
        """Returns it as a string. ``ValueError``: it is not UTF-8."""
        return str(self._content, "utf-8")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(LONGEST_VARINT):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, place
    raise ValueError("is cut, or is no protocol buffer")


@dataclass(frozen=True)
class Table:
    """One table of a FlatBuffer. ``ValueError`` from every method: an offset leads out of the file."""

    buffer: memoryview
    place: int

    @classmethod
    def root(cls, buffer: memoryview) -> Table:
        """Returns the table that the file begins with."""
        return cls(buffer, _read("<I", buffer, 0))

    def field(self, number: int) -> int | None:
        """Returns the place of a field's value; None if the field has its default."""
        vtable = self.place - _read("<i", self.buffer, self.place)
        entry = 4 + 2 * number
        if entry >= _read("<H", self.buffer, vtable):
            return None
        offset = _read("<H", self.buffer, vtable + entry)
        return self.place + offset if offset else None

    def whole_number(self, number: int, kind: str) -> int:
        """Returns a field that is a whole number, in ``struct``'s notation; 0 if it is left out."""
        place = self.field(number)
        return 0 if place is None else _read(f"<{kind}", self.buffer, place)

    def tables(self, number: int) -> Iterator[Table]:
        """Yields the tables of a field that is a vector of tables."""
        place = self.field(number)
        if place is None:
            return
        start = place + _read("<I", self.buffer, place)
        if (count := _read("<I", self.buffer, start)) > MOST_TABLES:
            raise ValueError(f"lists {count} entries where such files have a few")
        for entry in range(count):
            where = start + 4 + 4 * entry
            yield Table(self.buffer, where + _read("<I", self.buffer, where))


def _read(kind: str, buffer: memoryview, place: int) -> int:
    if not 0 <= place <= len(buffer) - struct.calcsize(kind):
        raise ValueError("is cut, or is no FlatBuffer")
    return int(struct.unpack_from(kind, buffer, place)[0])
