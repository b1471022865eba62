"""Feature files in tab-separated text, read by the offsets of an index: memory does not grow with the file."""

from __future__ import annotations

from pathlib import Path

from lxmert_export.data.features.stored import FeatureFile, StoredPicture
from lxmert_export.data.features.tsv_index import RowIndex, index_of
from lxmert_export.data.features.tsv_rows import decode, parse_row
from lxmert_export.files.mapped_file import MappedFile
from lxmert_export.progress import Progress, silent


class TsvFile(FeatureFile):
    """A ``*_obj36.tsv`` of airsplay/lxmert, or a file of bottom-up-attention. ``InputError``: it is neither."""

    def __init__(self, path: Path, index_cache: Path | None = None, progress: Progress = silent) -> None:
        self.path = path
        self._index: RowIndex = index_of(path, index_cache, progress)
        self.format = self._index.dialect
        self.ids = self._index.ids
        self.feature_width, self.most_objects = self._index.width, self._index.most_objects
        self.faults, self.notes = self._index.faults, self._index.notes
        self._file = MappedFile(path)

    @property
    def fault_count(self) -> int:
        """How many rows cannot be used."""
        return self._index.fault_count

    def stored(self, position: int) -> StoredPicture:
        """Decodes one row."""
        try:
            part = self._file.part(*self.extent(position))
            place = int(self._index.features_at[self._index.kept[position]])
            row = parse_row(_without_line_end(part), self._index.dialect, place)
            boxes, features = decode(row.boxes, row.objects), decode(row.features, row.objects)
        except ValueError as error:
            raise self.error(position, str(error)) from error
        if row.id != self.ids[position]:
            raise self.error(position, "is not where the index says: the file was changed; try again")
        return StoredPicture(row.id, features, boxes, row.size)

    def extent(self, position: int) -> tuple[int, int]:
        """Returns where its row begins in the file, and where it ends."""
        number = self._index.kept[position]
        return int(self._index.starts[number]), int(self._index.starts[number + 1])

    def place(self, position: int) -> str:
        """Returns the number of its row, from 1."""
        return f"row {self._index.kept[position] + 1}"

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _without_line_end(row: memoryview) -> memoryview:
    end = bytes(row[-2:])
    return row[: len(row) - len(end) + len(end.rstrip(b"\r\n"))]
