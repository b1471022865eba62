"""Several files of one kind in a directory, read as one: such as train2014_obj36.tsv and val2014_obj36.tsv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lxmert_export.data.features.stored import Fault, FeatureFile, StoredPicture
from lxmert_export.errors import InputError


class JoinedFiles(FeatureFile):
    """The pictures of all files, in the order of the files' names. ``InputError``: the files are of different formats."""

    def __init__(self, path: Path, parts: Sequence[FeatureFile]) -> None:
        self.path, self._parts = path, parts
        first = parts[0]
        if other := next((part for part in parts if part.format != first.format), None):
            raise InputError(
                f"{path}: holds {first.path.name} ({first.format}) and {other.path.name} ({other.format}); keep each format in a "
                "directory of its own"
            )
        self.format, self.feature_width = first.format, first.feature_width
        self.most_objects = max((part.most_objects or 0 for part in parts), default=0) or None
        self.notes = [f"{part.path.name}: {note}" for part in parts for note in part.notes]
        self.faults = [
            Fault(f"{p.path.name}, {fault.place}", fault.id, fault.problem) for p in parts for fault in p.faults
        ]
        self._places: list[tuple[FeatureFile, int]] = []
        self.ids = self._join()

    @property
    def fault_count(self) -> int:
        """The faults of all files, and of one file beside another."""
        return len(self.faults) + sum(part.fault_count - len(part.faults) for part in self._parts)

    def stored(self, position: int) -> StoredPicture:
        """Reads a picture of the file that holds it."""
        part, inside = self._places[position]
        return part.stored(inside)

    def place(self, position: int) -> str:
        """Returns the name of the file, and the place in it."""
        part, inside = self._places[position]
        return f"{part.path.name}, {part.place(inside)}"

    def close(self) -> None:
        """Closes all files."""
        for part in self._parts:
            part.close()

    def _join(self) -> list[str]:
        """All ids, each once. A picture that two files hold with different content is a fault, one of another width, too."""
        first: dict[str, tuple[FeatureFile, int]] = {}
        faults, copies = [], 0
        for part in self._parts:
            if part.feature_width != self.feature_width:
                earlier = f"those of {self._parts[0].path.name} {self.feature_width}"
                faults.append(Fault(part.path.name, None, f"its features are {part.feature_width} wide, {earlier}"))
            for position, id in enumerate(part.ids):
                if id not in first:
                    first[id] = part, position
                    continue
                copies += 1
                if not _same(first[id], (part, position)):
                    problem = f"is in {first[id][0].path.name}, too, with other content: remove one of them"
                    faults.append(Fault(f"{part.path.name}, {part.place(position)}", id, problem))
        if copies:
            self.notes = [*self.notes, f"{copies} pictures are in several files"]
        self.faults = [*self.faults, *faults]
        self._places = list(first.values())
        return list(first)


def _same(one: tuple[FeatureFile, int], other: tuple[FeatureFile, int]) -> bool:
    stored = [part.stored(position) for part, position in (one, other)]
    return np.array_equal(stored[0].features, stored[1].features) and np.array_equal(stored[0].boxes, stored[1].boxes)
