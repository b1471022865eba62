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

import struct
from pathlib import Path
from typing import Any

from lxmert_export.data.features.naming import NAMINGS, stored_picture
from lxmert_export.data.features.stored import FeatureFile, StoredPicture
from lxmert_export.errors import InputError, first_line, shortened
from lxmert_export.extras import LMDB, require
from lxmert_export.files.plain_pickles import load_pickle

DATA_FILE = "data.mdb"
KEYS = b"keys"  # the key of the list of ids
MMF = next(naming for naming in NAMINGS if naming.name == "mmf")
OTHERS = {"image_h": "vilbert-multi-task", "img_h": "volta"}
# The start of the two first pages. Source: lmdb's mdb.c: MDB_page, MDB_meta.
MAGIC, META = 0xBEEFC0DE, struct.Struct("<16xII8xQ")
PAGE_SIZE, LAST_PAGE = struct.Struct("<I"), struct.Struct("<Q")
PAGE_SIZE_AT, LAST_PAGE_AT, META_BYTES = 40, 136, 152


class MmfLmdb(FeatureFile):
    """A database of MMF, the directory or the file. ``InputError``: it is of another program, or damaged."""

    format = "mmf-lmdb"

    def __init__(self, path: Path) -> None:
        require("reading LMDB files", LMDB)
        import lmdb

        self.path = path
        data = path / DATA_FILE if path.is_dir() else path
        _check_whole(data)
        try:
            self._environment: Any = lmdb.open(
                str(data), subdir=False, readonly=True, lock=False, readahead=False, meminit=False, create=False
            )
        except lmdb.Error as error:
            raise InputError(f"{data}: cannot be opened as LMDB: {first_line(error)}") from error
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
        self.most_objects = None

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
        self._environment.close()

    def _value(self, position: int) -> dict[str, Any]:
        import lmdb

        try:
            with self._environment.begin(buffers=True) as transaction:
                held = transaction.get(self._keys[position])
                if held is None:
                    raise ValueError("is in the list of ids, and not in the database")
                value = load_pickle(held)
        except lmdb.Error as error:
            raise ValueError(f"cannot be read: {first_line(error)}") from error
        if not isinstance(value, dict):
            raise ValueError(f"holds a {type(value).__name__}, not a dictionary")
        return {str(name): item for name, item in value.items()}

    def _read_keys(self) -> list[bytes]:
        """The ids in the order of the list; without a list, in that of the database."""
        with self._environment.begin() as transaction:
            if (held := transaction.get(KEYS)) is None:
                return [bytes(key) for key, _ in transaction.cursor()]
        try:
            keys = load_pickle(held)
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
    if not data.is_file():
        return False
    with data.open("rb") as file:
        start = file.read(META.size)
    return len(start) == META.size and META.unpack(start)[0] == MAGIC


def _check_whole(data: Path) -> None:
    """``InputError``: the file is shorter than the database says: reading the missing pages would end the process."""
    with data.open("rb") as file:
        first = file.read(META_BYTES)
        size = file.seek(0, 2)
        (page,) = PAGE_SIZE.unpack_from(first.ljust(META_BYTES, b"\0"), PAGE_SIZE_AT)
        if not 512 <= page <= 65_536:
            raise InputError(f"{data}: is damaged: its pages would have {page} bytes; copy it again")
        file.seek(page)
        second = file.read(META_BYTES)
    last = max(LAST_PAGE.unpack_from(meta.ljust(META_BYTES, b"\0"), LAST_PAGE_AT)[0] for meta in (first, second))
    if (last + 1) * page > size:
        raise InputError(
            f"{data}: is cut: it has {size} bytes of at least {(last + 1) * page}; copy or download it again"
        )
