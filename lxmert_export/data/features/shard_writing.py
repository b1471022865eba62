"""Writes one shard of our own format, picture by picture: memory does not grow with the shard."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lxmert_export.data.features.shards import ARRAYS, FLOATS, LARGEST_HALF, FloatName, widened
from lxmert_export.data.pictures import Picture

if TYPE_CHECKING:
    from typing_extensions import Self

HEADER = 1024  # bytes for the header of safetensors, which is known when all is written; the rest of them stays blank


class ShardWriter:
    """A new safetensors file, which takes pictures until ``finish``. ``OSError``: it cannot be written.

    ``rounding``: the largest error of a feature that float16 has made so far. ``most_objects``: of one picture so far.
    """

    def __init__(self, path: Path, dtype: FloatName, width: int) -> None:
        self.path = path
        self.dtype, self._width = dtype, width
        self.rounding, self.most_objects = 0.0, 0
        self._boxes: list[NDArray[np.float32]] = []
        self._sizes: list[tuple[int, int]] = []
        self._ids: list[str] = []
        self._starts = [0]
        self._file: BinaryIO = path.open("wb")
        self._file.write(bytes(8 + HEADER))

    def add(self, picture: Picture, size: tuple[int, int] | None) -> None:
        """Writes a picture. ``ValueError``: float16 cannot hold one of its features, or its id has several lines."""
        features = picture.features
        if "\n" in picture.id:
            raise ValueError("its id has several lines")
        if self.dtype == "float16":
            if (largest := float(np.abs(features).max())) > LARGEST_HALF:
                raise ValueError(
                    f"its features reach {largest:.6g}, and float16 ends at {LARGEST_HALF:g}: convert to float32"
                )
            half = features.astype(np.float16)
            self.rounding = max(self.rounding, float(np.abs(widened(half) - features).max()))
            self._file.write(half.tobytes())
        else:
            self._file.write(np.ascontiguousarray(features, "<f4").tobytes())
        self.most_objects = max(self.most_objects, len(features))
        self._boxes.append(picture.boxes)
        self._sizes.append(size or (0, 0))
        self._ids.append(picture.id)
        self._starts.append(self._starts[-1] + len(features))

    @property
    def pictures(self) -> int:
        """The number of its pictures."""
        return len(self._ids)

    @property
    def feature_bytes(self) -> int:
        """The bytes of its features."""
        return self._starts[-1] * self._width * np.dtype(self.dtype).itemsize

    def finish(self) -> None:
        """Writes the other arrays and the header, and flushes the file to the disk."""
        arrays: dict[str, NDArray[np.generic]] = {
            "boxes": np.concatenate(self._boxes),
            "sizes": np.array(self._sizes, "<i4"),
            "starts": np.array(self._starts, "<i8"),
            "ids": np.frombuffer("\n".join(self._ids).encode(), np.uint8),
        }
        stored = next(name for name, dtype in FLOATS.items() if dtype == self.dtype)
        end = self.feature_bytes
        header: dict[str, Any] = {
            "features": {"dtype": stored, "shape": [self._starts[-1], self._width], "data_offsets": [0, end]}
        }
        for name, array in arrays.items():
            self._file.write(content := array.tobytes())
            place = [end, end + len(content)]
            header[name] = {"dtype": ARRAYS[name], "shape": list(array.shape), "data_offsets": place}
            end += len(content)
        text = json.dumps(header, separators=(",", ":")).encode().ljust(HEADER)
        assert len(text) == HEADER, "the header of five arrays is short"
        self._file.seek(0)
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
