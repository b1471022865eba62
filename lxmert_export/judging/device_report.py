"""Judges what a device sent back from a bundle. Hashes tie its report to the bundle; its raw outputs are judged here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lxmert_export.artifact.directory import GOLDEN_FILE, ONNX_FILE, Artifact
from lxmert_export.artifact.facts import read_graph_facts
from lxmert_export.artifact.golden import LARGEST_SAMPLE, Golden, is_whole, read_golden, sampled_positions
from lxmert_export.engines.device_kinds import Runtime, Versions
from lxmert_export.engines.gpus import is_among, read_capability
from lxmert_export.engines.library import LIBRARIES
from lxmert_export.engines.on_device.build_and_verify import BUNDLE_FILE, FLAGS, NOT_RUN, REPORT_FORMAT, RUN
from lxmert_export.errors import ArtifactError, BuiltNotRun, InputError
from lxmert_export.files.array_files import read_arrays
from lxmert_export.files.hashing import sha256
from lxmert_export.files.json_files import read_json
from lxmert_export.files.path_spelling import is_plain_name
from lxmert_export.judging.artifact import Judged, scenes_not_run
from lxmert_export.parity.cells import judge
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.report import RunnerFacts
from lxmert_export.spec.inputs import Arrays


@dataclass(frozen=True)
class DeviceEngine:
    """What a report says about the engine: file and hash, runtime and version, GPU and build flags.

    capability         the GPU's compute capability; None if the engine was not run
    matmuls            the number of matmuls by the precision in which they compute
    float32_matmuls    the names of matmuls that compute in float32 in an engine of another precision
    """

    file: str
    sha256: str
    runtime: Runtime
    version: str
    capability: str | None
    flags: frozenset[str]
    tf32: bool
    matmuls: Mapping[str, int]
    float32_matmuls: tuple[str, ...]


@dataclass(frozen=True)
class DeviceReport:
    """The content of ``report.json``. ``files``: hashes of the bundle's files. ``outputs``: name and hash of the output file."""

    path: Path
    status: str
    bundle: str
    files: Mapping[str, str]
    engine: DeviceEngine
    outputs: tuple[str, str] | None
    gpu: str
    not_executed: tuple[str, ...]


def judge_device(artifact: Artifact, path: Path) -> Judged:
    """Judges a device's outputs by the golden file of the bundle, or of the ONNX artifact that the bundle was made from.

    ``ArtifactError``: the report is damaged, from another bundle, or about an engine that the bundle does not build.
    ``BuiltNotRun``: the engine was not run.
    """
    manifest = artifact.manifest
    if manifest.target != "onnx":
        raise ArtifactError(f"{artifact.path}: is a {manifest.target} artifact; name the bundle that wrote the report")
    report = read_report(path)
    check_origin(report, artifact)
    check_engine(report, artifact)
    if report.status == NOT_RUN or report.outputs is None:
        raise BuiltNotRun(f"{path}: {NOT_RUN}: {'; '.join(report.not_executed) or 'the report has no outputs'}")
    golden = read_golden(artifact.file(GOLDEN_FILE), manifest.signature)
    recording = read_outputs(report, golden)
    name = f"{artifact.name} on {report.gpu} ({report.engine.runtime} {report.engine.version})"
    cells = judge(
        name, recording, golden.reference, golden.floors, manifest.signature, "native",
        precision=manifest.precision, samples=golden.samples,
    )  # fmt: skip
    not_run = (*golden.samples.not_run, *scenes_not_run(artifact))  # devices do not run the held-out questions yet
    facts = RunnerFacts(
        name, "device", "tensorrt", manifest.precision, source=manifest.checkpoint, tools=manifest.tools
    )
    return Judged(facts, manifest.signature, golden.samples, cells, recording, golden.floors, not_run=not_run)


def origin_of(path: Path, artifacts: Sequence[Artifact]) -> Artifact:
    """Returns the artifact that a report belongs to, by hashes. ``ArtifactError``: it belongs to none of them."""
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
    """Reads ``report.json``. ``ArtifactError``: the file is damaged or something else."""
    try:
        values = read_json(path)
        if not isinstance(values, dict) or values.get("format") != REPORT_FORMAT:
            raise ArtifactError(
                f"{path}: is not a device report of this version (expected the file that build_and_verify.py writes)"
            )
        if values["status"] not in (RUN, NOT_RUN):
            raise ValueError(f"unknown status {values['status']!r}")
        outputs, gpu = values["outputs"], values["gpu"]
        if (values["status"] == RUN) != (outputs is not None) or (values["status"] == RUN) != (gpu is not None):
            raise ValueError(f"its status is {values['status']!r}, but its outputs and GPU contradict that")
        return DeviceReport(
            path,
            values["status"],
            str(values["bundle"]["sha256"]),
            {str(name): str(digest) for name, digest in values["bundle"]["files"].items()},
            _engine(values),
            None if outputs is None else (_file_name(outputs["file"]), str(outputs["sha256"])),
            "" if gpu is None else str(gpu["name"]),
            tuple(map(str, values["not_executed"])),
        )
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise ArtifactError(f"{path}: damaged device report: {reason}") from error


def _file_name(path: object) -> str:
    """The name of a file on the device, to be looked for beside the report. ``ValueError``: no file can have it."""
    name = Path(str(path)).name
    if not is_plain_name(name):
        raise ValueError(f"names a file {name[:80]!r}")
    return name


def _engine(values: Mapping[str, Any]) -> DeviceEngine:
    engine, gpu = values["engine"], values["gpu"]
    if values["runtime"] not in LIBRARIES:
        raise ValueError(f"unknown runtime {values['runtime']!r}")
    return DeviceEngine(
        file=_file_name(engine["file"]),
        sha256=str(engine["sha256"]),
        runtime=values["runtime"],
        version=str(values["runtime_version"]),
        capability=None if gpu is None else str(gpu["compute_capability"]),
        flags=frozenset(map(str, engine["flags"])),
        tf32=bool(engine["tf32"]),
        matmuls={str(precision): int(count) for precision, count in engine["matmuls"].items()},
        float32_matmuls=tuple(map(str, engine["float32_matmuls"])),
    )


def check_engine(report: DeviceReport, artifact: Artifact) -> None:
    """Raises ``ArtifactError`` if the reported engine is not one that this bundle builds, or has another precision."""
    faults = matmul_faults(report.engine, artifact)
    try:
        if "bundle" in artifact.manifest.options:
            faults += build_faults(report.engine, artifact.manifest.options["bundle"]["engine"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{artifact.path}: its manifest does not describe a bundle: {error}; write the bundle again"
        ) from error
    if faults:
        raise ArtifactError(f"{report.path}: its engine is not one that {artifact.path} builds: {'; '.join(faults)}")


def matmul_faults(engine: DeviceEngine, artifact: Artifact) -> list[str]:
    """Returns how its matmuls differ from the graph's: only the graph's float32 islands may compute in float32."""
    precision, islands, found = artifact.manifest.precision, artifact.float32_matmuls, dict(engine.matmuls)
    faults = []
    if strays := sorted(set(engine.float32_matmuls) - set(islands)):
        faults.append(f"{', '.join(strays[:3])} computed in float32, but the graph does not list them as islands")
    expected = {
        precision: found.get(precision, 0),
        **({"fp32": len(engine.float32_matmuls)} if engine.float32_matmuls else {}),
    }
    if found != expected or not found.get(precision):
        faults.append(f"its matmuls computed in {found}, but its precision is {precision}")
    graph = read_graph_facts(artifact)
    outside_islands = sum(found.values()) - len(engine.float32_matmuls)
    if graph is not None and outside_islands != (held := graph.matmuls.get(precision, 0)):
        faults.append(f"it has {outside_islands} matmuls in {precision}, but the graph has {held}")
    return faults


def build_faults(engine: DeviceEngine, target: Mapping[str, Any]) -> list[str]:
    """Returns where runtime, version, GPU or flags differ from those of the target that the bundle was written for."""
    faults = []
    if engine.runtime != target["runtime"] or engine.version not in Versions.read(target["versions"]):
        faults.append(f"built by {engine.runtime} {engine.version}, not by {target['runtime']} {target['versions']}")
    known = [capability for text in target["compute_capabilities"] if (capability := read_capability(text))]
    if engine.capability is not None and not is_among(
        read_capability(engine.capability), known, and_later=target["and_later"]
    ):
        later = " or later" if target["and_later"] else ""
        faults.append(
            f"its GPU has compute capability {engine.capability}, not {', '.join(target['compute_capabilities'])}{later}"
        )
    if engine.tf32 or "TF32" in engine.flags:
        faults.append("TF32 was on")
    if missing := sorted({FLAGS[name] for name in target["options"] if name in FLAGS} - engine.flags):
        faults.append(f"built without {', '.join(missing)}")
    return faults


def check_origin(report: DeviceReport, artifact: Artifact) -> None:
    """Raises ``ArtifactError`` unless the report is from this bundle, or from this ONNX graph and golden file."""
    ours = {name: facts["sha256"] for name, facts in artifact.manifest.files.items()}
    if GOLDEN_FILE not in ours:
        raise ArtifactError(f"{artifact.path}: written with --no-parity, so it has no golden file to judge a report by")
    if BUNDLE_FILE in ours:
        expected = {name: digest for name, digest in ours.items() if name != BUNDLE_FILE}
    else:
        expected = {name: digest for name, digest in ours.items() if name == GOLDEN_FILE or name.startswith(ONNX_FILE)}
    wrong = [name for name, digest in expected.items() if report.files.get(name) != digest]
    if BUNDLE_FILE in ours and report.bundle != ours[BUNDLE_FILE]:
        wrong.append(BUNDLE_FILE)
    if wrong:
        raise ArtifactError(
            f"{report.path}: is from another bundle than {artifact.path}: other hashes on the device: {', '.join(wrong)}"
        )
    engine = report.path.parent / report.engine.file
    if engine.is_file() and sha256(engine) != report.engine.sha256:
        raise ArtifactError(
            f"{report.path}: {engine.name} beside it is not the engine that it describes (sha256 differs)"
        )


def read_outputs(report: DeviceReport, golden: Golden) -> Recording:
    """Reads what the device computed. ``ArtifactError``: the file is missing, damaged, or not the one in the report."""
    name, digest = report.outputs or ("", "")
    path = report.path.parent / name
    if not path.is_file():
        raise ArtifactError(f"{path}: is missing: bring it from the device together with {report.path.name}")
    if sha256(path) != digest:
        raise ArtifactError(f"{path}: is not the file in {report.path.name} (sha256 differs): bring both again")
    try:
        return _recording(read_arrays(path, "outputs of a device"), golden)
    except InputError as error:
        raise ArtifactError(f"{error}; bring it from the device again") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ArtifactError(f"{path}: damaged outputs: {reason}") from error


def _recording(arrays: Arrays, golden: Golden) -> Recording:
    """Collects the arrays ``output/FAMILY/OUTPUT/BATCH`` in the order of batches. Missing outputs stay missing, to fail."""
    batches: dict[tuple[str, str], dict[int, NDArray[np.generic]]] = {}
    for key, values in arrays.items():
        kind, place = key.split("/", 1)
        if kind != "output":
            continue
        family, rest = place.split("/", 1)
        output, number = rest.rsplit("/", 1)
        if (family, output) not in golden.reference:
            raise ValueError(f"{place} is not one of the golden outputs")
        shape = tuple(int(size) for size in arrays[f"shape/{place}"])
        batches.setdefault((family, output), {})[int(number)] = _chunk(values, shape, golden, (family, output), place)
    recording = {}
    for name, numbered in batches.items():
        if sorted(numbered) != list(range(len(numbered))):
            raise ValueError(f"batches of {'/'.join(name)} are missing")
        recording[name] = [numbered[number] for number in range(len(numbered))]
    return recording


def _chunk(
    values: NDArray[np.generic], shape: tuple[int, ...], golden: Golden, key: tuple[str, str], place: str
) -> NDArray[np.generic]:
    """One batch's output in the form of the reference: whole, or flat at the sampled positions."""
    size = math.prod(shape)
    if min(shape, default=1) < 0 or values.size not in (size, min(size, LARGEST_SAMPLE)):
        raise ValueError(f"{place} has {values.size} values for shape {list(shape)}")
    if is_whole(shape):
        return values.reshape(shape)
    if shape in golden.shapes[key]:
        flat = values.reshape(-1)
        return flat[sampled_positions(size)] if flat.size == size else flat
    return np.broadcast_to(np.zeros((), values.dtype), shape)  # the shape is wrong, and only the shape will be read
