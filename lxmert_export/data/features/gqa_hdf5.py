"""GQA's own files of object features: ``gqa_objects_0.h5`` to ``gqa_objects_15.h5``, and ``gqa_objects_info.json``.

Each HDF5 file holds ``features`` [pictures, 100, 2048] and ``bboxes`` [pictures, 100, 4]. The JSON says where each picture is,
its size, and the number of its objects, behind which there is padding. Source: cs.stanford.edu/people/dorarad/gqa/download.html.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lxmert_export.data.features.stored import Fault, FeatureFile, StoredPicture
from lxmert_export.errors import InputError, first_line
from lxmert_export.extras import H5PY_OF_FEATURES, require
from lxmert_export.files.hdf5_files import NotPlainDataError, plain_datasets, refuse_drivers
from lxmert_export.files.json_files import read_json

INFO_FILE = "gqa_objects_info.json"
FILES = "gqa_objects_*.h5"
FEATURES, BOXES = "features", "bboxes"
LARGEST_ROW = 1 << 26  # bytes of a picture: 100 × 2048 float32 take 820 kB
FIELDS = ("file", "idx", "objectsNum", "width", "height")


@dataclass(frozen=True)
class _Entry:
    """Where a picture is: the number of its file, and its row there."""

    file: int
    idx: int
    objects: int
    size: tuple[int, int]


class GqaObjects(FeatureFile):
    """GQA's directory of object features, or one of its files. ``InputError``: a file is missing or damaged."""

    format = "gqa-hdf5"

    def __init__(self, path: Path) -> None:
        require("reading GQA's HDF5 files", H5PY_OF_FEATURES)
        self.path = path
        folder = path if path.is_dir() else path.parent
        info = folder / INFO_FILE
        if not info.is_file():
            raise InputError(
                f"{path}: needs {INFO_FILE} beside it, which says which picture is where; it is in the same archive"
            )
        wanted = [path] if path.suffix == ".h5" else sorted(folder.glob(FILES))
        if not wanted:
            raise InputError(f"{path}: holds no {FILES}; they are in the same archive as {INFO_FILE}")
        self._files: dict[int, Any] = {}
        self._datasets: dict[int, dict[str, Any]] = {}
        try:
            for file in wanted:
                self._open(file)
            self._read_entries(info, only=path.suffix == ".h5")
        except BaseException:
            self.close()
            raise
        first = next(iter(self._datasets.values()))[FEATURES]
        self.feature_width, self.most_objects = first.shape[2], max((e.objects for e in self._entries), default=0)

    def stored(self, position: int) -> StoredPicture:
        """Reads one row of one file."""
        entry = self._entries[position]
        found = self._datasets[entry.file]
        try:
            features, boxes = (found[name][entry.idx, : entry.objects] for name in (FEATURES, BOXES))
        except (OSError, RuntimeError, ValueError) as error:
            raise self.error(position, f"is damaged: {first_line(error)}; copy or download the file again") from error
        return StoredPicture(self.ids[position], features, boxes, entry.size)

    def place(self, position: int) -> str:
        """Returns the file and the row, as GQA counts."""
        entry = self._entries[position]
        return f"gqa_objects_{entry.file}.h5, row {entry.idx}"

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()

    def _open(self, path: Path) -> None:
        import h5py

        try:
            number = int(path.stem.rpartition("_")[2])
            with path.open("rb") as stream:
                refuse_drivers(stream)
            file = h5py.File(path, "r")
            self._files[number] = file
            datasets = {"/".join(parts): dataset for parts, dataset in plain_datasets(file)}
            features, boxes = datasets[FEATURES], datasets[BOXES]
            kinds = {features.dtype.kind, boxes.dtype.kind}  # a damaged type has none
            row = features.dtype.itemsize * math.prod(features.shape[1:])
        except (NotPlainDataError, OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{path}: cannot be read: {first_line(error)}; copy or download it again") from error
        except KeyError as error:
            raise InputError(f"{path}: holds no dataset {error}; GQA's files hold {FEATURES} and {BOXES}") from error
        if features.ndim != 3 or boxes.shape != (*features.shape[:2], 4) or kinds != {"f"} or row > LARGEST_ROW:
            raise InputError(
                f"{path}: {FEATURES} are {features.dtype} {list(features.shape)} and {BOXES} {boxes.dtype} {list(boxes.shape)}, "
                "not float [pictures, objects, width] and [pictures, objects, 4]"
            )
        self._datasets[number] = {FEATURES: features, BOXES: boxes}

    def _read_entries(self, info: Path, *, only: bool) -> None:
        """Takes in what the JSON says. ``only``: pictures in other files than the one that was named are left out."""
        try:
            stored = read_json(info)
            entries = {str(id): _entry(values) for id, values in stored.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{info}: cannot be read as GQA's list of pictures: {first_line(error)}") from error
        faults = []
        for id, entry in list(entries.items()):
            if only and entry.file not in self._datasets:
                del entries[id]
            elif problem := self._problem(entry):
                faults.append(Fault(info.name, id, problem))
                del entries[id]
        ordered = sorted(entries.items(), key=lambda item: (item[1].file, item[1].idx))
        self.ids, self._entries, self.faults = [id for id, _ in ordered], [entry for _, entry in ordered], faults

    def _problem(self, entry: _Entry) -> str | None:
        if entry.file not in self._datasets:
            return f"is in gqa_objects_{entry.file}.h5, which is missing"
        rows, most, _ = self._datasets[entry.file][FEATURES].shape
        if not 0 <= entry.idx < rows:
            return f"is row {entry.idx} of gqa_objects_{entry.file}.h5, which has {rows}"
        if not 0 < entry.objects <= most:
            return f"has {entry.objects} objects, and gqa_objects_{entry.file}.h5 room for {most}"
        return None


def is_gqa(path: Path) -> bool:
    """Whether a path leads to GQA's object features."""
    if path.is_dir():
        return (path / INFO_FILE).is_file() or any(path.glob(FILES))
    with suppress(OSError):
        return path.name == INFO_FILE or path.suffix == ".h5"
    return False


def _entry(values: Any) -> _Entry:
    file, idx, objects, width, height = (values[name] for name in FIELDS)
    for name, value in zip(FIELDS, (file, idx, objects, width, height), strict=True):
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}, not a whole number")
    return _Entry(file, idx, objects, (width, height))
