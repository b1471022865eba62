"""Hugging Face datasets' arrow files with features inside, such as its LXMERT demo writes. ``datasets`` itself is not needed.

A file is a stream of batches of rows; a directory of ``Dataset.save_to_disk`` has a ``state.json`` that lists its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lxmert_export.data.features.naming import expected_names, naming_of, stored_picture
from lxmert_export.data.features.stored import Fault, FeatureFile, PictureError, StoredPicture
from lxmert_export.errors import InputError, first_line, shortened
from lxmert_export.extras import PYARROW, require
from lxmert_export.files.json_files import read_json
from lxmert_export.files.mapped_file import MappedFile
from lxmert_export.files.path_spelling import is_plain_name

STATE = "state.json"
FILE_START, STREAM_START = b"ARROW1", b"\xff\xff\xff\xff"
COMPARED = 16  # rows of an id that another row has, too, whose content is compared with the first


class ArrowFile(FeatureFile):
    """An arrow file, or a directory of them. ``InputError``: it holds no features, or is damaged."""

    format = "hf-arrow"
    most_objects = None

    def __init__(self, path: Path) -> None:
        require("reading arrow files", PYARROW)
        self.path = path
        self._mapped = [MappedFile(file) for file in _files_of(path)]
        self._batches: list[Any] = []
        for mapped in self._mapped:
            self._batches += _batches_of(mapped)
        names = self._batches[0].schema.names if self._batches else []
        naming = naming_of(names)
        id_name = next((name for name in (naming.ids if naming else ()) if name in names), None)
        if naming is None or id_name is None:
            raise InputError(
                f"{path}: has the columns {shortened(names)}; a file of features has {expected_names()}, and an id "
                "(img_id, iid or image_id)"
            )
        self._naming = naming
        self._read = [name for name in names if name in {naming.features, *naming.boxes, naming.count, naming.sizes}]
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)])
        self._take_ids([str(id) for batch in self._batches for id in batch.column(id_name).to_pylist()])
        self.feature_width = self.stored(0).features.shape[1] if self.ids else 0

    def stored(self, position: int) -> StoredPicture:
        """Reads one row."""
        return self._row(self._rows[position], self.ids[position])

    def place(self, position: int) -> str:
        """Returns the number of the row, from 1."""
        return f"row {self._rows[position] + 1}"

    def close(self) -> None:
        """Forgets the files, which are closed with the last array of them."""
        self._batches = []
        for mapped in self._mapped:
            mapped.close()

    def _row(self, row: int, id: str) -> StoredPicture:
        batch = int(np.searchsorted(self._starts, row, side="right")) - 1
        inside = row - int(self._starts[batch])
        try:
            values = {name: _numbers(self._batches[batch].column(name), inside) for name in self._read}
            picture = stored_picture(self._naming, values, id)
        except (ValueError, TypeError, IndexError) as error:
            raise PictureError(self.path, Fault(f"row {row + 1}", id, first_line(error))) from error
        for mapped in self._mapped:
            mapped.was_read(picture.features.nbytes // len(self._mapped))
        return picture

    def _take_ids(self, all_ids: Sequence[str]) -> None:
        """Takes the first row of each id: in some datasets a row is a question, and a picture's features are in several."""
        first: dict[str, int] = {}
        repeated = [(row, id) for row, id in enumerate(all_ids) if first.setdefault(id, row) != row]
        self.ids, self._rows = list(first), list(first.values())
        compared = repeated[:: max(1, len(repeated) // COMPARED)][:COMPARED]
        self.faults = [
            Fault(f"row {row + 1}", id, f"has the id of row {first[id] + 1}, and other content: remove one of them")
            for row, id in compared
            if not _same(self._row(first[id], id), self._row(row, id))
        ]
        if repeated:
            self.notes = [
                f"{len(repeated)} rows repeat the id of an earlier row, and are left out ({len(compared)} compared)"
            ]


def is_arrow(path: Path) -> bool:
    """Whether a path leads to arrow files."""
    if path.is_dir():
        return (path / STATE).is_file() or any(path.glob("*.arrow"))
    with path.open("rb") as file:
        return file.read(len(FILE_START)).startswith((FILE_START, STREAM_START))


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    state = path / STATE
    if not state.is_file():
        return sorted(path.glob("*.arrow"))
    try:
        names = [entry["filename"] for entry in read_json(state)["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{state}: cannot be read as the list of a dataset's files: {first_line(error)}") from error
    for name in names:
        if not isinstance(name, str) or not is_plain_name(name):
            raise InputError(f"{state}: names a file outside its directory: {name!r}")
        if not (path / PurePosixPath(name)).is_file():
            raise InputError(f"{path}: its file {name} is missing; copy or download it again")
    return [path / name for name in names]


def _batches_of(mapped: MappedFile) -> list[Any]:
    import pyarrow

    buffer = pyarrow.py_buffer(mapped.part(0, mapped.size))
    opened = pyarrow.ipc.open_file if bytes(buffer[: len(FILE_START)]) == FILE_START else pyarrow.ipc.open_stream
    try:
        batches = list(opened(buffer).read_all().to_batches())
        for batch in batches:
            batch.schema.names  # noqa: B018  (UnicodeDecodeError is a ValueError)
            batch.validate(full=True)  # a place outside of the file would end the process when it is read
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{mapped.path}: is damaged: {first_line(error)}; copy or download it again") from error
    return batches


def _numbers(column: Any, row: int) -> NDArray[np.generic]:
    """A row of a column: a number, a list of numbers, or a list of lists of one length, without copying."""
    import pyarrow

    array = column.storage if isinstance(column, pyarrow.ExtensionArray) else column
    array, shape = array.slice(row, 1), []
    while (
        pyarrow.types.is_list(array.type)
        or pyarrow.types.is_large_list(array.type)
        or pyarrow.types.is_fixed_size_list(array.type)
    ):
        inner = array.flatten()
        if array.null_count or (len(array) and len(inner) % len(array)):
            raise ValueError("holds lists of different lengths")
        shape.append(len(inner) // max(len(array), 1))
        array = inner
    if array.null_count:
        raise ValueError("holds no value")
    numbers: NDArray[np.generic] = array.to_numpy(zero_copy_only=False).reshape(shape)
    return numbers


def _same(one: StoredPicture, other: StoredPicture) -> bool:
    return np.array_equal(one.features, other.features) and np.array_equal(one.boxes, other.boxes)
