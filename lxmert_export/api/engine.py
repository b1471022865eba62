"""The Python interface of TensorRT: engines from checkpoints or from ONNX artifacts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from lxmert_export.api.export import default_directory, export, open_source, own_signature
from lxmert_export.artifact.directory import ONNX_FILE, Artifact, is_artifact, open_artifact, refuse_converted
from lxmert_export.engines.devices import resolve
from lxmert_export.engines.library import open_builder
from lxmert_export.engines.options import BuildOptions, check_dla
from lxmert_export.engines.profiles import check_counts, make_profiles, parse_range
from lxmert_export.errors import PACKAGE, ArtifactError, ConversionError, InputError
from lxmert_export.extras import check_own_converters, require
from lxmert_export.files import hub
from lxmert_export.files.atomic_directory import atomic_directory, refuse_existing, refuse_source
from lxmert_export.files.converted_files import MANIFEST_FILE
from lxmert_export.progress import Progress, silent
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import ATTENTION_OPSET, Attention, Precision, Signature, Task

if TYPE_CHECKING:
    from torch import nn

    from lxmert_export.exporting.source import Source


class OnnxOptions(TypedDict, total=False):
    """What ``export`` takes for the ONNX graph that an engine is built from."""

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
    revision: str | None
    num_attention_heads: int | None
    parity: bool
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
    """Builds a TensorRT engine from an ONNX artifact, or from whatever ``export`` takes, and writes an artifact directory.

    ``batch``, ``text`` and ``objects`` are ranges such as ``"1:4:8"`` (min:opt:max), one for each optimisation profile. The
    graph is held to its checkpoint before anything is built, and an fp16 one is linted, on real inputs where ``calibration`` is a
    file of such (``.npz`` or ``.safetensors``); the engine itself is judged by ``verify`` where it runs.

    With ``bundle`` nothing is built, and no TensorRT needed: the directory, and an archive beside it, are what a device builds
    and verifies the engine from; ``check_device_report`` judges what it sends back.
    ``ConversionError``: what the target cannot do, an engine that is not of its precision. ``ConfigError``: ranges that do not
    fit. ``MissingExtra``: the runtime is not installed. ``ParityError``: the graph does not pass its gate.
    """
    ranges = {"batch": batch, "text": text, "objects": objects}
    fixed = _fixed_axes(ranges)
    given = _given_artifact(source) if isinstance(source, str | Path) else None
    resolved = resolve(
        target,
        precision=precision or (given.manifest.precision if given else "fp32"),
        compute_capability=compute_capability,
        options=options,
        opset=given.manifest.options.get("opset") if given else _opset(onnx_options),
        attention=(given.manifest.options if given else onnx_options).get("attention", "decomposed"),
    )
    _check_calibration(calibration, resolved.precision)
    _check_timing_cache(resolved.options)
    if not bundle:
        open_builder(resolved)  # refuses what is not installed, and where this is another device
    require("building an engine", onnx="onnx", onnxscript="onnx", onnxruntime="onnx")
    check_own_converters()
    from lxmert_export.exporting.bundle import bundle_directory, check_bundle, write_bundle
    from lxmert_export.exporting.engine import check_source, write_engine

    if bundle:
        check_bundle(resolved, parity=onnx_options.get("parity", True))
    if given is not None:
        check_source(given, precision, onnx_options)
    if directory is not None:
        refuse_source(source, Path(directory))
        _refuse_existing(Path(directory), bundle, overwrite)
    origin = given or _open_source(source, onnx_options)
    final = Path(directory or _default_directory(origin, onnx_options, resolved.precision, bundle))
    refuse_source(source, final)
    _refuse_existing(final, bundle, overwrite)
    config = origin.manifest.config if isinstance(origin, Artifact) else origin.config
    signature = origin.manifest.signature if isinstance(origin, Artifact) else _signature(origin, onnx_options, fixed)
    profiles = make_profiles(config, signature, **ranges)
    check_dla(resolved.options, signature)
    onnx_options["signature"] = signature
    with tempfile.TemporaryDirectory(prefix="lxmert-export-onnx-") as place:
        onnx = (
            origin
            if isinstance(origin, Artifact)
            else export(
                "onnx",
                origin,
                Path(place) / "onnx",
                precision=resolved.precision,
                progress=progress,
                **onnx_options,
            )
        )
        name = final.resolve().name
        if bundle:
            with bundle_directory(final, overwrite=overwrite, progress=progress) as temporary:
                return replace(
                    write_bundle(onnx, resolved, profiles, temporary, name=name, calibration=calibration), path=final
                )
        with atomic_directory(final, overwrite=overwrite) as temporary:
            written = write_engine(
                onnx, resolved, profiles, temporary, name=name, calibration=calibration, progress=progress
            )
    return replace(written, path=final)


def _given_artifact(source: str | Path) -> Artifact | None:
    """The artifact that a path is; None of what may be a checkpoint. ``ArtifactError``: another converted model, at once."""
    if is_artifact(source):
        return open_artifact(source)
    refuse_converted(source)
    directory = Path(source)
    weights = any((directory / name).is_file() for name in hub.WEIGHT_FILES) or any(directory.glob("*.pth"))
    if (directory / ONNX_FILE).is_file() and not weights:
        raise ArtifactError(
            f"{source}: holds an ONNX model, but is not an artifact directory (no {MANIFEST_FILE}): name its checkpoint, or "
            f"the directory that {PACKAGE} onnx wrote"
        )
    return None


def _opset(options: OnnxOptions) -> int | None:
    """The opset of the graph that is to be exported, where it is not the oldest that there is."""
    return options.get("opset") or (ATTENTION_OPSET if options.get("attention") == "operator" else None)


def _check_calibration(calibration: str | Path | None, precision: Precision) -> None:
    if calibration is None:
        return
    if precision != "fp16":
        raise ConversionError(f"calibration: is for the linter of fp16, and this engine is {precision}: leave it out")
    if not Path(calibration).is_file():
        raise InputError(f"{calibration}: no such file; calibration inputs are a .npz or .safetensors file")


def _check_timing_cache(options: BuildOptions) -> None:
    if (cache := options.timing_cache) is not None and (Path(cache).is_dir() or not Path(cache).parent.is_dir()):
        raise InputError(
            f"--timing-cache {cache}: must be a file in a directory that is there; the file itself may be new"
        )


def _open_source(source: str | Path | nn.Module, options: OnnxOptions) -> Source:
    return open_source(
        source,
        options.get("task"),
        config=options.get("config"),
        revision=options.get("revision"),
        num_attention_heads=options.get("num_attention_heads"),
    )


def _signature(source: Source, options: OnnxOptions, fixed: Mapping[str, int]) -> Signature:
    """The signature of the graph that is to be exported."""
    return options.get("signature") or own_signature(
        source,
        "onnx",
        fixed,
        hidden_states=options.get("hidden_states", False),
        attentions=options.get("attentions", False),
        object_heads=options.get("object_heads", False),
        io_dtype=options.get("io_dtype", "float32"),
    )


def _default_directory(origin: Source | Artifact, options: OnnxOptions, precision: Precision, bundle: bool) -> Path:
    """Where an engine or a bundle goes that is given no name: told before anything is converted."""
    target = "tensorrt-bundle" if bundle else "tensorrt"
    if isinstance(origin, Artifact):
        return default_directory(origin.manifest.checkpoint["name"], origin.manifest.task, target, precision)
    signature = options.get("signature")
    return default_directory(origin.name, signature.task if signature else str(origin.task), target, precision)


def _refuse_existing(final: Path, bundle: bool, overwrite: bool) -> None:
    """``ArtifactError`` where the directory, or a bundle's archive beside it, may not be written."""
    from lxmert_export.exporting.bundle import archive_of, check_archive

    refuse_existing(final.absolute(), overwrite=overwrite)
    if bundle:
        check_archive(archive_of(final.absolute()), overwrite=overwrite)


def _fixed_axes(ranges: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Axes that all profiles have one size of: the graph itself is written for it. ``ConfigError``: what is no range."""
    check_counts(ranges)
    parsed = {axis: [parse_range(text, f"--{axis}") for text in texts] for axis, texts in ranges.items()}
    return {axis: found[0].min for axis, found in parsed.items() if len(found) == 1 and found[0].min == found[0].max}
