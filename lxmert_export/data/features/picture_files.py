"""Directories with a file for each picture (``.npz``, ``.npy``, ``.safetensors``), and single files of that kind.

The id of a picture is the name of its file: ``COCO_val2014_000000262148.jpg.npz`` is COCO_val2014_000000262148.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lxmert_export.data.features.naming import Naming, expected_names, naming_of, stored_picture
from lxmert_export.data.features.stored import Fault, FeatureFile, StoredPicture
from lxmert_export.errors import InputError, first_line, shortened
from lxmert_export.files.array_files import read_plain_data
from lxmert_export.files.hashing import sha256

SUFFIXES = (".npz", ".npy", ".safetensors")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
INFO = "_info"  # MMF keeps the boxes of NAME.npy in NAME_info.npy


class PictureFiles(FeatureFile):
    """A directory of files, each of one picture. ``InputError``: its first file is no such file."""

    def __init__(self, path: Path, files: Iterable[Path]) -> None:
        self.path = path
        self._files = [file for file in files if not file.stem.endswith(INFO)]
        suffixes = sorted({file.suffix for file in self._files})
        if len(suffixes) != 1:
            raise InputError(
                f"{path}: holds files of several kinds ({', '.join(suffixes)}); keep each kind in its own directory"
            )
        self._leave_copies_out()
        first, naming = self._arrays(0)
        self._naming = naming
        self.format = f"{naming.name}-{suffixes[0][1:]}"
        self.most_objects = None
        self.feature_width = self._picture(0, first).features.shape[1]

    def stored(self, position: int) -> StoredPicture:
        """Reads one file."""
        arrays, naming = self._arrays(position)
        if naming != self._naming:
            raise self.error(position, f"names its arrays as {naming.name}, and the first file as {self._naming.name}")
        return self._picture(position, arrays)

    def place(self, position: int) -> str:
        """Returns the name of the file, from the directory on."""
        file = self._files[position]
        return file.relative_to(self.path).as_posix() if file != self.path else "the file"

    def close(self) -> None:
        """Nothing stays open."""

    def _leave_copies_out(self) -> None:
        """A picture may have files in several folders below: exact copies are left out, others are faults."""
        first: dict[str, Path] = {}
        faults, copies = [], 0
        for file in self._files:
            earlier = first.setdefault(_id_of(file), file)
            if earlier is file:
                continue
            copies += 1
            if sha256(earlier) != sha256(file):
                other = earlier.relative_to(self.path).as_posix()
                problem = f"has the id of {other}, and other content: remove one of them"
                faults.append(Fault(file.relative_to(self.path).as_posix(), _id_of(file), problem))
        self.ids, self._files, self.faults = list(first), list(first.values()), faults
        self.notes = [f"{copies} files are further files of the same pictures"] if copies else []

    def _arrays(self, position: int) -> tuple[dict[str, Any], Naming]:
        file = self._files[position]
        try:
            arrays = read_plain_data(file)
            if "" in arrays:  # a .npy file, whose array has no name
                arrays = {"features": arrays[""], **_info_of(file)}
        except (OSError, ValueError) as error:
            raise self.error(position, f"cannot be read: {first_line(error)}") from error
        if (naming := naming_of(arrays)) is None:
            raise self.error(position, f"holds {shortened(sorted(arrays))}, not features and boxes: {expected_names()}")
        return arrays, naming

    def _picture(self, position: int, arrays: dict[str, Any]) -> StoredPicture:
        try:
            return stored_picture(self._naming, arrays, self.ids[position])
        except (ValueError, TypeError) as error:
            raise self.error(position, first_line(error)) from error


class PictureBatch(FeatureFile):
    """One file with the arrays of several pictures, such as the output of Hugging Face's demo, and their ids."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._arrays = read_plain_data(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read: {first_line(error)}") from error
        naming = naming_of(self._arrays)
        if naming is None:
            raise InputError(
                f"{path}: holds {shortened(sorted(self._arrays))}, not features and boxes: {expected_names()}"
            )
        self._naming = naming
        count, most, width = np.asarray(self._arrays[naming.features]).shape
        ids = next((self._arrays[name] for name in naming.ids if name in self._arrays), None)
        if ids is None or np.asarray(ids).shape != (count,):
            raise InputError(
                f"{path}: holds {count} pictures, and no ids for them ({' or '.join(naming.ids) or 'no name is known'})"
            )
        self.ids = [str(id) for id in np.asarray(ids)]
        repeated = sorted({id for id in self.ids if self.ids.count(id) > 1})
        self.faults = [Fault("the file", id, "holds this id more than once") for id in repeated]
        self.format = f"{naming.name}-{path.suffix[1:]}"
        self.most_objects, self.feature_width = most, width

    def stored(self, position: int) -> StoredPicture:
        """Returns one picture of the batch."""
        one = {name: array[position] for name, array in self._arrays.items() if len(np.shape(array))}
        try:
            return stored_picture(self._naming, one, self.ids[position])
        except (ValueError, TypeError, IndexError) as error:
            raise self.error(position, first_line(error)) from error

    def place(self, position: int) -> str:
        """Returns the number of the picture in the batch, from 1."""
        return f"picture {position + 1} of the batch"

    def close(self) -> None:
        """The arrays are in memory."""


def is_batch(path: Path) -> bool:
    """Whether a file holds arrays of several pictures."""
    try:
        arrays = read_plain_data(path)
    except (OSError, ValueError):
        return False
    naming = naming_of(arrays)
    features = np.asarray(arrays[naming.features]) if naming is not None else np.zeros(0)
    return features.ndim == 3 and len(features) > 1


def picture_files(files: Iterable[Path]) -> Iterator[Path]:
    """Yields those of some files that hold the arrays of a picture, by their names."""
    return (file for file in files if file.suffix in SUFFIXES)


def _info_of(file: Path) -> dict[str, Any]:
    """The boxes of a ``.npy`` file of features. ``ValueError``: they are not there."""
    beside = file.with_name(f"{file.stem}{INFO}.npy")
    if not beside.is_file():
        raise ValueError(f"its boxes should be in {beside.name} beside it, which is missing")
    info = read_plain_data(beside)[""]
    if not isinstance(info, dict):
        raise ValueError(f"{beside.name} holds no dictionary")
    return {str(name): value for name, value in info.items()}


def _id_of(file: Path) -> str:
    return Path(file.stem).stem if Path(file.stem).suffix.lower() in PICTURE_SUFFIXES else file.stem
