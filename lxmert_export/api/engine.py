"""Building TensorRT engines, and bundles from which a device builds its engine itself."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from lxmert_export.api.export import check_convertible, default_directory
from lxmert_export.artifact.directory import ONNX_FILE, Artifact, is_artifact, open_artifact, refuse_converted
from lxmert_export.engines.devices import EngineDevice
from lxmert_export.engines.library import open_builder
from lxmert_export.engines.options import BuildOptions, check_dla
from lxmert_export.engines.profiles import Profile, make_profiles
from lxmert_export.errors import PACKAGE, ArtifactError
from lxmert_export.exporting.engine_options import EngineOptions
from lxmert_export.extras import ONNX, ONNXRUNTIME, ONNXSCRIPT, TORCH, check_own_converters, require
from lxmert_export.files import hub
from lxmert_export.files.atomic_directory import atomic_directory, refuse_existing, refuse_source
from lxmert_export.files.converted_files import MANIFEST_FILE
from lxmert_export.progress import Progress, silent
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Attention, Precision, Signature, Task

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Unpack

    from lxmert_export.exporting.conversion import Conversion


class OnnxOptions(TypedDict, total=False):
    """The options of ``export`` for the ONNX graph from which an engine is built."""

    task: Task | None
    signature: Signature | None
    config: LxmertConfig | None
    hidden_states: bool
    attentions: bool
    object_heads: bool
    io_dtype: str
    opset: int | None
    fp32_islands: str
    attention: Attention
    questions: str | Path | None
    int8_range: str
    int8_keep: str | Sequence[str]
    single_file: bool
    without_families: Sequence[str]
    revision: str | None
    num_attention_heads: int | None
    ignore_other_parts: bool
    parity: bool
    keep_failed: str | Path | None
    providers: Sequence[str]


def build_engine(
    source: str | Path | nn.Module = hub.DEMO,
    directory: str | Path | None = None,
    *,
    precision: Precision | None = None,
    target: str = "rtx",
    compute_capability: str | None = None,
    options: BuildOptions | None = None,
    batch: Sequence[str] = (),
    text: Sequence[str] = (),
    objects: Sequence[str] = (),
    calibration: str | Path | None = None,
    bundle: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    **onnx_options: Unpack[OnnxOptions],
) -> Artifact:
    """Builds a TensorRT engine from an ONNX artifact or a checkpoint, and writes it as an artifact directory.

    | parameter | meaning |
    |---|---|
    | ``source`` | the directory of an ONNX artifact, or any ``checkpoint`` that ``export`` takes |
    | ``target`` | the device: ``rtx``, ``orin-jp6``, ``orin-jp7``, ``thor``, ``datacenter`` or ``this-gpu`` |
    | ``compute_capability`` | GPUs to build for, such as ``"8.6,8.9"``; default: the target's |
    | ``options`` | further options of the build |
    | ``batch``, ``text``, ``objects`` | ranges min:opt:max such as ``"1:4:8"``, one for each optimisation profile |
    | ``calibration`` | real inputs (.npz, .safetensors, .json) for int8, or for the fp16 linter instead of random ones |
    | ``bundle`` | build no engine; write a directory and a ``.tar.gz`` from which the device builds and verifies it |
    | ``overwrite`` | replace an artifact directory (and a bundle's archive); one that holds other files, too, is refused |
    | ``progress`` | called with a step's name, the number of its parts that are done, and their number |
    | ``onnx_options`` | further options of ``export`` for the graph; not for an ONNX artifact |

    A checkpoint's graph passes the parity gate before the engine is built, and an fp16 graph is linted. The engine itself is
    judged by ``verify`` on a GPU. A bundle needs no TensorRT here; ``check_device_report`` judges what the device sends back.

    Errors: ``ConversionError``: the target cannot do this, or the engine does not compute in its precision. ``ConfigError``:
    ranges that do not fit. ``MissingExtra``: the runtime is not installed. ``ParityError``: the graph fails its gate.
    """
    ranges = {"batch": batch, "text": text, "objects": objects}
    build = options or BuildOptions()
    asked = EngineOptions(precision, target, compute_capability, build, ranges, calibration, bundle, onnx_options)
    given = _given_artifact(source) if isinstance(source, str | Path) else None
    device = asked.find_device(given)
    _check_installed(device, bundle)
    from lxmert_export.exporting.bundle import check_bundle
    from lxmert_export.exporting.engine import check_source

    if bundle:
        check_bundle(device, parity=onnx_options.get("parity", True))
    if given is not None:
        check_source(given, precision, onnx_options, calibration)
    if directory is not None:
        check_output(source, Path(directory), bundle=bundle, overwrite=overwrite)
    origin = given or _plan_graph(source, asked, device)
    final = Path(_default_directory(origin, device.precision, bundle) if directory is None else directory)
    check_output(source, final, bundle=bundle, overwrite=overwrite)
    profiles = _make_profiles(origin, asked, device)
    with tempfile.TemporaryDirectory(prefix="lxmert-export-onnx-") as place:
        providers = onnx_options.get("providers", (CPU,))
        graph = origin if isinstance(origin, Artifact) else _write_graph(origin, Path(place), providers, progress)
        with graph.unreplaced():
            return _write(graph, device, profiles, final, asked, overwrite=overwrite, progress=progress)


def _given_artifact(source: str | Path) -> Artifact | None:
    """Opens a path as an artifact; None if it may be a checkpoint. ``ArtifactError``: it is another converted model."""
    if is_artifact(source):
        return open_artifact(source)
    refuse_converted(source)
    directory = Path(source)
    weights = any((directory / name).is_file() for name in hub.WEIGHT_FILES) or any(directory.glob("*.pth"))
    if (directory / ONNX_FILE).is_file() and not weights:
        raise ArtifactError(
            f"{source}: holds an ONNX model, but is not an artifact directory (no {MANIFEST_FILE}): give its checkpoint, or "
            f"the directory that {PACKAGE} onnx wrote"
        )
    return None


def _check_installed(device: EngineDevice, bundle: bool) -> None:
    """``MissingExtra``: the builder or a library that reads the graph. ``ConversionError``: this machine cannot build for it."""
    if not bundle:
        open_builder(device)
    require("building an engine", ONNX, ONNXSCRIPT, ONNXRUNTIME)
    check_own_converters()


def _plan_graph(source: str | Path | nn.Module, asked: EngineOptions, device: EngineDevice) -> Conversion:
    """Reads the checkpoint and plans its conversion to ONNX; nothing is converted yet."""
    options = asked.of_graph(device)
    require("reading a checkpoint", TORCH)
    from lxmert_export.exporting.conversion import plan_conversion
    from lxmert_export.exporting.model_to_export import read_model

    return plan_conversion(read_model(source, options), options)


def _write_graph(conversion: Conversion, place: Path, providers: Sequence[str], progress: Progress) -> Artifact:
    check_convertible(conversion.options)
    from lxmert_export.exporting.write import write_artifact

    directory = place / "onnx"
    directory.mkdir()
    return write_artifact(conversion, directory, name=directory.name, providers=providers, progress=progress)


def _make_profiles(origin: Conversion | Artifact, asked: EngineOptions, device: EngineDevice) -> tuple[Profile, ...]:
    config = origin.manifest.config if isinstance(origin, Artifact) else origin.model.config
    signature = origin.manifest.signature if isinstance(origin, Artifact) else origin.signature
    profiles = make_profiles(config, signature, **asked.ranges)
    check_dla(device.options, signature)
    return profiles


def _write(
    graph: Artifact,
    device: EngineDevice,
    profiles: Sequence[Profile],
    final: Path,
    asked: EngineOptions,
    *,
    overwrite: bool,
    progress: Progress,
) -> Artifact:
    """Writes the engine, or the bundle, as ``final``."""
    from lxmert_export.exporting.bundle import bundle_directory, copied_files, write_bundle
    from lxmert_export.exporting.engine import write_engine

    name, calibration = final.resolve().name, asked.calibration
    if asked.bundle:
        needed = sum(copied_files(graph).values())
        with bundle_directory(final, overwrite=overwrite, needed=needed, progress=progress) as temporary:
            written = write_bundle(graph, device, profiles, temporary, name=name, calibration=calibration)
    else:
        needed = 0 if device.options.strip else graph.weights_size
        with atomic_directory(final, overwrite=overwrite, needed=needed) as temporary:
            written = write_engine(
                graph, device, profiles, temporary, name=name, calibration=calibration, progress=progress
            )
    return replace(written, path=final)


def _default_directory(origin: Conversion | Artifact, precision: Precision, bundle: bool) -> Path:
    """The directory of an engine or a bundle for which none was given."""
    target = "tensorrt-bundle" if bundle else "tensorrt"
    if isinstance(origin, Artifact):
        return default_directory(origin.manifest.checkpoint["name"], origin.manifest.task, target, precision)
    return default_directory(origin.model.name, origin.signature.task, target, precision)


def check_output(source: object, final: Path, *, bundle: bool, overwrite: bool) -> None:
    """``ArtifactError``: the directory, or a bundle's archive beside it, may not be written."""
    from lxmert_export.exporting.bundle import archive_of, check_archive

    refuse_source(source, final)
    refuse_existing(final.absolute(), overwrite=overwrite)
    if bundle:
        check_archive(archive_of(final.absolute()), overwrite=overwrite)
