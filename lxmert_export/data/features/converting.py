"""Converts a file of features to our own format, or to bottom-up-attention's TSV. A killed conversion goes on where it was."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lxmert_export.data.features.checked import CheckedFeatures
from lxmert_export.data.features.shard_writing import ShardWriter
from lxmert_export.data.features.shards import INDEX_FILE, FloatName, ShardEntry, ShardIndex
from lxmert_export.data.features.tsv_rows import FIELDS, encode
from lxmert_export.data.features.unfinished import LOCK, PLAN, Unfinished, unfinished
from lxmert_export.data.pictures import Picture
from lxmert_export.errors import PACKAGE, ArtifactError, InputError, shortened
from lxmert_export.files.hashing import sha256
from lxmert_export.files.listing import files_below
from lxmert_export.files.mapped_file import stamp
from lxmert_export.interrupts import raise_if_stopped
from lxmert_export.option_names import option
from lxmert_export.progress import Progress, silent

PART_BYTES = 1 << 29  # of features: what a killed conversion does again at most
TSV_SUFFIX = ".tsv"
ROWS_FILE = "rows.tsv"


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote: ``bytes`` on the disk, ``kept`` pictures of an earlier run, and what float16 rounded at most."""

    path: Path
    pictures: int
    kept: int
    bytes: int
    rounding: float


def convert_features(
    source: CheckedFeatures,
    output: Path,
    *,
    dtype: FloatName = "float16",
    overwrite: bool = False,
    progress: Progress = silent,
) -> Converted:
    """Converts all pictures of a file, in its order: to TSV if the output's name ends with ``.tsv``, else to our own format.

    ``InputError``: a picture cannot be used; what was converted before it is kept for the next run. ``ArtifactError``: the
    output exists, or another run is writing it. ``OSError``: it cannot be written; the next run goes on.
    """
    output = output.absolute()
    as_text = output.suffix == TSV_SUFFIX
    _refuse(source, output, as_text=as_text, overwrite=overwrite)
    inputs = {
        "source": str(source.path.resolve()), "state": _state(source.path), "format": source.format, "boxes": source.layout,
        "dtype": "text" if as_text else dtype, "pictures": len(source.ids),
    }  # fmt: skip
    with unfinished(output, inputs) as begun:
        write = _write_text if as_text else _write_shards
        return write(source, output, dtype, begun, progress)


def _write_shards(
    source: CheckedFeatures, output: Path, dtype: FloatName, begun: Unfinished, progress: Progress
) -> Converted:
    begun.keep_only(lambda entry: _has_size(begun.directory / entry["file"], entry["bytes"]))
    kept = position = sum(entry["pictures"] for entry in begun.finished)
    while position < len(source.ids):
        name = f"features-{len(begun.finished) + 1:05d}.safetensors"
        soon, final = begun.directory / f"{name}.soon", begun.directory / name
        with ShardWriter(soon, dtype, source.feature_width) as writer:
            for picture, size in _pictures(source, position, progress):
                try:
                    writer.add(picture, size)
                except ValueError as error:
                    raise source.file.error(position + writer.pictures, str(error)) from error
                if writer.feature_bytes >= PART_BYTES:
                    break
            writer.finish()
        soon.replace(final)
        position += writer.pictures
        begun.keep(
            {"file": name, "pictures": writer.pictures, "bytes": final.stat().st_size, "sha256": sha256(final),
             "most_objects": writer.most_objects, "rounding": writer.rounding}
        )  # fmt: skip
    entries = begun.finished
    shards = tuple(ShardEntry(one["file"], one["pictures"], one["bytes"], one["sha256"]) for one in entries)
    rounding = max((one["rounding"] for one in entries), default=0.0)
    index = ShardIndex(
        dtype, source.feature_width, max(one["most_objects"] for one in entries), len(source.ids), rounding,
        f"{source.path.name} ({source.format})", shards,
    )  # fmt: skip
    _write_through(begun.directory / INDEX_FILE, index.to_json())
    _replace_directory(begun.directory, output)
    begun.remove_plan(output)
    held = sum(file.stat().st_size for file in files_below(output))
    return Converted(output, len(source.ids), kept, held, rounding)


def _write_text(
    source: CheckedFeatures, output: Path, dtype: FloatName, begun: Unfinished, progress: Progress
) -> Converted:
    """Writes the fields of bottom-up-attention. Where a picture's size is unknown, it is 1 × 1, and boxes are shares."""
    rows = begun.directory / ROWS_FILE
    begun.keep_only(lambda entry: rows.is_file() and rows.stat().st_size >= entry["bytes"])
    done = begun.finished[-1] if begun.finished else {"pictures": 0, "bytes": 0}
    kept = done["pictures"]
    with rows.open("r+b" if rows.exists() else "w+b") as file:
        file.truncate(done["bytes"])
        file.seek(done["bytes"])
        written = done["bytes"]
        for number, (picture, size) in enumerate(_pictures(source, kept, progress), start=kept + 1):
            file.write(_row(picture, size or (1, 1), source))
            if file.tell() - written >= PART_BYTES or number == len(source.ids):
                file.flush()
                os.fsync(file.fileno())
                written = file.tell()
                begun.keep({"pictures": number, "bytes": written})
    rows.replace(output)
    shutil.rmtree(begun.directory)
    return Converted(output, len(source.ids), kept, output.stat().st_size, 0.0)


def _pictures(
    source: CheckedFeatures, first: int, progress: Progress
) -> Iterator[tuple[Picture, tuple[int, int] | None]]:
    step, total = f"converting {source.path.name}", len(source.ids)
    for position in range(first, total):
        raise_if_stopped()
        yield source.sized(position)
        progress(step, position + 1, total)


def _row(picture: Picture, size: tuple[int, int], source: CheckedFeatures) -> bytes:
    width, height = size
    boxes = picture.boxes * np.array([width, height] * 2, "<f4")
    if any(mark in picture.id for mark in "\t\r\n"):
        raise InputError(f"{source.path}: picture {picture.id!r}: an id in TSV has no tabs and no line ends")
    fields = {
        "image_id": picture.id.encode(), "image_w": b"%d" % width, "image_h": b"%d" % height,
        "num_boxes": b"%d" % len(boxes), "boxes": encode(boxes), "features": encode(picture.features),
    }  # fmt: skip
    return b"\t".join(fields[name] for name in FIELDS["bottom-up-tsv"]) + b"\n"


def _refuse(source: CheckedFeatures, output: Path, *, as_text: bool, overwrite: bool) -> None:
    """``ArtifactError``: the output may not be written, or holds what this command did not write."""
    if output.resolve() in (source.path.resolve(), *source.path.resolve().parents):
        raise ArtifactError(f"{output}: is, or holds, what is converted; choose another output (-o)")
    if output.resolve().is_relative_to(source.path.resolve()):
        raise ArtifactError(f"{output}: lies inside what is converted; choose another output (-o)")
    if not output.exists() and not output.is_symlink():
        return
    if not overwrite:
        raise ArtifactError(
            f"{output}: exists already; {option('overwrite', True)} replaces it, another name (-o) keeps it"
        )
    if as_text:
        with output.open("rb") if output.is_file() else open(os.devnull, "rb") as file:  # noqa: PTH123
            if file.readline(1 << 20).count(b"\t") >= len(FIELDS["bottom-up-tsv"]) - 1:
                return
    elif output.is_dir() and (output / INDEX_FILE).is_file():
        known = {INDEX_FILE, LOCK, PLAN, *(shard.file for shard in ShardIndex.read(output / INDEX_FILE).shards)}
        others = [name for path in files_below(output) if (name := path.relative_to(output).as_posix()) not in known]
        if not others:
            return
        raise ArtifactError(f"{output}: holds {shortened(others)} besides features; choose another output (-o)")
    replaces = option("overwrite", True)
    raise ArtifactError(
        f"{output}: {PACKAGE} did not write it, so {replaces} does not replace it; choose another output (-o)"
    )


def _state(path: Path) -> str:
    """A digest of names, sizes and times: with another one, what was converted before is not of the same source."""
    files = files_below(path) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if not file.name.endswith(".index.safetensors"):
            digest.update(repr((file.name, stamp(file))).encode())
    return digest.hexdigest()


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace_directory(made: Path, output: Path) -> None:
    """Gives a directory its final name. What is replaced goes when the new one is in its place."""
    aside = output.with_name(f".{output.name}.replaced")
    if output.exists():
        shutil.rmtree(aside, ignore_errors=True)
        output.rename(aside)
    made.rename(output)
    shutil.rmtree(aside, ignore_errors=True)
