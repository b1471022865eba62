"""Looks at a file of features: what it is, what its pictures are like, and what in it is suspicious."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lxmert_export.data.features.boxes import MISTAKES, layout_of
from lxmert_export.data.features.checked import checked
from lxmert_export.data.features.opening import FORMATS, box_layout, open_stored, sampled
from lxmert_export.data.features.shards import ShardedFeatures
from lxmert_export.data.features.stored import BoxLayout, Fault, FeatureFile, PictureError, StoredPicture
from lxmert_export.data.pictures import Picture
from lxmert_export.files.listing import files_below
from lxmert_export.interrupts import raise_if_stopped
from lxmert_export.option_names import option
from lxmert_export.progress import Progress, silent

USUAL_WIDTH = 2048
MOST_LISTED = 20  # faults that are shown; all are counted
MOST_BELOW_ZERO = 0.001  # the share of features below 0 that is nothing to be told


@dataclass(frozen=True)
class Inspection:
    """What a file of features holds.

    - ``boxes``: the layout of the boxes; None: none is sound. ``checked``: how many pictures were read and checked.
    - ``objects``, ``features``: least, median (mean of features) and most. ``zeros``: the share of features that are 0.
    - ``faults``: the first of what makes pictures unusable; ``fault_count``: of all. ``notes``: what is unusual and may be right.
    """

    path: str
    format: str
    description: str
    bytes: int
    pictures: int
    feature_width: int
    boxes: str | None
    checked: int
    objects: tuple[int, float, int] | None
    features: tuple[float, float, float] | None
    zeros: float | None
    first_ids: tuple[str, ...]
    numeric_ids: bool
    notes: tuple[str, ...]
    fault_count: int
    faults: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns what ``features inspect --json`` prints."""
        return asdict(self)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yields what ``features inspect`` prints: a label and its value, a line each."""
        yield "path", self.path
        yield "format", f"{self.format} ({self.description})"
        yield "size", f"{self.bytes:,} bytes, {self.pictures:,} pictures"
        yield "ids", f"{'numbers' if self.numeric_ids else 'names'}: {', '.join(self.first_ids)}"
        yield "boxes", self.boxes or "sound in no layout"
        yield "checked", "all pictures" if self.checked == self.pictures else f"{self.checked:,} pictures"
        if self.objects and self.features and self.zeros is not None:
            yield "objects", f"{self.objects[0]:,} to {self.objects[2]:,} a picture, median {self.objects[1]:g}"
            least, mean, most = self.features
            yield (
                "features",
                f"{self.feature_width:,} wide, {least:.4g} to {most:.4g}, mean {mean:.4g}, {self.zeros:.1%} zeros",
            )
        for note in self.notes:
            yield "note", note
        for fault in self.faults:
            yield "unusable", fault
        if self.fault_count > len(self.faults):
            yield "unusable", f"and {self.fault_count - len(self.faults):,} more"


def inspect_features(
    path: str | Path, *, sample: int | None = None, boxes: str | None = None, progress: Progress = silent
) -> Inspection:
    """Reads and checks every picture of a file, or a sample that is spread over it.

    ``InputError``: it is no file of features. What is wrong with its pictures is part of the result.
    """
    file = open_stored(Path(path), progress=progress)
    try:
        return _inspect(file, sampled(file, sample) if sample else range(len(file.ids)), boxes, progress)
    finally:
        file.close()


class _Summary:
    """Figures of all pictures that were checked."""

    def __init__(self) -> None:
        self.objects: list[int] = []
        self.least, self.most, self._sum = np.inf, -np.inf, 0.0
        self._zeros = self._below = self._count = 0

    def add(self, picture: Picture) -> None:
        features = picture.features
        self.objects.append(len(features))
        self.least, self.most = min(self.least, float(features.min())), max(self.most, float(features.max()))
        self._sum += float(features.sum(dtype=np.float64))
        self._zeros += int(np.count_nonzero(features == 0))
        self._below += int(np.count_nonzero(features < 0))
        self._count += features.size

    @property
    def mean(self) -> float:
        return self._sum / self._count

    @property
    def zeros(self) -> float:
        return self._zeros / self._count

    def notes(self, width: int) -> list[str]:
        found = []
        if width != USUAL_WIDTH:
            found.append(f"features are {width} wide; those of published LXMERT checkpoints are {USUAL_WIDTH}")
        if self._count and (share := self._below / self._count) > MOST_BELOW_ZERO:
            found.append(
                f"{share:.1%} of the features are below 0; a Faster R-CNN's pooled features are not: other features?"
            )
        return found


def _inspect(file: FeatureFile, positions: Sequence[int], asked: str | None, progress: Progress) -> Inspection:
    summary = _Summary()
    damaged = list(file.damaged(progress)) if isinstance(file, ShardedFeatures) else []
    faults, count = [*file.faults, *damaged], file.fault_count + len(damaged)
    layout, notes = _layout(file, asked)
    for done, position in enumerate(positions, start=1):
        raise_if_stopped()
        fault = _check(file, position, layout, summary)
        if fault is not None:
            faults, count = [*faults, fault][:MOST_LISTED], count + 1
        progress(f"checking {file.path.name}", done, len(positions))
    objects = summary.objects
    return Inspection(
        path=str(file.path),
        format=file.format,
        description=FORMATS.get(file.format, "the arrays of a known .npz format in .safetensors"),
        bytes=sum(one.stat().st_size for one in (files_below(file.path) if file.path.is_dir() else [file.path])),
        pictures=len(file.ids),
        feature_width=file.feature_width,
        boxes=layout,
        checked=len(positions),
        objects=(min(objects), float(np.median(objects)), max(objects)) if objects else None,
        features=(summary.least, summary.mean, summary.most) if objects else None,
        zeros=summary.zeros if objects else None,
        first_ids=tuple(file.ids[:3]),
        numeric_ids=bool(file.ids) and all(id.isdecimal() for id in file.ids),
        notes=(*file.notes, *notes, *summary.notes(file.feature_width)),
        fault_count=count,
        faults=tuple(fault.said_of(file.path) for fault in faults[:MOST_LISTED]),
    )


def _layout(file: FeatureFile, asked: str | None) -> tuple[BoxLayout | None, list[str]]:
    """The layout of the boxes, and what is to be said of it."""
    if asked is not None:
        return box_layout(file, asked), []
    found = file.layout or layout_of(_readable(file))
    if found is None:
        return None, ["the boxes of no picture are sound in any layout"] if file.ids else []
    if found in MISTAKES:
        return found, [f"{MISTAKES[found]}: {option('boxes', found)} reads them nevertheless"]
    return found, []


def _readable(file: FeatureFile) -> list[StoredPicture]:
    found = []
    for position in sampled(file):
        try:
            found.append(file.stored(position))
        except PictureError:  # told when this picture is checked
            continue
    return found


def _check(file: FeatureFile, position: int, layout: BoxLayout | None, summary: _Summary) -> Fault | None:
    try:
        stored = file.stored(position)
    except PictureError as error:
        return error.fault
    picture, problem = checked(stored, layout or "normalised", file.feature_width)
    if problem is None:
        summary.add(picture)
        return None
    return Fault(file.place(position), stored.id, problem)
