"""A target added from outside: a row, a converter, a runner and a reader of facts. No file of the package knows of it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from converters.to_onnx import convert_to_onnx
from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.facts import GraphFacts, read_as
from lxmert_export.artifact.targets import Part, Runtime, Target
from lxmert_export.exporting.conversion import Conversion
from lxmert_export.extras import TORCH, Library
from lxmert_export.graphs.onnx_facts import read_onnx_facts
from lxmert_export.progress import Progress
from lxmert_export.runners.onnx.session import OnnxRuntimeRunner
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays
from parity_tests.project.toy_runtime import ToyFile

FILE = "model.toy"
HERE = "parity_tests.project.toy_target"
RUNTIME = Library("parity_tests.project.toy_runtime", "toy", ("toy-runtime",))

TOY = Target(
    "toy",
    "Toy",
    ("fp32",),
    Runtime("toy", Part(f"{HERE}:open_toy", (RUNTIME,))),
    converter=Part(f"{HERE}:convert_to_toy", (TORCH, RUNTIME)),
    facts=Part(f"{HERE}:read_facts", (RUNTIME,)),
    files=(FILE,),
)


def convert_to_toy(conversion: Conversion, directory: Path, progress: Progress) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place, ZipFile(directory / FILE, "w") as archive:
        convert_to_onnx(conversion.module, conversion.signature, conversion.limits, Path(place), precision="fp32")
        for file in sorted(Path(place).iterdir()):
            archive.write(file, file.name)
    return {"made of": "onnx"}


def open_toy(artifact: Artifact, providers: Sequence[str], threads: int | None) -> Runner:
    return ToyRunner(artifact)


class ToyRunner(Runner):
    """Runs a toy file."""

    def __init__(self, artifact: Artifact) -> None:
        manifest = artifact.manifest
        super().__init__(artifact.name, manifest.signature, manifest.limits)
        self._place = tempfile.TemporaryDirectory()
        file = ToyFile(artifact.file(FILE), Path(self._place.name))
        self._runner = OnnxRuntimeRunner(file.graph, manifest.signature, manifest.limits, precision="fp32")

    def compute(self, inputs: Arrays) -> Arrays:
        return self._runner.compute(inputs)

    def release(self) -> None:
        self._runner.close()
        self._place.cleanup()


def read_facts(artifact: Artifact) -> GraphFacts:
    file = artifact.file(FILE)
    with tempfile.TemporaryDirectory() as place, read_as(artifact, file, (OSError, ValueError)):
        return read_onnx_facts(ToyFile(file, Path(place)).graph)
