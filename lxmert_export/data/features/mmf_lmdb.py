"""MMF's LMDB files of features, and how they are told from those of other programs, which are named and not read.

The value of each key is a pickle, which is read without running code from it.

| program             | a picture's value                                                                              |
|---------------------|------------------------------------------------------------------------------------------------|
| MMF                 | ``features``, ``bbox``, ``num_boxes``, ``image_width``, ``image_height``: read                   |
| vilbert-multi-task  | ``features``, ``boxes``, ``image_w``, ``image_h``; its first box is the whole picture: not read  |
| volta               | airsplay's fields, ``img_w`` and ``img_h``, with arrays in base64: not read                     |

Sources: facebookresearch/mmf, tools/scripts/features/lmdb_conversion.py; facebookresearch/vilbert-multi-task,
script/convert_to_lmdb.py; e-bug/volta, features_extraction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lxmert_export.data.features.naming import NAMINGS, stored_picture
from lxmert_export.data.features.stored import FeatureFile, StoredPicture
from lxmert_export.errors import InputError, first_line, shortened
from lxmert_export.files.lmdb_files import LmdbFile, is_lmdb_file
from lxmert_export.files.plain_pickles import load_pickle

DATA_FILE = "data.mdb"
KEYS = b"keys"  # the key of the list of ids
MMF = next(naming for naming in NAMINGS if naming.name == "mmf")
OTHERS = {"image_h": "vilbert-multi-task", "img_h": "volta"}


class MmfLmdb(FeatureFile):
    """A database of MMF, the directory or the file. ``InputError``: it is of another program, or damaged."""

    format = "mmf-lmdb"
    most_objects = None

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path / DATA_FILE if path.is_dir() else path
        try:
            self._file = LmdbFile(data)
        except (OSError, ValueError) as error:
            raise InputError(f"{data}: {first_line(error)}; copy or download it again") from error
        try:
            self._keys = self._read_keys()
            self.ids = [key.decode("utf-8") for key in self._keys]
            if not self._keys:
                raise InputError(f"{path}: holds no pictures")
            self._check_program()
            self.feature_width = self.stored(0).features.shape[1]
        except UnicodeDecodeError as error:
            self.close()
            raise InputError(f"{path}: holds an id that is not UTF-8: {error.object!r}") from error
        except BaseException:
            self.close()
            raise

    def stored(self, position: int) -> StoredPicture:
        """Reads one value."""
        try:
            return stored_picture(MMF, self._value(position), self.ids[position])
        except (ValueError, TypeError, KeyError, StopIteration) as error:
            raise self.error(position, first_line(error)) from error

    def place(self, position: int) -> str:
        """Returns the key."""
        return f"key {self.ids[position]}"

    def close(self) -> None:
        """Closes the database."""
        self._file.close()

    def _value(self, position: int) -> dict[str, Any]:
        key = self._keys[position]
        if key not in self._file.places:
            raise ValueError("is in the list of ids, and not in the database")
        value = load_pickle(self._file.value(key))
        if not isinstance(value, dict):
            raise ValueError(f"holds a {type(value).__name__}, not a dictionary")
        return {str(name): item for name, item in value.items()}

    def _read_keys(self) -> list[bytes]:
        """The ids in the order of the list; without a list, in that of the database."""
        if KEYS not in self._file.places:
            return list(self._file.places)
        try:
            keys = load_pickle(self._file.value(KEYS))
        except ValueError as error:
            raise InputError(f"{self.path}: key keys: {error}") from error
        if not isinstance(keys, list) or not all(isinstance(key, bytes | str) for key in keys):
            raise InputError(f"{self.path}: key keys: holds no list of ids")
        found = [key.encode() if isinstance(key, str) else key for key in keys]
        return list(dict.fromkeys(found))

    def _check_program(self) -> None:
        try:
            names = self._value(0)
        except ValueError as error:
            raise self.error(0, str(error)) from error
        if MMF.features in names and MMF.boxes[0] in names:
            return
        of = next((program for name, program in OTHERS.items() if name in names), "no program that is known")
        raise InputError(
            f"{self.path}: is an LMDB file of {of}: its pictures hold {shortened(sorted(names))}; only MMF's are read, which "
            f"hold {MMF.features} and {MMF.boxes[0]}"
        )


def is_lmdb(path: Path) -> bool:
    """Whether a path leads to an LMDB database."""
    data = path / DATA_FILE if path.is_dir() else path
    return data.is_file() and is_lmdb_file(data)
