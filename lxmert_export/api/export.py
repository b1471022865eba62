"""Exporting a checkpoint to a target.

No framework is imported at module level: the function imports what it needs, and names the extra that is missing.
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
    optimize_for: str | None = None,
    single_file: bool = False,
    split: bool = False,
    without_families: Sequence[str] = (),
    file_format: str = "saved-model",
    full_integer: bool = False,
    calibration: str | Path | None = None,
    questions: str | Path | None = None,
    int8_range: str = "8bit",
    int8_keep: str | Sequence[str] = (),
    revision: str | None = None,
    num_attention_heads: int | None = None,
    ignore_other_parts: bool = False,
    parity: bool = True,
    keep_failed: str | Path | None = None,
    overwrite: bool = False,
    providers: Sequence[str] = (CPU,),
    progress: Progress = silent,
) -> Artifact:
    """Converts a checkpoint to a target, and writes an artifact directory once the result has passed the parity gate.

    | parameter | for | meaning |
    |---|---|---|
    | ``target`` | | ``onnx``, ``tensorflow`` or ``tflite``; ``build_engine`` builds TensorRT engines |
    | ``checkpoint`` | | a file, a directory, a hub name, one of our models, or (ONNX only) your own module around one |
    | ``directory`` | | default: ``./<checkpoint>-<task>-<target>-<precision>`` |
    | ``signature`` | your own module | its inputs, passed by keyword, and its outputs, taken by name from what it returns |
    | ``config`` | your own module | its config; needed if it holds no ``LxmertModel`` |
    | ``fixed`` | | fixed sizes of some of the axes batch, text and objects, such as ``{"batch": 1}`` |
    | ``io_dtype``, ``opset`` | ONNX | ``float32`` or ``float16`` inputs and outputs; default: 18, or 23 for the operator |
    | ``fp32_islands`` | fp16 ONNX | ``standard``: LayerNorm, softmax with the mask, GELU; ``auto``, ``standard+``: below |
    | ``optimize_for`` | ONNX | ``cpu``: session settings (docs/speed.md); ``cuda``: a graph of few kernels (docs/cuda.md) |
    | ``attention`` | ONNX | ``decomposed``: basic nodes; ``operator``: one ``Attention`` node (opset 23 or later) |
    | ``single_file``, ``split`` | ONNX | no ``model.onnx.data`` (at most 2 GB); two halves, each image once (docs/split.md) |
    | ``without_families`` | your own module | families of drawn inputs to leave out of the gate |
    | ``file_format`` | TensorFlow | ``saved-model`` or ``keras`` |
    | ``full_integer`` | int8 TFLite | every operator computes in int8 |
    | ``calibration``, ``questions`` | int8 ONNX, ``full_integer`` | real inputs, or features and questions (docs/int8.md) |
    | ``int8_range``, ``int8_keep`` | int8 ONNX | ``8bit`` or ``7bit`` weights; matmuls in float32, or ``auto`` (docs/int8.md) |
    | ``task``, ``revision``, ``num_attention_heads``, ``ignore_other_parts`` | | see ``load_checkpoint`` |
    | ``parity`` | | False skips the gate; the artifact then has no golden file |
    | ``keep_failed`` | | a directory: an artifact that the gate refuses is kept there for a look, with a manifest that says so |
    | ``overwrite`` | | replace an artifact directory; one that holds other files, too, is refused |
    | ``providers`` | ONNX | execution providers of onnxruntime that run the artifact in the gate |
    | ``progress`` | | called with a step's name, the number of its parts that are done, and their number |

    ``fp32_islands="auto"`` searches for a set of nodes to keep in float32, with none to spare, so that the gate passes;
    ``"standard+"`` keeps the standard islands and only adds what the gate needs. Their names are in the manifest's options.
    ``without_families``: a module that divides by the number of words is NaN on ``masked-row``; reports name what is left out.

    Errors: ``ParityError``: the gate failed; it carries the report, and the directory is unchanged. ``ConversionError``: options
    do not fit together, or the target cannot express the model. ``CheckpointError``, ``ConfigError``, ``InputError``: checkpoint,
    size or calibration inputs do not fit. ``ArtifactError``: the directory cannot be written. ``MissingExtra``: as named.
    """
    options = ExportOptions(
        target, precision, task=task, signature=signature, config=config, fixed=fixed, hidden_states=hidden_states,
        attentions=attentions, object_heads=object_heads, io_dtype=io_dtype, opset=opset, fp32_islands=fp32_islands,
        attention=attention, optimize_for=optimize_for, single_file=single_file, split=split, file_format=file_format,
        without_families=tuple(without_families), full_integer=full_integer, calibration=calibration, questions=questions,
        int8_range=int8_range, int8_keep=int8_keep, revision=revision, num_attention_heads=num_attention_heads,
        ignore_other_parts=ignore_other_parts, parity=parity, keep_failed=keep_failed,
    )  # fmt: skip
    return _export(checkpoint, directory, options, overwrite=overwrite, providers=providers, progress=progress)


def _export(
    checkpoint: str | Path | nn.Module,
    directory: str | Path | None,
    options: ExportOptions,
    *,
    overwrite: bool,
    providers: Sequence[str],
    progress: Progress,
) -> Artifact:
    """Reads the model, plans its conversion and writes the artifact, in this order: nothing is written before all fits."""
    check_convertible(options)
    from lxmert_export.exporting.conversion import plan_conversion
    from lxmert_export.exporting.model_to_export import read_model
    from lxmert_export.exporting.write import write_artifact

    conversion = plan_conversion(read_model(checkpoint, options), options)
    named = default_directory(conversion.model.name, conversion.signature.task, options.target, options.precision)
    final = Path(f"{named}{options.variant}" if directory is None else directory)
    refuse_source(checkpoint, final)
    with atomic_directory(final, overwrite=overwrite, needed=conversion.least_size) as temporary:
        name = final.resolve().name
        written = write_artifact(conversion, temporary, name=name, providers=providers, progress=progress)
    return replace(written, path=final)


def check_convertible(options: ExportOptions) -> None:
    """Checks, before anything is read, that the libraries of a conversion and of its gate are installed.

    ``MissingExtra``: one is not. ``ConversionError``: Keras is set to another backend than TensorFlow.
    """
    converter = options.row.converter
    assert converter is not None, "ExportOptions refuses targets that have no converter"
    require(f"converting to {options.target}", *converter.needs)
    if options.parity:
        require("the parity gate", *options.row.runtime.opens.needs)
    if TENSORFLOW in converter.needs:
        check_keras_backend()  # before TensorFlow is imported, which imports Keras by itself
    check_own_converters()


def default_directory(name: str, task: str, target: str, precision: str) -> Path:
    """Returns ``./<checkpoint>-<task>-<target>-<precision>``."""
    path = Path(name)
    stem = path.stem if path.suffix in (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".h5") else path.name
    return Path(f"{stem}-{task}-{target}-{precision}")
