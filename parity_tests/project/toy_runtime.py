"""The runtime of the toy target: a stand-in for a library that somebody else would install."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile


class ToyFile:
    """An archive of an ONNX file and its weights, unpacked to be run."""

    def __init__(self, path: Path, directory: Path) -> None:
        with ZipFile(path) as archive:
            archive.extractall(directory)
        self.graph = directory / "model.onnx"
