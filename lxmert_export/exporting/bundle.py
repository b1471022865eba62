"""Writes a bundle: an ONNX artifact with all that a device needs to build the engine and to run its golden inputs.

A bundle holds the files of the ONNX artifact byte for byte, except for the manifest. For the device it adds ``bundle.json``,
the golden file as plain numpy arrays, a script and a README. Every command that takes an ONNX artifact takes a bundle, too.
"""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lxmert_export.artifact.directory import GOLDEN_FILE, ONNX_DATA_FILE, ONNX_FILE, Artifact
from lxmert_export.artifact.golden import Golden, is_whole, read_golden, sampled_positions
from lxmert_export.artifact.manifest import write_manifest
from lxmert_export.artifact.precision import check_precision
from lxmert_export.engines.device_kinds import POLYGRAPHY
from lxmert_export.engines.devices import EngineDevice
from lxmert_export.engines.gpus import written
from lxmert_export.engines.library import LIBRARIES
from lxmert_export.engines.on_device import build_and_verify
from lxmert_export.engines.on_device.build_and_verify import BUNDLE_FILE, BUNDLE_FORMAT, GOLDEN_ARRAYS
from lxmert_export.engines.profiles import AxisRange, Profile, call_sizes
from lxmert_export.errors import ArtifactError, ConversionError
from lxmert_export.exporting.engine import facts_of_graph, unsplit
from lxmert_export.files.atomic_directory import directory_and_files
from lxmert_export.files.beside_weights import COMPANION_FILES
from lxmert_export.files.hashing import sha256
from lxmert_export.files.listing import files_below
from lxmert_export.option_names import option
from lxmert_export.progress import Progress, silent
from lxmert_export.spec.inputs import Arrays
from lxmert_export.spec.signature import DYNAMIC_AXES, Signature

SCRIPT, README = Path(build_and_verify.__file__ or "").name, "README.md"
# trtexec's flag for each build option, from the help text in its source (sampleOptions.cpp, TensorRT 10.14 and later).
TRTEXEC = {
    "version_compatible": "--versionCompatible",
    "hardware_compatible": "--hardwareCompatibilityLevel=ampere+",
    "refit": "--refit",
    "weight_streaming": "--allowWeightStreaming",
    "builder_level": "--builderOptimizationLevel={}",
    "dla": "--useDLACore=0 --allowGPUFallback",
}


def check_bundle(device: EngineDevice, *, parity: bool) -> None:
    """Raises ``ConversionError`` for options that a bundle cannot carry to a device, or that prevent verification there."""
    bundle, strip, cache, no_parity = (
        option("bundle", True), option("strip", True), option("timing_cache"), option("parity", False),
    )  # fmt: skip
    if device.options.strip:
        raise ConversionError(
            f"{bundle}: an engine of {strip} computes nothing until it is refitted: leave {strip} out"
        )
    if device.options.timing_cache is not None:
        raise ConversionError(f"{bundle}: a timing cache belongs to the device that wrote it: leave {cache} out")
    if not parity:
        raise ConversionError(
            f"{bundle}: the device must run golden inputs, and {no_parity} writes none: leave {no_parity} out"
        )


def archive_of(directory: Path) -> Path:
    """Returns the path of a bundle's archive: ``DIRECTORY.tar.gz``, beside the directory."""
    return directory.with_name(f"{directory.name}.tar.gz")


def write_bundle(
    onnx: Artifact,
    device: EngineDevice,
    profiles: Sequence[Profile],
    directory: Path,
    *,
    name: str,
    calibration: str | Path | None = None,
) -> Artifact:
    """Fills an empty directory with a bundle.

    ``name`` is the bundle's name in reports, because ``directory`` is a temporary one. ``calibration`` is a file of inputs for
    the fp16 linter. Raises ``ArtifactError`` if the artifact was written without the gate, and ``ConversionError`` if its graph
    does not compute in its precision or would give wrong numbers in fp16.
    """
    manifest = unsplit(onnx.manifest)
    if GOLDEN_FILE not in manifest.files:
        raise ArtifactError(
            f"{onnx.path}: was written with --no-parity, so it has no golden inputs for the device to run; "
            "export it again without --no-parity"
        )
    check_precision(onnx)
    facts = facts_of_graph(onnx, calibration)
    golden = read_golden(onnx.file(GOLDEN_FILE), manifest.signature)
    missed = golden_profile(golden, profiles, manifest.signature)
    for file in copied_files(onnx):
        shutil.copyfile(onnx.file(file), directory / file)
    # np.savez dates every entry 1980, so the same arrays make the same file.
    np.savez(directory / GOLDEN_ARRAYS, **golden_arrays(golden))  # type: ignore[arg-type]  # every keyword is an array
    shutil.copyfile(build_and_verify.__file__ or "", directory / SCRIPT)
    everything = (*profiles, *((missed,) if missed else ()))
    (directory / README).write_text(readme(onnx, device, everything, added=missed is not None), encoding="utf-8")
    described = describe(onnx, device, everything, added=missed is not None)
    described["files"] = {
        path.name: {"sha256": sha256(path), "bytes": path.stat().st_size} for path in sorted(directory.iterdir())
    }
    text = json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False)
    (directory / BUNDLE_FILE).write_text(text + "\n", encoding="utf-8")
    options = {
        **manifest.options,
        **facts,
        "bundle": {"engine": device.to_dict(), "profiles": [p.to_dict() for p in everything]},
    }
    return Artifact(directory, write_manifest(directory, replace(manifest, options=options)), name, onnx.report)


def copied_files(onnx: Artifact) -> dict[str, int]:
    """Returns the files of an ONNX artifact that its bundle holds unchanged, with their sizes in bytes.

    The artifact may be a bundle itself: the files that a bundle adds are written anew.
    """
    files = onnx.manifest.files
    names = (ONNX_FILE, ONNX_DATA_FILE, GOLDEN_FILE, *COMPANION_FILES)
    return {name: int(files[name]["bytes"]) for name in names if name in files}


def golden_arrays(golden: Golden) -> Arrays:
    """Returns the contents of ``golden.npz``, a golden file that numpy alone can read.

    | name | array |
    |---|---|
    | ``input/FAMILY/BATCH/INPUT`` | shape and dtype as the graph takes them |
    | ``reference/FAMILY/OUTPUT/BATCH`` | [values] float64: the flat output, or its values at ``positions`` if it is large |
    | ``shape/FAMILY/OUTPUT/BATCH`` | [rank] int64: the shape of the whole output |
    | ``positions/SIZE`` | int64: the flat positions that are kept of an output of SIZE values |
    | ``floor/FAMILY/OUTPUT`` | [2] float64: floor RMS, reference RMS |
    """
    arrays: Arrays = {}
    for family in golden.samples.families:
        for number, batch in enumerate(family.batches):
            arrays |= {f"input/{family.name}/{number}/{name}": array for name, array in batch.items()}
    for (name, output), chunks in golden.reference.items():
        for number, (chunk, shape) in enumerate(zip(chunks, golden.shapes[name, output], strict=True)):
            arrays[f"reference/{name}/{output}/{number}"] = chunk.reshape(-1)
            arrays[f"shape/{name}/{output}/{number}"] = np.array(shape, dtype=np.int64)
            if not is_whole(shape):
                size = int(np.prod(shape))
                arrays[f"positions/{size}"] = sampled_positions(size)
        floor = golden.floors[name, output]
        arrays[f"floor/{name}/{output}"] = np.array([floor.rms, floor.reference_rms])
    return arrays


def golden_profile(golden: Golden, profiles: Sequence[Profile], signature: Signature) -> Profile | None:
    """Returns one more profile, for the golden inputs that no profile covers; None if the profiles cover all of them."""
    calls = [
        call_sizes({name: array.shape for name, array in batch.items()}, signature)
        for family in golden.samples.families
        for batch in family.batches
    ]
    missed = [sizes for sizes in calls if not any(profile.covers(sizes) for profile in profiles)]
    if not missed:
        return None
    ends = {axis: [sizes[axis] for sizes in missed] for axis in DYNAMIC_AXES}
    return Profile(**{axis: AxisRange(min(sizes), max(sizes), max(sizes)) for axis, sizes in ends.items()})


def describe(onnx: Artifact, device: EngineDevice, profiles: Sequence[Profile], *, added: bool) -> dict[str, Any]:
    """Returns the contents of ``bundle.json`` without ``files``; ``added``: the last profile comes from ``golden_profile``."""
    manifest = onnx.manifest
    builder = device.builder_capabilities
    return {
        "format": BUNDLE_FORMAT,
        "checkpoint": dict(manifest.checkpoint),
        "task": manifest.task,
        "precision": manifest.precision,
        "islands": onnx.float32_matmuls,
        "target": device.name,
        "runtime": device.runtime,
        "module": LIBRARIES[device.runtime].module,
        "install": device_install(device),
        "versions": [[list(first), list(end)] for first, end in device.versions.spans],
        "versions_text": str(device.versions),
        "compute_capabilities": [written(capability) for capability in device.compute_capabilities],
        "and_later": device.and_later,
        "builder_compute_capabilities": None if builder is None else [written(capability) for capability in builder],
        "options": device.options.chosen,
        "unexecuted": list(device.unexecuted),
        "onnx": ONNX_FILE,
        "outputs": [spec.name for spec in manifest.signature.outputs],
        "profiles": [{**p.to_dict(), "shapes": p.shapes(manifest.signature)} for p in profiles],
        "golden_profile": len(profiles) - 1 if added else None,
    }


def device_install(device: EngineDevice) -> str:
    """Returns the command that installs the runtime on a device, without Polygraphy, which the script does not need."""
    return device.install.replace(f" '{POLYGRAPHY}'", "")


def trtexec_line(
    device: EngineDevice, profiles: Sequence[Profile], signature: Signature, *, attention: str = "decomposed"
) -> str:
    """Returns the ``trtexec`` or ``tensorrt_rtx`` command that builds the engine without Python."""
    rtx = device.runtime == "tensorrt-rtx"
    words = [
        "tensorrt_rtx" if rtx else "trtexec",
        f"--onnx={ONNX_FILE}",
        "--saveEngine=model.engine",
        "--skipInference",
    ]
    words.append("--noTF32")  # NVIDIA's pages name it for trtexec only, and the other flags for tensorrt_rtx, too
    words += [] if rtx else ["--stronglyTyped"]
    words += ["--decomposableAttentions=*"] if attention == "operator" else []
    if device.builder_capabilities:
        listed = (written(capability).replace(".", "") for capability in device.builder_capabilities)
        words.append("--computeCapabilities=" + ",".join(listed))
    for name, value in device.options.chosen.items():
        words += TRTEXEC[name].format(value).split()
    for number, profile in enumerate(profiles):
        words += [f"--profile={number}"] if len(profiles) > 1 else []
        shapes = profile.shapes(signature)
        for place, flag in enumerate(("--minShapes", "--optShapes", "--maxShapes")):
            words.append(f"{flag}=" + ",".join(f"{n}:{'x'.join(map(str, s[place]))}" for n, s in shapes.items()))
    return " \\\n  ".join(map(shlex.quote, words))


def readme(onnx: Artifact, device: EngineDevice, profiles: Sequence[Profile], *, added: bool) -> str:
    """Returns the text of a bundle's ``README.md``; ``added``: the last profile comes from ``golden_profile``."""
    manifest = onnx.manifest
    capabilities = ", ".join(map(written, device.compute_capabilities))
    capabilities += f" and all above {written(max(device.compute_capabilities))}" if device.and_later else ""
    listed = [f"{number}: {profile}" for number, profile in enumerate(profiles)]
    if added:
        listed[-1] += " (added for golden inputs that no other profile takes)"
    notes = "".join(f"- {note}\n" for note in device.notes)
    fixed = all(low == high for profile in profiles for low, _, high in profile.shapes(manifest.signature).values())
    attention = manifest.options.get("attention", "decomposed")
    line = trtexec_line(device, () if fixed else profiles, manifest.signature, attention=attention)
    older = "" if device.runtime == "tensorrt-rtx" else " With TensorRT 11 and later, leave `--stronglyTyped` out."
    return f"""# LXMERT ({manifest.task}, {manifest.precision}) for {device.runtime} {device.versions}

Target {device.name}: compute capability {capabilities}. The engine is built and verified on the device that runs it.

## With Python

```
python3 {SCRIPT}
```

The script needs only Python 3.8 or newer, numpy and the device's own `{LIBRARIES[device.runtime].module}`
({device_install(device)}). It checks the hashes in `{BUNDLE_FILE}`, builds `model.engine` (strongly typed, TF32 off),
runs the golden inputs, and writes `report.json` and `outputs.npz`. Copy these two files back, and judge them:

```
lxmert-export parity BUNDLE --device-report report.json
```

## Without Python

```
{line}
```

The command builds the same engine.{older} The authors of lxmert-export have never run this command, and nothing checks its
engine: to have the engine checked, run the script.

## Profiles

```
{chr(10).join(listed)}
```

{notes}- never run on this target by the authors of lxmert-export: {", ".join(device.unexecuted)}
"""


@contextmanager
def bundle_directory(final: Path, *, overwrite: bool, needed: int = 0, progress: Progress = silent) -> Iterator[Path]:
    """Yields an empty directory, which becomes ``final`` when the block ends, with its archive beside it.

    On any failure neither appears, and older ones stay as they were. ``needed``: the bytes that the directory will have at least.
    Raises ``ArtifactError`` if the directory or the archive exists and ``overwrite`` is False, or if either cannot be written.
    """
    final = final.absolute()
    archive = archive_of(final)
    with directory_and_files(final, archive, overwrite=overwrite, needed=needed) as (temporary, packed):
        check_archive(archive, overwrite=overwrite)
        yield temporary
        progress("packing", 0, 1)
        pack(temporary, packed, final.name)
        progress("packing", 1, 1)


def check_archive(archive: Path, *, overwrite: bool) -> None:
    """Raises ``ArtifactError`` if the archive exists and may not be replaced."""
    if archive.is_symlink() or (archive.exists() and not archive.is_file()):
        raise ArtifactError(f"{archive}: exists and is not a file; choose another output")
    if archive.exists() and not overwrite:
        raise ArtifactError(
            f"{archive}: exists already; {option('overwrite', True)} replaces it, another name (-o) keeps it"
        )
    if archive.exists() and not _is_bundle(archive):
        raise ArtifactError(
            f"{archive}: is no bundle's archive, so {option('overwrite', True)} does not replace it; choose another output (-o)"
        )


def _is_bundle(archive: Path) -> bool:
    """Whether a file is an archive as ``pack`` writes it: what only bundles hold is among its first files."""
    try:
        with tarfile.open(archive, "r:gz") as packed:
            return any(entry.name.endswith(f"/{BUNDLE_FILE}") for entry in islice(packed, 20))
    except (OSError, EOFError, tarfile.TarError, zlib.error):
        return False


def pack(directory: Path, archive: Path, name: str) -> None:
    """Writes a ``.tar.gz`` of a directory, which is called ``name`` inside. The same files make the same bytes."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname, entry.mode = 0, 0, 0, "", "", 0o644
        return entry

    # The fastest level: weights hardly shrink at any level.
    with (
        archive.open("wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as packed,
    ):
        for path in files_below(directory):
            packed.add(path, f"{name}/{path.relative_to(directory).as_posix()}", filter=plain)
