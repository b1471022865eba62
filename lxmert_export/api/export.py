"""The Python interface: load, save, export. The command line is a thin layer over this.

Nothing here imports a framework at module level: each function brings in what it needs, and says which extra is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lxmert_export.artifact.directory import Artifact
from lxmert_export.exporting.options import ExportOptions
from lxmert_export.extras import TENSORFLOW, check_keras_backend, check_own_converters, require
from lxmert_export.files import hub
from lxmert_export.files.atomic_directory import atomic_directory, refuse_source
from lxmert_export.progress import Progress, silent
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Attention, Precision, Signature, Task

if TYPE_CHECKING:
    from torch import nn


def export(
    target: str,
    checkpoint: str | Path | nn.Module = hub.DEMO,
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
    options = ExportOptions(
        target,
        precision,
        task=task,
        signature=signature,
        config=config,
        fixed=fixed,
        hidden_states=hidden_states,
        attentions=attentions,
        object_heads=object_heads,
        io_dtype=io_dtype,
        opset=opset,
        fp32_islands=fp32_islands,
        attention=attention,
        file_format=file_format,
        full_integer=full_integer,
        calibration=calibration,
        revision=revision,
        num_attention_heads=num_attention_heads,
        parity=parity,
    )
    check_convertible(options)
    from lxmert_export.exporting.conversion import plan_conversion
    from lxmert_export.exporting.model_to_export import read_model
    from lxmert_export.exporting.write import write_artifact

    conversion = plan_conversion(read_model(checkpoint, options), options)
    named = default_directory(conversion.model.name, conversion.signature.task, target, precision)
    final = Path(directory or f"{named}{options.variant}")
    refuse_source(checkpoint, final)
    with atomic_directory(final, overwrite=overwrite) as temporary:
        name = final.resolve().name
        written = write_artifact(conversion, temporary, name=name, providers=providers, progress=progress)
    return replace(written, path=final)


def check_convertible(options: ExportOptions) -> None:
    """``MissingExtra`` unless all that a conversion and its gate need is installed; ``ConversionError``: Keras is set wrongly."""
    converter = options.row.converter
    assert converter is not None, "ExportOptions refuses targets without one"
    require(f"converting to {options.target}", *converter.needs)
    if options.parity:
        require("the parity gate", *options.row.runtime.opens.needs)
    if TENSORFLOW in converter.needs:
        check_keras_backend()  # before TensorFlow is imported, which imports Keras by itself
    check_own_converters()


def default_directory(name: str, task: str, target: str, precision: str) -> Path:
    """``./<checkpoint>-<task>-<target>-<precision>``."""
    path = Path(name)
    stem = path.stem if path.suffix in (".pth", ".bin", ".safetensors", ".h5") else path.name
    return Path(f"{stem}-{task}-{target}-{precision}")
