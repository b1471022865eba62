"""Kills writers at random moments; afterwards there is the old, the new or nothing, and the same command works.

A program of its own, because it forks: python -m benchmarks.trust.kills SOURCES WRITER KILLS
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trust.attempts import (
    OLD,
    age,
    attempt,
    can_replace,
    hidden,
    over,
    print_rows,
    refused,
    rows_of,
    unsound,
    visible,
)
from benchmarks.trust.writers import WRITERS, Writer

QUICK, SLOW = 24, 12  # kills of each writer
SLOW_WRITERS = ("onnx", "onnx in a single file", "saved model", "keras", "tflite", "engine")


def planned() -> Mapping[str, int]:
    """Returns the number of kills of each writer."""
    return {name: SLOW if name in SLOW_WRITERS else QUICK for name in WRITERS}


def apart(writer: str, sources: Path, kills: int) -> dict[str, Any]:
    """Kills one writer some times, in a process of its own."""
    began = time.perf_counter()
    rows = rows_of("kills", sources, writer, str(kills))
    counts = {state: sum(row["found"] == state for row in rows) for state in ("nothing", "old", "new", "parts")}
    return {
        "kills": sum(row["killed"] for row in rows), **counts, "recovered": sum(bool(row["left"]) for row in rows),
        "findings": [row for row in rows if row["fault"]], "seconds": time.perf_counter() - began,
    }  # fmt: skip


def trials(writer: Writer, sources: Path, kills: int) -> Iterator[dict[str, Any]]:
    """Kills a writer at random moments, every other time while it replaces what an earlier run wrote."""
    generator = np.random.default_rng(kills)
    with tempfile.TemporaryDirectory(prefix="lxmert-export-kills-") as directory:
        whole = attempt(writer, sources, Path(directory))
        new = visible(Path(directory))
        assert whole.code == 0 and new, f"the writer fails by itself: {whole.said}"
    killed = 0
    while killed < kills:
        with tempfile.TemporaryDirectory(prefix="lxmert-export-kills-") as directory:
            place, replaces = Path(directory), can_replace(writer) and killed % 2 == 1
            if replaces:
                attempt(writer, sources, place)
                age(place)
            found = trial(
                over(writer) if replaces else writer, sources, place, new, float(generator.uniform(0, whole.seconds))
            )
        killed += found["killed"]
        yield found


def trial(writer: Writer, sources: Path, place: Path, new: frozenset[str], moment: float) -> dict[str, Any]:
    """Kills a writer once, looks, and gives the same command again."""
    before = visible(place)
    ended = attempt(writer, sources, place, kill_after=moment)
    found, left = kind_of(visible(place), before, new), hidden(place)
    torn = unsound(place)
    again = attempt(writer, sources, place)
    was_done = found == "new" and refused(again)  # it was killed when all was done
    faults = [
        torn and f"torn: {torn}",
        again.fault or (f"again: {again.said}" if again.code and not was_done else None),
        None if visible(place) == new else f"afterwards there is {sorted(visible(place))}",
        f"left behind: {hidden(place)}" if hidden(place) else None,
    ]
    killed = ended.code == -signal.SIGKILL
    return {"moment": moment, "killed": killed, "found": found, "left": left, "fault": next(filter(None, faults), None)}


def kind_of(seen: frozenset[str], old: frozenset[str], new: frozenset[str]) -> str:
    """What is there: of several outputs some may be there and others not, until the next run has cleaned up."""
    if seen in (old, new):
        return "new" if seen == new else "old" if any(name.endswith(OLD) for name in old) else "nothing"
    return "parts"


if __name__ == "__main__":
    print_rows(argparse.ArgumentParser(description=__doc__), trials, "kills")
