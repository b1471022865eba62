"""The Python interface: load, save, export, open, check. The command line is a thin layer over this.

Nothing here imports a framework at module level: each function brings in what it needs, and says which extra is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lxmert_export.artifact.directory import Artifact, open_artifact
from lxmert_export.demo.words import is_demo_world
from lxmert_export.errors import ConversionError, InputError
from lxmert_export.extras import check_keras_backend, check_own_converters, require, require_pictures
from lxmert_export.files import hub
from lxmert_export.files.atomic_directory import atomic_directory, refuse_source
from lxmert_export.progress import Progress, silent
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.opening import open_runner
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import (
    ATTENTION_OPSET,
    ATTENTIONS,
    Attention,
    Precision,
    Signature,
    Task,
    task_signature,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lxmert_export.api.ask import Answered
    from lxmert_export.checkpoint.dialects import Dialect
    from lxmert_export.exporting.calibration import Calibration
    from lxmert_export.exporting.source import Source
    from lxmert_export.model.pretrained import PreTrainedLxmert

# What each target comes in, and what conversion and gate need beside PyTorch: module → extra.
PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "onnx": ("fp32", "fp16", "bf16"),
    "tensorflow": ("fp32", "fp16"),
    "tflite": ("fp32", "fp16", "int8"),
}
NEEDS: dict[str, dict[str, str]] = {
    "onnx": {"onnx": "onnx", "onnxscript": "onnx"},
    "tensorflow": {"tensorflow": "tensorflow"},
    "tflite": {"tensorflow": "tensorflow", "ai_edge_litert": "tflite"},
}
IO_DTYPES = ("float32", "float16")
FP32_ISLANDS = ("standard", "auto")
FILE_FORMATS = ("saved-model", "keras")


def load_checkpoint(
    name_or_path: str | Path = hub.DEMO,
    *,
    task: Task | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    num_attention_heads: int | None = None,
    fresh_heads: bool = False,
) -> PreTrainedLxmert:
    """The canonical PyTorch model of a checkpoint, in eval mode; ``task`` defaults to the fullest head that it holds.

    ``CheckpointError``: whatever does not fit, all of it named at once. ``MissingExtra``: PyTorch is not installed.
    """
    require("reading a checkpoint", torch="torch")
    from lxmert_export.checkpoint.read import read_checkpoint
    from lxmert_export.model.lxmert import MODELS

    checkpoint = read_checkpoint(
        name_or_path, task=task, revision=revision, num_attention_heads=num_attention_heads, fresh_heads=fresh_heads
    )
    return MODELS[checkpoint.task].from_checkpoint(checkpoint, dtype=dtype)


def save_checkpoint(
    model: PreTrainedLxmert, directory: str | Path, *, dialect: Dialect = "hf", overwrite: bool = False
) -> None:
    """Writes a model's weights and config into a directory: ``hf``, ``original`` or ``tf``."""
    model.save_pretrained(directory, dialect=dialect, overwrite=overwrite)


def export(
    target: str,
    checkpoint: str | Path | nn.Module | Source = hub.DEMO,
    directory: str | Path | None = None,
    *,
    precision: Precision = "fp32",
    task: Task | None = None,
    signature: Signature | None = None,
    config: LxmertConfig | None = None,
    fixed: Mapping[str, int] | None = None,
    hidden_states: bool = False,
    attentions: bool = False,
    object_heads: bool = False,
    io_dtype: str = "float32",
    opset: int | None = None,
    fp32_islands: str = "standard",
    attention: Attention = "decomposed",
    file_format: str = "saved-model",
    full_integer: bool = False,
    calibration: str | Path | None = None,
    revision: str | None = None,
    num_attention_heads: int | None = None,
    parity: bool = True,
    overwrite: bool = False,
    providers: Sequence[str] = (CPU,),
    progress: Progress = silent,
) -> Artifact:
    """Writes an artifact directory, whole or not at all, after it has passed the parity gate.

    ``checkpoint``: a file, a directory, a hub name, one of our models, or any module that holds an ``LxmertModel``; the last
    (for ONNX alone) needs a ``signature`` of its own: inputs are passed by keyword, outputs picked from what it returns.
    ``fixed`` gives sizes to some of batch, text and objects. ``opset`` and ``io_dtype`` are ONNX's, ``file_format`` is
    TensorFlow's. ``fp32_islands`` are fp16 ONNX's: ``standard`` (LayerNorm, softmax with the mask, GELU), or ``auto``, which
    searches those nodes that must compute in float32 for the gate to pass, and names them in the manifest's options.
    ``attention`` is ONNX's: each one as nodes (``decomposed``), or as its ``Attention`` (``operator``; opset 23 or later).
    ``full_integer`` makes TFLite's int8 one of integer operators alone; their ranges are measured on ``calibration``, a file of
    real inputs, by default on scenes of the demo world. ``ParityError`` carries the report of a gate that failed; the directory
    is then as it was before.
    """
    _check_choices(target, precision, io_dtype, opset, fp32_islands, file_format, full_integer, calibration)
    _check_attention(target, attention, opset, attentions=attentions, fp32_islands=fp32_islands)
    if fp32_islands == "auto" and not parity:
        raise ConversionError("fp32_islands auto: what it searches is what the gate lets pass; leave the gate on")
    require(f"converting to {target}", torch="torch", **NEEDS[target])
    if parity and target == "onnx":
        require("the parity gate", onnxruntime="onnx")
    if "tensorflow" in NEEDS[target]:
        check_keras_backend()  # before TensorFlow is imported, which imports Keras by itself
    check_own_converters()
    from lxmert_export.exporting.targets import Request
    from lxmert_export.exporting.write import write_artifact

    source = open_source(checkpoint, task, config=config, revision=revision, num_attention_heads=num_attention_heads)
    signature = signature or own_signature(
        source,
        target,
        fixed,
        hidden_states=hidden_states,
        attentions=attentions,
        object_heads=object_heads,
        io_dtype=io_dtype,
    )
    real = _calibration(source, signature, calibration) if full_integer else None
    request = Request(
        target,
        precision,
        opset=opset,
        fp32_islands=fp32_islands,
        attention=attention,
        file_format=file_format,
        calibration=real,
    )
    variant = "-full-integer" if full_integer else "-keras" if file_format == "keras" else ""
    final = Path(directory or f"{default_directory(source.name, signature.task, target, precision)}{variant}")
    refuse_source(checkpoint, final)
    with atomic_directory(final, overwrite=overwrite) as temporary:
        written = write_artifact(
            source,
            request,
            signature,
            temporary,
            name=final.resolve().name,
            parity=parity,
            providers=providers,
            progress=progress,
        )
    return replace(written, path=final)


def load_artifact(path: str | Path, *, providers: Sequence[str] = (CPU,)) -> Runner:
    """Opens an artifact for running, after its sizes and hashes are checked; a context manager."""
    artifact = open_artifact(path)
    check_providers([artifact], providers)
    return open_runner(artifact, providers=providers)


def check_providers(artifacts: Sequence[Artifact], providers: Sequence[str]) -> None:
    """``InputError`` where none takes a provider: whoever names one must not believe that it was judged on."""
    if tuple(providers) != (CPU,) and not any(artifact.manifest.target == "onnx" for artifact in artifacts):
        raise InputError(
            f"{artifacts[0].path}: providers (--provider) are onnxruntime's, and this is no ONNX artifact: leave them out"
        )


def ask(artifact: str | Path, question: str, picture: str | Path, *, providers: Sequence[str] = (CPU,)) -> Answered:
    """Asks an artifact of the built-in checkpoint about a picture file; its answers with probabilities, the likeliest first.

    ``ArtifactError``: an artifact that takes no pictures or gives no answers. ``InputError``: a picture or a question that it
    cannot take. ``MissingExtra``: Pillow or scipy is not installed.
    """
    require_pictures()
    from lxmert_export.api.ask import ask_about_picture

    return ask_about_picture(artifact, question, picture, providers=providers)


def default_directory(name: str, task: str, target: str, precision: str) -> Path:
    """``./<checkpoint>-<task>-<target>-<precision>``."""
    path = Path(name)
    stem = path.stem if path.suffix in (".pth", ".bin", ".safetensors", ".h5") else path.name
    return Path(f"{stem}-{task}-{target}-{precision}")


def _check_choices(
    target: str,
    precision: str,
    io_dtype: str,
    opset: int | None,
    fp32_islands: str,
    file_format: str,
    full_integer: bool,
    calibration: str | Path | None,
) -> None:
    for what, value, choices in (
        ("target", target, tuple(PRECISIONS)),
        ("precision", precision, PRECISIONS.get(target, ())),
        ("io_dtype", io_dtype, IO_DTYPES),
        ("fp32_islands", fp32_islands, FP32_ISLANDS),
        ("format", file_format, FILE_FORMATS),
    ):
        if value not in choices:
            of = f" of target {target}" if what == "precision" else ""
            raise ConversionError(f"unknown {what}{of} {value!r}; choose from {', '.join(choices)}")
    misplaced = {
        "opset": opset is not None and target != "onnx",
        "io_dtype": io_dtype != "float32" and target != "onnx",
        "fp32_islands": fp32_islands != "standard" and (target, precision) != ("onnx", "fp16"),
        "format": file_format != "saved-model" and target != "tensorflow",
        "full_integer": full_integer and (target, precision) != ("tflite", "int8"),
        "calibration": calibration is not None and not full_integer,
    }
    if wrong := [name for name, is_so in misplaced.items() if is_so]:
        raise ConversionError(f"{', '.join(wrong)}: not an option of {precision} {target}; leave it out")


def _check_attention(target: str, attention: str, opset: int | None, *, attentions: bool, fp32_islands: str) -> None:
    """``ConversionError``: an attention that is unknown, or that cannot be had with what else was asked for."""
    if attention not in ATTENTIONS:
        raise ConversionError(f"unknown attention {attention!r}; choose from {', '.join(ATTENTIONS)}")
    if attention == "decomposed":
        return
    if target != "onnx":
        raise ConversionError(f"attention: not an option of {target}; leave it out")
    if opset is not None and opset < ATTENTION_OPSET:
        raise ConversionError(
            f"attention operator needs opset {ATTENTION_OPSET} or later, not {opset}: leave opset out"
        )
    if attentions:
        raise ConversionError(
            "attention operator gives no attention probabilities: leave attentions out, or decompose it"
        )
    if fp32_islands == "auto":
        raise ConversionError(
            "fp32_islands auto: an attention operator is one node, and no part of it an island; decompose it"
        )


def _calibration(source: Source, signature: Signature, file: str | Path | None) -> Calibration:
    from lxmert_export.exporting.calibration import demo_calibration, read_calibration

    if file is not None:
        return read_calibration(file, signature, InputLimits.of(source.config))
    if not is_demo_world(source.config.extra) or signature.task == "nlvr2":
        raise InputError(
            "full-integer needs real inputs of yours to measure ranges on: --calibration FILE (.npz or .safetensors)"
        )
    require_pictures()
    return demo_calibration(signature)


def open_source(
    checkpoint: str | Path | nn.Module | Source,
    task: Task | None = None,
    *,
    config: LxmertConfig | None = None,
    revision: str | None = None,
    num_attention_heads: int | None = None,
) -> Source:
    """What ``export`` converts, read and named; one that is so already is taken as it is."""
    require("reading a checkpoint", torch="torch")
    from lxmert_export.exporting.source import Source, source_of_checkpoint, source_of_module

    if isinstance(checkpoint, Source):
        return checkpoint
    if isinstance(checkpoint, str | Path):
        return source_of_checkpoint(checkpoint, task, revision=revision, num_attention_heads=num_attention_heads)
    return source_of_module(checkpoint, config)


def own_signature(
    source: Source,
    target: str,
    fixed: Mapping[str, int] | None,
    *,
    hidden_states: bool,
    attentions: bool,
    object_heads: bool,
    io_dtype: str,
) -> Signature:
    """The signature of a checkpoint's task as it is asked for; ``ConversionError``: a module of a user's own has none."""
    if source.task is None:
        raise ConversionError(
            f"{source.name} is a module of your own: pass its signature, which names inputs and outputs"
        )
    return task_signature(
        source.config,
        source.task,
        hidden_states=hidden_states,
        attentions=attentions,
        object_heads=object_heads,
        fixed=fixed,
        float_dtype=io_dtype,
        integer_dtype="int64" if target == "onnx" else "int32",
    )
