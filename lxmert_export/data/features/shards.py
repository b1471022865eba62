"""Our own format of features: safetensors files in memory-mapped pages, float16 or float32, and an index in JSON.

    NAME/
        features.index.json               what is in the shards, in which order, with sizes and hashes
        features-00001.safetensors, …     each with the arrays of ``Shard``

A picture is read by its place: nothing is decoded, and float16 halves the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from lxmert_export.data.features.stored import BoxLayout, Fault, FeatureFile, StoredPicture
from lxmert_export.errors import InputError, first_line
from lxmert_export.files.hashing import sha256
from lxmert_export.files.json_files import read_json
from lxmert_export.files.limits import LARGEST_SAFETENSORS_HEADER
from lxmert_export.files.mapped_file import MappedFile
from lxmert_export.files.path_spelling import is_plain_name
from lxmert_export.progress import Progress, silent

INDEX_FILE = "features.index.json"
FORMAT = "lxmert-export features 1"
FloatName = Literal["float16", "float32"]
# The arrays of a shard. ``boxes``: shares, as LXMERT takes them; ``sizes``: width and height in pixels, 0 where they are unknown;
# ``starts``: where each picture's objects begin, and where the last one's end; ``ids``: UTF-8, a line each.
ARRAYS = {"features": "", "boxes": "F32", "sizes": "I32", "starts": "I64", "ids": "U8"}
FLOATS: dict[str, FloatName] = {"F16": "float16", "F32": "float32"}
LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class ShardEntry:
    """A shard in the index."""

    file: str
    pictures: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardIndex:
    """What ``features.index.json`` holds. ``rounding``: the largest error of a feature that float16 made, 0 for float32."""

    dtype: FloatName
    feature_width: int
    most_objects: int
    pictures: int
    rounding: float
    source: str
    shards: tuple[ShardEntry, ...]

    def to_json(self) -> bytes:
        """Returns the file's content."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()

    @classmethod
    def read(cls, path: Path) -> ShardIndex:
        """Reads the file. ``InputError``: it is damaged, of another version, or names a file elsewhere."""
        try:
            held = read_json(path)
            if held["format"] != FORMAT:
                raise ValueError(f"is of the format {held['format']!r}, not {FORMAT!r}")
            shards = tuple(ShardEntry(**entry) for entry in held["shards"])
            index = cls(**{**{name: value for name, value in held.items() if name != "format"}, "shards": shards})
            for shard in shards:
                if not is_plain_name(shard.file):
                    raise ValueError(f"names a file outside its directory: {shard.file!r}")
            if index.dtype not in FLOATS.values() or index.pictures != sum(shard.pictures for shard in shards):
                raise ValueError("contradicts itself")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: cannot be read as the index of features: {first_line(error)}; convert again"
            ) from error
        return index


class Shard:
    """One safetensors file, mapped into memory. ``InputError``: it is damaged."""

    def __init__(self, path: Path, width: int) -> None:
        self.path = path
        try:
            with safe_open(path, framework="numpy"):  # the library checks the header
                pass
            self._file = MappedFile(path)
            arrays = self._arrays()
            self.dtype = FLOATS[arrays["features"][0]]
            self.features: NDArray[np.generic] = self._view(arrays["features"], self.dtype)
            self.boxes = self._view(arrays["boxes"], "float32")
            self.sizes = np.array(self._view(arrays["sizes"], "int32"))
            self.starts = np.array(self._view(arrays["starts"], "int64"))
            self.ids = self._view(arrays["ids"], "uint8").tobytes().decode("utf-8").split("\n")
            self._check(width)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: is damaged: {first_line(error)}; convert again") from error

    def close(self) -> None:
        """Closes the file; arrays that were taken from it stay good."""
        self._file.close()

    def was_read(self, count: int) -> None:
        """Notes that so many bytes were read."""
        self._file.was_read(count)

    def _arrays(self) -> dict[str, tuple[str, list[int], int, int]]:
        """Type, shape, first byte and last byte of each array."""
        length = int.from_bytes(self._file.part(0, 8), "little")
        if length > LARGEST_SAFETENSORS_HEADER:
            raise ValueError(f"has a header of {length} bytes")
        header = json.loads(bytes(self._file.part(8, 8 + length)))
        found = {}
        for name, kind in ARRAYS.items():
            stored = header[name]
            if stored["dtype"] not in ((kind,) if kind else FLOATS):
                raise ValueError(f"its {name} are of the type {stored['dtype']}")
            first, last = (8 + length + offset for offset in stored["data_offsets"])
            found[name] = (stored["dtype"], stored["shape"], first, last)
        return found

    def _view(self, stored: tuple[str, list[int], int, int], dtype: str) -> NDArray[Any]:
        _, shape, first, last = stored
        return np.frombuffer(self._file.part(first, last), np.dtype(dtype).newbyteorder("<")).reshape(shape)

    def _check(self, width: int) -> None:
        objects, pictures = len(self.features), len(self.ids)
        shapes = {
            "features": (objects, width),
            "boxes": (objects, 4),
            "sizes": (pictures, 2),
            "starts": (pictures + 1,),
        }
        if wrong := [name for name, shape in shapes.items() if getattr(self, name).shape != shape]:
            raise ValueError(f"its {wrong[0]} do not fit its other arrays")
        if self.starts[0] != 0 or self.starts[-1] != objects or (np.diff(self.starts) <= 0).any():
            raise ValueError("its starts are no places of its objects")


class ShardedFeatures(FeatureFile):
    """A directory of our own format. ``InputError``: a shard is missing or damaged."""

    format = "lxmert-export"
    layout: BoxLayout | None = "normalised"

    def __init__(self, path: Path) -> None:
        self.path = path if path.is_dir() else path.parent
        self.index = ShardIndex.read(self.path / INDEX_FILE)
        self._shards: list[Shard] = []
        try:
            for entry in self.index.shards:
                self._shards.append(self._open(entry))
        except BaseException:
            self.close()
            raise
        self.ids = [id for shard in self._shards for id in shard.ids]
        if len(set(self.ids)) != len(self.ids):
            self.close()
            raise InputError(f"{self.path}: holds an id twice; convert again")
        self._firsts = np.cumsum([0, *(len(shard.ids) for shard in self._shards)])
        self.feature_width, self.most_objects = self.index.feature_width, self.index.most_objects
        self.notes = [f"features in {self.index.dtype}, converted from {self.index.source}"]

    def stored(self, position: int) -> StoredPicture:
        """Takes one picture from the mapped pages; float16 is widened, float32 is not copied."""
        shard, inside = self._find(position)
        first, last = int(shard.starts[inside]), int(shard.starts[inside + 1])
        features = shard.features[first:last]
        shard.was_read(features.nbytes)
        if shard.dtype == "float16":
            features = widened(features)
        width, height = map(int, shard.sizes[inside])
        size = (width, height) if width and height else None
        return StoredPicture(self.ids[position], features, shard.boxes[first:last], size)

    def place(self, position: int) -> str:
        """Returns the shard, and the number of the picture in it, from 1."""
        shard, inside = self._find(position)
        return f"{shard.path.name}, picture {inside + 1}"

    def close(self) -> None:
        """Closes the shards."""
        for shard in self._shards:
            shard.close()

    def damaged(self, progress: Progress = silent) -> Iterator[Fault]:
        """Reads all shards, and yields those whose hash is not the index's: a changed bit shows nowhere else."""
        for number, (shard, entry) in enumerate(zip(self._shards, self.index.shards, strict=True)):
            progress("hashing", number, len(self._shards))
            if sha256(shard.path) != entry.sha256:
                yield Fault(entry.file, None, "its SHA-256 is not that of the index: copy it again, or convert again")

    def _open(self, entry: ShardEntry) -> Shard:
        path = self.path / entry.file
        if not path.is_file():
            raise InputError(f"{path}: is missing; copy it again, or convert again")
        if (size := path.stat().st_size) != entry.bytes:
            raise InputError(f"{path}: has {size} bytes instead of {entry.bytes}; copy it again, or convert again")
        shard = Shard(path, self.index.feature_width)
        if shard.dtype != self.index.dtype or len(shard.ids) != entry.pictures:
            shard.close()
            raise InputError(f"{path}: is not the shard that the index describes; copy it again, or convert again")
        return shard

    def _find(self, position: int) -> tuple[Shard, int]:
        number = int(np.searchsorted(self._firsts, position, side="right")) - 1
        return self._shards[number], position - int(self._firsts[number])


def widened(half: NDArray[np.generic]) -> NDArray[np.float32]:
    """Returns finite float16 numbers as float32, exactly, four times as fast as ``astype``.

    Sign, exponent and mantissa move to float32's places as whole numbers. The multiplication then mends the bias of the exponent
    (15 in float16, 127 in float32), of numbers below the smallest normal one, too. Infinity and NaN become 65,536 and more.
    """
    bits = half.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(-0x70002000)  # the sign, and what was moved: not the copies of the sign between them
    wide = bits.view(np.float32)
    wide *= np.float32(2.0 ** (127 - 15))
    return wide
