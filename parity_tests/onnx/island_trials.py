"""An fp16 file with chosen float32 islands, written and judged the long way: through the file and the artifact's emulator."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.onnx.islands import write_with_islands
from converters.to_onnx import ONNX_FILE, convert_to_onnx
from lxmert_export.artifact.directory import Artifact
from lxmert_export.artifact.manifest import Manifest
from lxmert_export.parity.cells import Floors, judge
from lxmert_export.parity.recording import Recording, record
from lxmert_export.parity.report import ParityReport
from lxmert_export.reference.yardstick import run_floors, run_reference
from lxmert_export.runners.opening import open_emulator
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.sample_inputs import FAMILY_KINDS, SampleInputs, sample_inputs
from lxmert_export.spec.signature import Signature, Task, task_signature


@dataclass(frozen=True)
class Bench:
    """A model's float32 file, and what its fp16 files are judged by."""

    source: Path
    signature: Signature
    config: LxmertConfig
    samples: SampleInputs
    reference: Recording
    floors: Floors

    def artifact(self, directory: Path, **options: Any) -> Artifact:
        manifest = Manifest(
            "onnx", "fp16", self.signature.task, self.config, self.signature, checkpoint={}, options=options
        )
        return Artifact(directory, manifest, "bench")

    def report(self, islands: Iterable[str]) -> ParityReport:
        with tempfile.TemporaryDirectory() as directory:
            half = [spec.name for spec in self.signature if spec.dtype == "float16"]
            write_with_islands(self.source, Path(directory), islands, half_values=half)
            return self.report_on(self.artifact(Path(directory)))

    def report_on(self, artifact: Artifact) -> ParityReport:
        with open_emulator(artifact) as runner:
            found = record(runner.run, self.samples, self.signature)
        cells = judge("bench", found, self.reference, self.floors, self.signature, "emulated", precision="fp16")
        return ParityReport(tuple(cells))


def bench(
    model: Any, config: LxmertConfig, task: Task, directory: Path, *, opset: int = 18,
    families: Collection[str] = FAMILY_KINDS.keys(), **options: Any,
) -> Bench:  # fmt: skip
    """Writes the float32 file, and measures reference and floors."""
    signature = task_signature(config, task, **options)
    convert_to_onnx(
        model, signature.in_float32(), InputLimits.of(config), directory, precision="fp32", opset=opset
    )  # fmt: skip
    samples = sample_inputs(signature, config, without=FAMILY_KINDS.keys() - set(families))
    reference = run_reference(model, signature, config, samples)
    floors = run_floors(model, signature, config, samples, reference, "fp16")
    return Bench(directory / ONNX_FILE, signature, config, samples, reference, floors)
