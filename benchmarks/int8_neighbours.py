"""Does a row's int8 answer depend on the rows beside it? In every runtime that runs int8.

Writes benchmarks/int8_neighbours.md. Run: python -m benchmarks.int8_neighbours
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.measuring import machine
from lxmert_export.api.artifact import load_artifact
from lxmert_export.api.export import export
from lxmert_export.artifact.directory import Artifact
from lxmert_export.graphs.int8_saturation import WEIGHT_RANGES
from lxmert_export.runners.onnx.int8_kernels import is_exact
from lxmert_export.spec.sample_inputs import FamilyKind, draw_batch
from lxmert_export.spec.signature import ANSWER_OUTPUT, Task

ROWS, FIRST, SIZES = 32, (0, 13), (1, 3, 8)
SIZE = {"batch": ROWS, "text": 9, "objects": 8}
TASK: Task = "question-answering"


def main() -> None:
    """Exports the built-in checkpoint, measures, and writes the page."""
    lines = [
        "# A row's int8 answer and the rows beside it",
        "",
        f"Measured by `python -m benchmarks.int8_neighbours` on {machine(('openvino', 'ai-edge-litert'))}.",
        "",
        f"The built-in checkpoint answers {ROWS} random questions at once, and some of them again in batches of "
        f"{', '.join(map(str, SIZES))}.",
        "",
        "| file | runtime | largest difference of a score ÷ the scores' standard deviation |",
        "|---|---|---|",
        *(f"| {file} | {runtime} | {share:.2g} |" for file, runtime, share in measured()),
    ]
    (Path(__file__).parent / "int8_neighbours.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def measured() -> Iterator[tuple[str, str, float]]:
    """Yields each file in each of its runtimes, with the largest difference."""
    exact = next(name for name, largest in WEIGHT_RANGES.items() if is_exact(largest))
    with TemporaryDirectory(prefix="lxmert-export-neighbours-") as place:
        for name, target, options in (
            (f"onnx --int8 --int8-range {exact}", "onnx", {"int8_range": exact}),
            ("tflite --int8", "tflite", {}),
            ("tflite --int8 --full-integer", "tflite", {"full_integer": True}),
        ):
            artifact = exported(target, Path(place) / name.replace(" ", ""), options)
            runtimes = ("onnxruntime", "openvino") if target == "onnx" else ("litert",)
            yield from ((name, runtime, difference(artifact, runtime)) for runtime in runtimes)


def exported(target: str, place: Path, options: dict[str, Any]) -> Artifact:
    """Exports the built-in checkpoint in int8, without the gate."""
    return export(target, "demo", place, task=TASK, precision="int8", parity=False, **options)


def difference(artifact: Artifact, runtime: str) -> float:
    """Returns the largest difference of a score of a row in a small batch from the same row among all."""
    signature, config = artifact.manifest.signature, artifact.manifest.config
    inputs = draw_batch(FamilyKind(ragged=True), signature, config, SIZE, np.random.default_rng(0))
    with load_artifact(artifact.path, runtime=runtime) as runner:
        together = runner.run(inputs)[ANSWER_OUTPUT].astype(np.float64)
        parts = [slice(first, first + size) for size in SIZES for first in FIRST]
        alone = [runner.run({name: array[part] for name, array in inputs.items()})[ANSWER_OUTPUT] for part in parts]
    largest = max(
        np.abs(found.astype(np.float64) - together[part]).max() for found, part in zip(alone, parts, strict=True)
    )
    return float(largest / together.std())


if __name__ == "__main__":
    main()
