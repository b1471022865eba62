"""Measures how fast files of features are indexed, decoded and read, beside the base64 decoder alone and the original code.

Run on a quiet machine: python -m benchmarks.features [--questions 100000]. It makes the set of benchmarks.synthetic_set if it is
not there, converts it to float16 and float32, and writes benchmarks/features.md. What is timed takes turns, one thread, and
files that the system has in memory; a figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import base64
import csv
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pybase64

from benchmarks.measuring import machine
from benchmarks.synthetic_set import PLACE, QUESTIONS, write_set
from lxmert_export.data.features.checked import CheckedFeatures
from lxmert_export.data.features.converting import convert_features
from lxmert_export.data.features.opening import open_features
from lxmert_export.data.features.tsv import TsvFile
from lxmert_export.data.features.tsv_index import SUFFIX
from lxmert_export.files.mapped_file import MappedFile

PAGE = Path(__file__).with_suffix(".md")
ROUNDS, INDEXINGS = 7, 3
TIMED = 1_000  # pictures that a round reads, spread over the file
AIRSPLAY = 200  # the original code reads from the start, and takes longer
MEBIBYTE = 1 << 20
# The names of what is timed: the page's rows.
DECODER, STORED, TSV, FP32, FP16, ORIGINAL = (
    "pybase64 alone, on the features' text in mapped pages",
    "a row decoded: fields, boxes, features",
    "TSV, every check",
    "float32, memory-mapped, every check",
    "float16, memory-mapped, every check",
    "airsplay's code: csv and base64 of Python",
)


def main() -> None:
    """Makes what is missing, measures, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    questions = parser.parse_args().questions
    text = page(questions, PLACE)
    PAGE.write_text(text, encoding="utf-8")
    print(text)


def page(questions: int, place: Path) -> str:
    """Measures on a set of so many questions below a directory, and returns the page."""
    folder = write_set(place, questions)
    tsv = folder / "val2014_obj36.tsv"
    indexing = [indexed(tsv) for _ in range(INDEXINGS)]
    converted = {name: converted_to(tsv, name) for name in ("float16", "float32")}
    with (
        open_features(tsv) as text,
        open_features(converted["float16"]) as half,
        open_features(converted["float32"]) as full,
    ):
        ids = text.ids[:: max(1, len(text.ids) // TIMED)]
        seconds = rounds(ways(text, half, full, ids), len(ids))
        memory = {name: growth(source) for name, source in ((TSV, text), (FP32, full), (FP16, half))}
        shape = text.read(ids[0]).features.shape
        lines = _lines(tsv, len(text.ids), shape, indexing, seconds, memory)
    return "\n".join(lines) + "\n"


def indexed(tsv: Path) -> float:
    """Returns the MB/s of making an index anew."""
    tsv.with_name(tsv.name + SUFFIX).unlink(missing_ok=True)
    started = time.perf_counter()
    open_features(tsv).close()
    return tsv.stat().st_size / (time.perf_counter() - started) / 1e6


def converted_to(tsv: Path, dtype: Any) -> Path:
    """Converts the file, unless that was done."""
    output: Path = tsv.parent / dtype
    if not output.exists():
        with open_features(tsv) as source:
            convert_features(source, output, dtype=dtype)
    return output


def ways(
    text: CheckedFeatures, half: CheckedFeatures, full: CheckedFeatures, ids: Sequence[str]
) -> Mapping[str, Callable[[], object]]:
    """Returns what is timed. Each handles the same pictures, but for the original code, which reads the first ones."""
    positions = [text.ids.index(id) for id in ids]
    mapped, places = MappedFile(text.path), list(feature_texts(text, positions))
    return {
        DECODER: lambda: [pybase64.b64decode(mapped.part(*place), validate=True) and None for place in places],
        STORED: lambda: [text.file.stored(position) and None for position in positions],
        TSV: lambda: [text.read(id) and None for id in ids],
        FP32: lambda: [full.read(id) and None for id in ids],
        FP16: lambda: [half.read(id) and None for id in ids],
        ORIGINAL: lambda: original(text.path),
    }


def feature_texts(text: CheckedFeatures, positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields where the features' base64 of some pictures begins and ends in the file."""
    assert isinstance(text.file, TsvFile)
    with text.path.open("rb") as file:
        for position in positions:
            start, end = text.file.extent(position)
            file.seek(start)
            row = file.read(end - start).rstrip(b"\r\n")
            yield start + row.rindex(b"\t") + 1, start + len(row)


def original(path: Path) -> int:
    """Reads the first pictures as airsplay/lxmert does (src/utils.py), with the decoder that Python still has."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t"), start=1):
            boxes = np.frombuffer(base64.b64decode(row[8]), dtype=np.float32).reshape(int(row[7]), -1)
            np.frombuffer(base64.b64decode(row[9]), dtype=np.float32).reshape(len(boxes), -1)
            if number == AIRSPLAY:
                break
    return number


def rounds(timed: Mapping[str, Callable[[], object]], pictures: int) -> dict[str, float]:
    """Returns the median seconds a picture of each."""
    found: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(ROUNDS):
        for name, work in timed.items():
            started = time.perf_counter()
            done = work()
            spent = time.perf_counter() - started
            found[name].append(spent / (done if isinstance(done, int) else pictures))
    return {name: statistics.median(times) for name, times in found.items()}


def growth(source: CheckedFeatures) -> float:
    """Returns by how many MiB the process's resident memory grows at most while all pictures are read, mapped pages included."""
    for id in source.ids[:10]:
        source.read(id)
    before, most = resident(), 0.0
    for number, id in enumerate(source.ids):
        source.read(id)
        if not number % 50:
            most = max(most, resident() - before)
    return most


def resident() -> float:
    """Returns the process's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / MEBIBYTE


def _lines(
    tsv: Path,
    pictures: int,
    shape: tuple[int, ...],
    indexing: Sequence[float],
    seconds: Mapping[str, float],
    memory: Mapping[str, float],
) -> Iterator[str]:
    size = tsv.stat().st_size
    yield from (
        "# Reading features",
        "",
        f"Measured by `python -m benchmarks.features` on {machine(('numpy', 'pybase64', 'safetensors'))}. {pictures:,} pictures "
        f"of {shape[0]} × {shape[1]}, a TSV of {size / 1e9:.2f} GB; one thread; the files were in the system's memory. "
        f"Medians of {ROUNDS} rounds in turn.",
        "",
        f"Indexing: {statistics.median(indexing):,.0f} MB/s (median of {len(indexing)}).",
        "",
        "| what | µs a picture | pictures/s | ÷ pybase64 alone | faster than the TSV | memory grows by at most (MiB) |",
        "|---|---|---|---|---|---|",
    )
    for name, one in seconds.items():
        share = f"{seconds[DECODER] / one:.2f}" if name in (DECODER, STORED, TSV) else ""
        faster = f"{seconds[TSV] / one:.1f} ×" if name in (TSV, FP32, FP16, ORIGINAL) else ""
        grows = f"{memory[name]:.0f}" if name in memory else ""
        yield f"| {name} | {one * 1e6:.0f} | {1 / one:,.0f} | {share} | {faster} | {grows} |"


if __name__ == "__main__":
    main()
