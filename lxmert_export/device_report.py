"""What a device sent back from a bundle: held to the bundle by its hashes, and its raw outputs judged here, not there."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact import GOLDEN_FILE, NOT_RUN, ONNX_FILE, Artifact, sha256
from lxmert_export.bundle.build_and_verify import BUNDLE_FILE, REPORT_FORMAT, RUN
from lxmert_export.errors import ArtifactError, BuiltNotRun
from lxmert_export.golden import LARGEST_SAMPLE, Golden, is_whole, read_golden, sampled_positions
from lxmert_export.judging import Judged, scenes_not_run
from lxmert_export.parity.cells import judge
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.report import RunnerFacts
from lxmert_export.sample_inputs import Arrays


@dataclass(frozen=True)
class DeviceReport:
    """What ``report.json`` says; ``files`` are the hashes of the bundle's files, ``outputs`` and ``engine`` name and hash."""

    path: Path
    status: str
    bundle: str
    files: Mapping[str, str]
    engine: tuple[str, str]
    outputs: tuple[str, str] | None
    runtime: str
    gpu: str
    not_executed: tuple[str, ...]


def judge_device(artifact: Artifact, path: Path) -> Judged:
    """Judges a device's outputs against the golden file of the bundle, or of the ONNX artifact that it was made from.

    ``ArtifactError``: a report that is damaged, or of another bundle. ``BuiltNotRun``: of an engine that was not run.
    """
    manifest = artifact.manifest
    if manifest.target != "onnx":
        raise ArtifactError(f"{artifact.path}: is a {manifest.target} artifact; name the bundle that the report is of")
    report = read_report(path)
    check_origin(report, artifact)
    if report.status == NOT_RUN or report.outputs is None:
        raise BuiltNotRun(f"{path}: {NOT_RUN}: {'; '.join(report.not_executed) or 'it brings no outputs'}")
    golden = read_golden(artifact.file(GOLDEN_FILE), manifest.signature)
    recording = read_outputs(report, golden)
    name = f"{artifact.name} on {report.gpu} ({report.runtime})"
    cells = judge(
        name, recording, golden.reference, golden.floors, manifest.signature, "native",
        precision=manifest.precision, samples=golden.samples,
    )  # fmt: skip
    not_run = (*golden.samples.not_run, *scenes_not_run(artifact))  # a device is asked no held-out questions yet
    facts = RunnerFacts(
        name, "device", "tensorrt", manifest.precision, source=manifest.checkpoint, tools=manifest.tools
    )
    return Judged(facts, manifest.signature, golden.samples, cells, recording, golden.floors, not_run=not_run)


def origin_of(path: Path, artifacts: Sequence[Artifact]) -> Artifact:
    """The artifact that a report is of, by hashes; ``ArtifactError`` where it is of none of them."""
    report = read_report(path)
    errors = []
    for artifact in artifacts:
        try:
            check_origin(report, artifact)
        except ArtifactError as error:
            errors.append(error)
        else:
            return artifact
    raise errors[0]


def read_report(path: Path) -> DeviceReport:
    """Reads ``report.json``; ``ArtifactError`` where it is something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.get("format") != REPORT_FORMAT:
            raise ArtifactError(f"{path}: is no device report of this version, such as a bundle's script writes")
        if values["status"] not in (RUN, NOT_RUN):
            raise ValueError(f"unknown status {values['status']!r}")
        outputs, gpu = values["outputs"], values["gpu"]
        if (values["status"] == RUN) != (outputs is not None) or (values["status"] == RUN) != (gpu is not None):
            raise ValueError(f"its status is {values['status']!r}, and its outputs and GPU say otherwise")
        return DeviceReport(
            path,
            values["status"],
            str(values["bundle"]["sha256"]),
            {str(name): str(digest) for name, digest in values["bundle"]["files"].items()},
            (str(values["engine"]["file"]), str(values["engine"]["sha256"])),
            None if outputs is None else (str(outputs["file"]), str(outputs["sha256"])),
            f"{values['runtime']} {values['runtime_version']}",
            "" if gpu is None else str(gpu["name"]),
            tuple(map(str, values["not_executed"])),
        )
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise ArtifactError(f"{path}: damaged device report: {reason}") from error


def check_origin(report: DeviceReport, artifact: Artifact) -> None:
    """``ArtifactError`` unless a report is of this bundle, or of this ONNX graph and golden file."""
    ours = {name: facts["sha256"] for name, facts in artifact.manifest.files.items()}
    if GOLDEN_FILE not in ours:
        raise ArtifactError(f"{artifact.path}: written with --no-parity, so it has nothing to judge a report by")
    if BUNDLE_FILE in ours:
        expected = {name: digest for name, digest in ours.items() if name != BUNDLE_FILE}
    else:
        expected = {name: digest for name, digest in ours.items() if name == GOLDEN_FILE or name.startswith(ONNX_FILE)}
    wrong = [name for name, digest in expected.items() if report.files.get(name) != digest]
    if BUNDLE_FILE in ours and report.bundle != ours[BUNDLE_FILE]:
        wrong.append(BUNDLE_FILE)
    if wrong:
        raise ArtifactError(
            f"{report.path}: is of another bundle than {artifact.path}: {', '.join(wrong)} had other hashes on the device"
        )
    name, digest = report.engine
    engine = report.path.parent / Path(name).name
    if engine.is_file() and sha256(engine) != digest:
        raise ArtifactError(f"{report.path}: {name} beside it is not the engine that it tells of (sha256 differs)")


def read_outputs(report: DeviceReport, golden: Golden) -> Recording:
    """What the device computed, as ``judge`` takes it; ``ArtifactError`` where the file is not what the report tells of."""
    name, digest = report.outputs or ("", "")
    path = report.path.parent / Path(name).name
    if not path.is_file():
        raise ArtifactError(f"{path}: is missing: bring it from the device together with {report.path.name}")
    if sha256(path) != digest:
        raise ArtifactError(f"{path}: is not what {report.path.name} tells of (sha256 differs): bring both again")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        return _recording(arrays, golden)
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ArtifactError(f"{path}: damaged outputs: {reason}") from error


def _recording(arrays: Arrays, golden: Golden) -> Recording:
    """``output/FAMILY/OUTPUT/BATCH`` of every batch in order; what is missing stays so, to fail."""
    batches: dict[tuple[str, str], dict[int, NDArray[np.generic]]] = {}
    for key, values in arrays.items():
        kind, place = key.split("/", 1)
        if kind != "output":
            continue
        family, rest = place.split("/", 1)
        output, number = rest.rsplit("/", 1)
        if (family, output) not in golden.reference:
            raise ValueError(f"{place} is none of the golden outputs")
        shape = tuple(int(size) for size in arrays[f"shape/{place}"])
        batches.setdefault((family, output), {})[int(number)] = _chunk(values, shape, golden, (family, output), place)
    recording = {}
    for found, numbered in batches.items():
        if sorted(numbered) != list(range(len(numbered))):
            raise ValueError(f"batches of {'/'.join(found)} are missing")
        recording[found] = [numbered[number] for number in range(len(numbered))]
    return recording


def _chunk(
    values: NDArray[np.generic], shape: tuple[int, ...], golden: Golden, key: tuple[str, str], place: str
) -> NDArray[np.generic]:
    """One batch's output as the reference has it: whole, or flat at the sampled positions."""
    size = math.prod(shape)
    if min(shape, default=1) < 0 or values.size not in (size, min(size, LARGEST_SAMPLE)):
        raise ValueError(f"{place} has {values.size} values for shape {list(shape)}")
    if is_whole(shape):
        return values.reshape(shape)
    if shape in golden.shapes[key]:
        flat = values.reshape(-1)
        return flat[sampled_positions(size)] if flat.size == size else flat
    return np.broadcast_to(np.zeros((), values.dtype), shape)  # only its shape, which is wrong, will be read
