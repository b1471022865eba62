"""What a run has answered so far, beside its output: a file for each finished shard, from which the next run goes on.

    .NAME.predicting/
        lock           locked (flock) while a run lives
        plan.json      what is answered: digests of questions, artifact and features, and the options
        part-N         a hash of all that follows, the places of shard N's questions, and their records

A part is written under another name, flushed to the disk, and renamed. Without plan.json the directory is no run's: one was about
to begin, or all was done and being removed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from lxmert_export.errors import ArtifactError, shortened
from lxmert_export.files.atomic_files import replace_file
from lxmert_export.files.json_files import read_json
from lxmert_export.files.locks import Hold, locked
from lxmert_export.option_names import option
from lxmert_export.predicting.plan import Plan
from lxmert_export.predicting.shard_runner import Answered

LOCK, PLAN = "lock", "plan.json"
WINDOW = 1 << 16  # records that are merged at a time


@dataclass(frozen=True)
class Part:
    """The records of a finished shard. ``cut``: how many of its questions were longer than the artifact takes."""

    records: list[bytes]
    cut: int


class Parts:
    """The finished shards of a plan, in a directory that this run has locked."""

    def __init__(self, directory: Path, plan: Plan, inputs: Mapping[str, str]) -> None:
        self.directory, self._plan = directory, plan
        self._key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        found = {number: self._read(number) for number in range(len(plan))}
        self._cut = {number: part.cut for number, part in found.items() if part is not None}

    @property
    def missing(self) -> list[int]:
        """The numbers of the shards that are not finished."""
        return [number for number in range(len(self._plan)) if number not in self._cut]

    @property
    def answered(self) -> int:
        """The number of questions of the finished shards."""
        return sum(len(self._plan.places(number)) for number in self._cut)

    @property
    def cut(self) -> int:
        """The number of questions that were longer than the artifact takes."""
        return sum(self._cut.values())

    def keep(self, answered: Answered) -> None:
        """Writes the records of a shard: whole, or not at all. ``OSError``: they cannot be written."""
        records = [record.encode() for record in answered.records]
        head = {
            "plan": self._key,
            "places": answered.places,
            "bytes": [len(record) for record in records],
            "cut": answered.cut,
        }
        content = json.dumps(head).encode() + b"\n" + b"".join(records)
        replace_file(self._file(answered.number), _hash(content) + b"\n" + content)
        self._cut[answered.number] = answered.cut

    def in_order(self) -> Iterator[bytes]:
        """Yields all records, in the order of their questions. ``ArtifactError``: a part was damaged since it was written."""
        count = len(self._plan.questions)
        part_of = np.zeros(count, np.int64)
        for number in range(len(self._plan)):
            part_of[list(self._plan.places(number))] = number
        for start in range(0, count, WINDOW):
            end = min(start + WINDOW, count)
            records: dict[int, bytes] = {}
            for number in np.unique(part_of[start:end]).tolist():
                part = self._read(number)
                if part is None:
                    raise ArtifactError(
                        f"{self._file(number)}: was damaged or removed meanwhile: run the same command again"
                    )
                placed = zip(self._plan.places(number), part.records, strict=True)
                records |= {place: record for place, record in placed if start <= place < end}
            yield from (records[place] for place in range(start, end))

    def remove(self) -> None:
        """Removes the directory, because all is done."""
        with suppress(OSError):  # the next run of the same command removes it
            _clear(self.directory)

    def _read(self, number: int) -> Part | None:
        """A finished shard; None if there is none, or one that is damaged or of another plan."""
        try:
            sha256, _, content = self._file(number).read_bytes().partition(b"\n")
            if sha256 != _hash(content):
                return None
            line, _, body = content.partition(b"\n")
            head = json.loads(line)
            if (head["plan"], head["places"]) != (self._key, list(self._plan.places(number))):
                return None
            ends = [0, *accumulate(head["bytes"])]
            return Part([body[begin:end] for begin, end in pairwise(ends)], int(head["cut"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _file(self, number: int) -> Path:
        return self.directory / f"part-{number:06d}"


@contextmanager
def kept_parts(output: Path, plan: Plan, inputs: Mapping[str, str], *, overwrite: bool) -> Iterator[Parts]:
    """Yields what an earlier run of the same ``inputs`` has finished beside ``output``; what is added stays if the block fails.

    ``inputs`` are names of what decides about the answers, with digests. With ``overwrite`` what a run of other inputs left is
    removed. ``ArtifactError``: another run is writing the same output, or one of other inputs was not finished.
    """
    directory = directory_of(output)
    directory.mkdir(exist_ok=True)
    with locked(directory / LOCK) as held:
        if held is Hold.ANOTHERS:
            raise ArtifactError(
                f"{output}: another run is answering into it: wait for it, or choose another output (-o)"
            )
        if (left := _inputs_of(directory)) != inputs:
            if left and not overwrite:
                raise ArtifactError(
                    f"{output}: {directory.name} beside it is of an unfinished run of other inputs: "
                    f"{shortened(_differing(left, inputs))}; {option('overwrite', True)} removes it, another output (-o) keeps it"
                )
            _clear(directory, keep=LOCK)
            replace_file(directory / PLAN, json.dumps(inputs, indent=1).encode())
        parts = Parts(directory, plan, inputs)
        try:
            yield parts
        except BaseException:
            if not parts.answered:
                parts.remove()
            raise


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def directory_of(output: Path) -> Path:
    """Returns the directory of the finished shards of an output."""
    return output.with_name(f".{output.name}.predicting")


def may_be_finished(output: Path) -> bool:
    """Whether a run that had written its output was killed before its end. What it had begun to remove is removed."""
    directory = directory_of(output)
    if not directory.exists():
        return False
    if not (directory / PLAN).exists():
        with suppress(OSError), locked(directory / LOCK) as held:
            if held is not Hold.ANOTHERS:
                _clear(directory)
    return (directory / PLAN).exists()


def _inputs_of(directory: Path) -> dict[str, str]:
    """The inputs of an unfinished run; empty if there is none."""
    try:
        found = read_json(directory / PLAN)
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _differing(left: Mapping[str, str], inputs: Mapping[str, str]) -> list[str]:
    """What differs, in words; digests are not words."""
    names = [name for name in {**left, **inputs} if left.get(name) != inputs.get(name)]
    return [
        name if len(inputs.get(name, "")) > 40 else f"{name} {left.get(name)}, now {inputs.get(name)}" for name in names
    ]


def _clear(directory: Path, *, keep: str = "") -> None:
    """Removes a directory, or what is in it. What says that it is a run's goes first, so that a kill leaves no part of it."""
    (directory / PLAN).unlink(missing_ok=True)
    for entry in directory.iterdir():
        if entry.name not in (keep, LOCK):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if not keep:
        (directory / LOCK).unlink(missing_ok=True)
        directory.rmdir()
