"""Runs the fp16 linter on an ONNX artifact: on an fp16 one as it is, on a float32 one after a trial conversion to fp16."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.exporting.activation_ranges import Batches, lint_artifact
from lxmert_export.graphs.fp16_linter import Finding
from lxmert_export.spec.user_inputs import read_user_pieces

BATCH = 16  # rows of a run: every tensor of the graph is kept until its range is measured


def lint(artifact: Artifact, calibration: str | Path | None = None) -> list[Finding]:
    """Returns every finding about an fp16 ONNX artifact, or about a float32 one as ``--fp16`` would convert it.

    Ranges are measured on ``calibration``, a file of real inputs, by default on drawn inputs. A float32 artifact is converted
    with the standard islands. Raises

    - ``ArtifactError`` for another target or precision,
    - ``InputError`` for inputs that the artifact does not take,
    - ``ConversionError`` for a weight that fp16 cannot hold.
    """
    manifest = artifact.manifest
    if manifest.target != "onnx" or manifest.precision not in ("fp16", "fp32"):
        raise ArtifactError(
            f"{artifact.path}: is {manifest.precision} {manifest.target}; the fp16 linter reads ONNX artifacts of fp16 or fp32"
        )
    batches = None
    if calibration is not None:
        batches = read_user_pieces(calibration, manifest.signature, manifest.limits, BATCH)
    return lint_artifact(artifact, batches=batches) if manifest.precision == "fp16" else _as_fp16(artifact, batches)


def _as_fp16(artifact: Artifact, batches: Batches | None) -> list[Finding]:
    from converters.onnx.islands import standard_islands, write_with_islands
    from lxmert_export.graphs.onnx_types import load_typed

    source = artifact.file(ONNX_FILE)
    weights = load_typed(source).graph.initializers  # memory-mapped, so that only one at a time is read
    originals = {name: value.const_value.numpy() for name, value in weights.items() if value.const_value is not None}
    with TemporaryDirectory(prefix="lxmert-export-lint-") as place:
        write_with_islands(source, Path(place), standard_islands(source))
        half = Artifact(Path(place), artifact.manifest, artifact.name)
        return lint_artifact(half, batches=batches, originals=originals)
