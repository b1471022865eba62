"""Writes an ONNX artifact's golden file as Polygraphy's JSON: inputs, reference outputs, and the commands that compare them.

Each family of inputs has its own files, because it has its own noise floors:

    FAMILY.inputs.json     for `polygraphy run --load-inputs`: a list of feed dicts, one for each batch
    FAMILY.outputs.json    for `polygraphy run --load-outputs`: float64, only outputs that the golden file keeps whole
    check.sh               one `polygraphy run` for each family, with an L2 threshold for each output
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.artifact.golden import Golden, golden_of, is_whole
from lxmert_export.engines.library import prepare_polygraphy
from lxmert_export.errors import ArtifactError
from lxmert_export.files.appearing_together import finish_killed_runs
from lxmert_export.files.atomic_directory import atomic_directory
from lxmert_export.parity.scores import THRESHOLD
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.sample_inputs import Family

REFERENCE = "lxmert-export float64"  # Polygraphy's name for the runner of the reference outputs
SCRIPT = "check.sh"
# Polygraphy skips an output that the model lacks, it does not fail it. So `verify` is the proof, and this a second opinion.
HEADER = """\
#!/bin/sh
# Replays a golden file with Polygraphy 0.53 or newer: sh check.sh MODEL.onnx
# A threshold is the largest L2 norm of an output's error, over all batches, that lxmert-export passes.
set -eu
here=$(dirname -- "$0")
"""


def write_polygraphy(artifact: Artifact, directory: Path) -> list[str]:
    """Writes the golden file of an ONNX artifact as Polygraphy's JSON. Returns a line for each output that is left out.

    ``ArtifactError``: the artifact is not an ONNX artifact or has no golden file, or ``directory`` exists.
    """
    if ONNX_FILE not in artifact.manifest.files:
        raise ArtifactError(
            f"{artifact.path}: is a {artifact.manifest.target} artifact; Polygraphy's files are made from ONNX artifacts"
        )
    finish_killed_runs(directory.absolute().parent)
    if directory.exists():
        raise ArtifactError(f"{directory}: exists already; name another directory for Polygraphy's files")
    prepare_polygraphy()
    golden = golden_of(artifact)
    with atomic_directory(directory, overwrite=False) as temporary:
        lines = [_write_family(golden, family, temporary) for family in golden.samples.families]
        (temporary / SCRIPT).write_text(HEADER + "".join(line for line in lines if line), encoding="utf-8")
    return _left_out(golden)


def _write_family(golden: Golden, family: Family, directory: Path) -> str:
    """Writes both files of a family. Returns the script's line that compares them, empty if no output is kept whole."""
    from polygraphy.comparator import RunResults
    from polygraphy.json import to_json

    whole = _whole_outputs(golden, family)
    batches = [(inputs, outputs) for inputs, outputs in zip(family.batches, whole, strict=True) if outputs]
    if not batches:
        return ""
    results = RunResults()
    results.add([outputs for _, outputs in batches], runner_name=REFERENCE)
    for kind, text in (("inputs", to_json([inputs for inputs, _ in batches])), ("outputs", results.to_json())):
        (directory / f"{family.name}.{kind}.json").write_text(text, encoding="utf-8")
    return _line(family.name, _thresholds(golden, family.name, [outputs for _, outputs in batches]))


def _whole_outputs(golden: Golden, family: Family) -> list[Arrays]:
    """Returns, for each batch of a family, the reference outputs of which the golden file keeps every value."""
    whole: list[Arrays] = [{} for _ in family.batches]
    for (family_name, output), chunks in golden.reference.items():
        if family_name == family.name:
            for outputs, chunk, shape in zip(whole, chunks, golden.shapes[family_name, output], strict=False):
                if is_whole(shape):
                    outputs[output] = chunk
    return whole


def _thresholds(golden: Golden, family: str, batches: list[Arrays]) -> dict[str, float]:
    """The L2 norm, over all batches, of an error with the highest score that passes: what `verify` passes, this passes."""
    values: dict[str, int] = {}
    for outputs in batches:
        for name, array in outputs.items():
            values[name] = values.get(name, 0) + array.size
    return {name: THRESHOLD * golden.floors[family, name].rms * math.sqrt(size) for name, size in values.items()}


def _line(family: str, thresholds: Mapping[str, float]) -> str:
    files = {kind: f'"$here"/{shlex.quote(f"{family}.{kind}.json")}' for kind in ("inputs", "outputs")}
    limits = " ".join(shlex.quote(f"{name}:{limit:.4g}") for name, limit in thresholds.items())
    return (
        f'polygraphy run "$1" --onnxrt --load-inputs {files["inputs"]} --load-outputs {files["outputs"]}'
        f" --compare l2 --l2-threshold {limits}\n"
    )


def _left_out(golden: Golden) -> list[str]:
    """A line for each output of which the golden file keeps only samples in some batch."""
    partly: dict[str, list[str]] = {}
    for (family, output), shapes in golden.shapes.items():
        if not all(map(is_whole, shapes)):
            partly.setdefault(output, []).append(family)
    return [
        f"{output}: left out of these families, where the golden file keeps only samples of it: {', '.join(families)}"
        for output, families in partly.items()
    ]
