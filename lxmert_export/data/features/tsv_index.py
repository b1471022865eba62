"""The index of a feature file in text: where each row begins, and what reading all rows once has shown.

It is a safetensors file beside the feature file, or in the user's cache if that directory takes no files. It is made again when
the feature file has changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from lxmert_export.data.features.stored import Fault
from lxmert_export.data.features.tsv_rows import DIALECTS, Row, id_of, parse_row
from lxmert_export.errors import InputError
from lxmert_export.files.array_files import read_arrays
from lxmert_export.files.atomic_files import replace_files
from lxmert_export.files.mapped_file import stamp
from lxmert_export.files.user_cache import user_cache
from lxmert_export.progress import Progress, silent

LOGGER = logging.getLogger(__name__)

FORMAT = "lxmert-export index of rows 2"
SUFFIX = ".index.safetensors"
LONGEST_ROW = 1 << 26  # bytes: 36 × 2048 float32 take 400 kB, 100 objects 1.1 MB
BLOCK = 1 << 23  # bytes that are read at a time
EDGE = 1 << 16  # bytes at the start and the end of a file that tell it from another one of the same size and time
MOST_FAULTS = 100  # that are kept; the number of all is kept, too


@dataclass(frozen=True)
class RowIndex:
    """The rows of a feature file.

    - ``starts`` (int64 [rows + 1]): where each row begins. ``features_at`` (int64 [rows]): where in it the last field begins.
    - ``kept`` (int64 [pictures]): the rows with pictures, in their order.
    - ``most_objects``, ``width``: of all rows.
    - ``faults``: the first ``MOST_FAULTS`` of ``fault_count``.
    """

    dialect: str
    starts: NDArray[np.int64]
    features_at: NDArray[np.int64]
    kept: NDArray[np.int64]
    ids: Sequence[str]
    width: int
    most_objects: int
    faults: Sequence[Fault]
    fault_count: int
    notes: Sequence[str]


def index_of(path: Path, cache: Path | None, progress: Progress = silent) -> RowIndex:
    """Returns the index of a feature file; makes it if there is none, or one of an earlier state of the file.

    ``cache``: the directory for indexes; None: beside the file, or else in the user's cache.
    ``InputError``: the file is empty, or its first row is none of a feature file.
    """
    state: dict[str, int | str] = {**stamp(path), "edges": _edges(path)}
    places = list(_places(path, cache))
    for place in places:
        if (found := _read(place, state)) is not None:
            return found
    made = _make(path, progress)
    _write(places, made, state, path)
    return made


def dialect_of(row: bytes) -> str | None:
    """Returns the dialect of which a first row is; None if of none."""
    return DIALECTS.get(row.count(b"\t") + 1)


def _make(path: Path, progress: Progress) -> RowIndex:
    maker: _Maker | None = None
    size, told = path.stat().st_size, -1
    with path.open("rb", buffering=BLOCK) as file:
        for start, row, ended in _rows(file, path):
            if maker is None:
                if (dialect := dialect_of(row)) is None:
                    fields = row.count(b"\t") + 1
                    raise InputError(
                        f"{path}: row 1 has {fields} fields; the rows of a feature file have "
                        f"{' or '.join(map(str, DIALECTS))}"
                    )
                maker = _Maker(dialect, path)
            maker.add(start, row, ended)
            if (percent := 100 * start // size) != told:
                told = percent
                progress(f"indexing {path.name}", start, size)
    if maker is None:
        raise InputError(f"{path}: is empty; copy or download it again")
    progress(f"indexing {path.name}", size, size)
    return maker.index(size)


class _Maker:
    """Collects an index, row by row."""

    def __init__(self, dialect: str, path: Path) -> None:
        self._dialect, self._path = dialect, path
        self._starts: list[int] = []
        self._features_at: list[int] = []
        self._kept: list[int] = []
        self._row_of: dict[str, int] = {}
        self._faults: list[Fault] = []
        self._fault_count = self._most = self._width = self._repeated = 0
        self._crlf = self._unended = False

    def add(self, start: int, row: bytes, ended: bool) -> None:
        number = len(self._starts)
        self._starts.append(start)
        self._unended = not ended
        if row.endswith(b"\r"):
            self._crlf, row = True, row[:-1]
        self._features_at.append(row.rfind(b"\t") + 1)
        try:
            found = parse_row(row, self._dialect, self._features_at[-1])
            self._width = self._width or found.width
            self._check(found, row)
        except ValueError as error:
            self._fault_count += 1
            if len(self._faults) < MOST_FAULTS:
                self._faults.append(Fault(f"row {number + 1}", id_of(row), str(error)))
            return
        if found.id in self._row_of:
            self._repeated += 1
            return
        self._row_of[found.id] = number
        self._kept.append(number)
        self._most = max(self._most, found.objects)

    def _check(self, found: Row, row: bytes) -> None:
        if found.width != self._width:
            raise ValueError(f"its features are {found.width} wide, those of the rows before it {self._width}")
        if (earlier := self._row_of.get(found.id)) is not None and self._digest(earlier) != _digest(row):
            raise ValueError(f"has the id of row {earlier + 1}, and other content: remove one of them")

    def _digest(self, number: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(self._starts[number])
            return _digest(file.readline(LONGEST_ROW).rstrip(b"\r\n"))

    def index(self, size: int) -> RowIndex:
        notes = []
        if self._crlf:
            notes.append("lines end with CRLF, as on Windows")
        if self._unended:
            notes.append("the last line has no end")
        if self._repeated:
            notes.append(f"{self._repeated} rows are exact copies of earlier ones, and left out")
        return RowIndex(
            self._dialect, np.array([*self._starts, size], np.int64), np.array(self._features_at, np.int64),
            np.array(self._kept, np.int64), list(self._row_of),
            self._width, self._most, self._faults, self._fault_count, notes,
        )  # fmt: skip


def _rows(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Yields where each row begins, its bytes, and whether its line has an end."""
    start = 0
    while line := file.readline(LONGEST_ROW + 1):
        if len(line) > LONGEST_ROW:
            raise InputError(
                f"{path}: has a row of more than {LONGEST_ROW} bytes at byte {start}: it is no feature file"
            )
        ended = line.endswith(b"\n")
        yield start, line[:-1] if ended else line, ended
        start += len(line)


def _digest(row: bytes) -> bytes:
    return hashlib.sha256(row).digest()


def _edges(path: Path) -> str:
    with path.open("rb") as file:
        first = file.read(EDGE)
        file.seek(max(0, file.seek(0, 2) - EDGE))
        return hashlib.sha256(first + file.read()).hexdigest()


def _places(path: Path, cache: Path | None) -> Iterator[Path]:
    name = f"{path.name}{SUFFIX}"
    if cache is None:
        yield path.with_name(name)
        cache = user_cache("feature-indexes")
    if cache is not None:
        key = hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape")).hexdigest()[:16]
        yield cache / f"{key}-{name}"


def _read(place: Path, state: dict[str, int | str]) -> RowIndex | None:
    """The index in a file; None if there is none, or it is of another state of the feature file or of another program."""
    try:
        arrays = read_arrays(place, "an index")
        facts = json.loads(arrays["facts"].tobytes())
        if facts["format"] != FORMAT or facts["state"] != state:
            return None
        ids = arrays["ids"].tobytes().decode("utf-8").split("\n") if len(arrays["kept"]) else []
        starts, places, kept = (arrays[name].astype(np.int64) for name in ("starts", "features_at", "kept"))
        sound = (
            len(ids) == len(kept)
            and len(places) + 1 == len(starts)
            and (np.diff(starts) >= 0).all()
            and (not len(kept) or kept.max() + 1 < len(starts))
        )
        faults = [Fault(**fault) for fault in facts["faults"]]
        return RowIndex(
            facts["dialect"], starts, places, kept, ids, facts["width"], facts["most_objects"], faults, facts["fault_count"],
            facts["notes"],
        ) if sound else None  # fmt: skip
    except (InputError, OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _write(places: Sequence[Path], index: RowIndex, state: dict[str, int | str], path: Path) -> None:
    facts = {
        "format": FORMAT, "state": state, "dialect": index.dialect, "width": index.width, "most_objects": index.most_objects,
        "faults": [asdict(fault) for fault in index.faults], "fault_count": index.fault_count, "notes": list(index.notes),
    }  # fmt: skip
    content = save(
        {
            "starts": index.starts,
            "features_at": index.features_at,
            "kept": index.kept,
            "ids": np.frombuffer("\n".join(index.ids).encode(), np.uint8),
            "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
        }
    )
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_files(place.parent, {place.name: content})
            return
        except OSError:
            continue
    LOGGER.warning("%s: its index can be kept nowhere; the whole file is read again the next time", path)
