"""Flips single bits: of every file of artifacts of every target, and of a ``.pth``. Each must be noticed.

Artifacts are checked as ``load_artifact`` checks them, in a process that no runtime is loaded into:
python -m benchmarks.trust.flips ARTIFACT... [--each 150] [--manifest 600]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lxmert_export.artifact.directory import open_artifact
from lxmert_export.errors import LxmertExportError
from lxmert_export.files.converted_files import MANIFEST_FILE

if TYPE_CHECKING:
    from benchmarks.trust.samples import Samples

ROOT = Path(__file__).parent.parent.parent
ARTIFACTS = ("onnx", "saved-model", "keras", "tflite", "engine", "bundle")
RUNTIMES = ("torch", "onnxruntime", "onnx", "tensorflow", "keras", "ai_edge_litert", "tensorrt", "tensorrt_rtx")
EACH, OF_A_MANIFEST, OF_A_CHECKPOINT = 150, 600, 1000
Row = dict[str, Any]  # file, bytes, flips, noticed; and the places of the bits that were not noticed


def flips(
    samples: Samples, *, each: int = EACH, manifest: int = OF_A_MANIFEST, checkpoint: int = OF_A_CHECKPOINT
) -> dict[str, Any]:
    """Flips bits of every file of an artifact of each target, and of a ``.pth``; returns a row for each file."""
    directories = [str(samples.directory(name)) for name in ARTIFACTS]
    began = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "benchmarks.trust.flips",
        *directories,
        "--each",
        str(each),
        "--manifest",
        str(manifest),
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    found["files"].append(of_checkpoint(samples, checkpoint))
    return {**found, "seconds": time.perf_counter() - began}


def of_artifact(directory: Path, each: int, manifest: int) -> list[Row]:
    """Flips bits of every file of a copy of an artifact."""
    with tempfile.TemporaryDirectory(prefix="lxmert-export-flips-") as place:
        copy = Path(shutil.copytree(directory, Path(place) / directory.name))
        names = [*open_artifact(copy).manifest.files, MANIFEST_FILE]
        return [
            in_file(
                copy / name,
                f"{directory.name}/{name}",
                manifest if name == MANIFEST_FILE else each,
                lambda: _opens(copy),
            )
            for name in names
        ]


def in_file(file: Path, name: str, count: int, goes_unnoticed: Callable[[], bool]) -> Row:
    """Flips random bits of a file, one at a time, and puts each back."""
    size = file.stat().st_size
    places = np.random.default_rng(size).integers(8 * size, size=count)
    with file.open("r+b") as stream:
        unnoticed = [place for place in map(int, places) if _flipped(stream, place, goes_unnoticed)]
    return {"file": name, "bytes": size, "flips": count, "noticed": count - len(unnoticed), "unnoticed": unnoticed}


def of_checkpoint(samples: Samples, count: int) -> Row:
    """Flips bits of a ``.pth``: each is noticed, or lies where it changes no weight, such as in a time stamp."""
    import torch

    from lxmert_export.checkpoint.read import read_checkpoint

    with tempfile.TemporaryDirectory(prefix="lxmert-export-flips-") as place:
        copy = Path(shutil.copytree(samples.directory("original"), Path(place) / "original"))
        sound = {name: tensor.clone() for name, tensor in read_checkpoint(copy).tensors.items()}

        def changes_weights() -> bool:
            try:
                read = read_checkpoint(copy).tensors
            except LxmertExportError:
                return False
            return read.keys() != sound.keys() or not all(torch.equal(read[name], sound[name]) for name in sound)

        return in_file(copy / "BEST.pth", "original/BEST.pth", count, changes_weights)


def _flipped(stream: Any, place: int, goes_unnoticed: Callable[[], bool]) -> bool:
    stream.seek(place // 8)
    byte = stream.read(1)[0]
    for content in (byte ^ 1 << place % 8, byte):
        stream.seek(place // 8)
        stream.write(bytes([content]))
        stream.flush()
        if content != byte:
            unnoticed = goes_unnoticed()
    return unnoticed


def _opens(directory: Path) -> bool:
    try:
        open_artifact(directory)
    except LxmertExportError:
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a row for each file of the artifacts, and the runtimes that were loaded meanwhile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--each", type=int, default=EACH)
    parser.add_argument("--manifest", type=int, default=OF_A_MANIFEST)
    chosen = parser.parse_args(arguments)
    files = [row for artifact in chosen.artifacts for row in of_artifact(artifact, chosen.each, chosen.manifest)]
    print(json.dumps({"files": files, "runtimes": [name for name in RUNTIMES if name in sys.modules]}))


if __name__ == "__main__":
    main()
