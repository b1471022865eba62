"""The commands `lxmert-export onnx`, `tensorflow` and `tflite`: each writes an artifact of its target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from lxmert_export.cli import options
from lxmert_export.cli.option_values import chosen_precision, given_sizes, named_matmuls
from lxmert_export.cli.printing import say_origin, show_report, shown_progress
from lxmert_export.files.hub import DEMO
from lxmert_export.spec.signature import Precision


def onnx(
    checkpoint: options.CheckpointArgument = DEMO,
    fp16: options.Fp16Flag = False,
    bf16: options.Bf16Flag = False,
    int8: options.StaticInt8Flag = False,
    calibration: options.CalibrationOption = None,
    questions: options.CalibrationQuestionsOption = None,
    int8_range: options.Int8RangeOption = "8bit",
    int8_keep: options.Int8KeepOption = None,
    task: options.TaskOption = None,
    output: options.OutputOption = None,
    opset: options.OpsetOption = None,
    fp32_islands: options.IslandsOption = "standard",
    attention: options.AttentionOption = "decomposed",
    optimize_for: options.OptimizeForOption = None,
    single_file: options.SingleFileFlag = False,
    split: options.SplitFlag = False,
    batch: options.BatchOption = None,
    text: options.TextOption = None,
    objects: options.ObjectsOption = None,
    hidden_states: options.HiddenStatesFlag = False,
    attentions: options.AttentionsFlag = False,
    object_heads: options.ObjectHeadsFlag = False,
    io_dtype: options.IoDtypeOption = "float32",
    revision: options.RevisionOption = None,
    num_attention_heads: options.HeadsOption = None,
    ignore_other_parts: options.IgnoreOtherPartsFlag = False,
    no_parity: options.NoParityFlag = False,
    keep_failed: options.KeepFailedOption = None,
    overwrite: options.OverwriteOption = False,
    verbose: options.VerboseFlag = False,
    provider: options.ProviderOption = None,
) -> None:
    """Convert a checkpoint to ONNX, and check the result.

    The outputs are compared with the checkpoint's in float64. If this check fails, no artifact is written and the exit code
    is 3.
    """
    from lxmert_export.runners.onnx.providers import CPU

    if fp32_islands != "standard" and not fp16:
        raise typer.BadParameter(f"--fp32-islands {fp32_islands} is for --fp16")
    if fp32_islands != "standard" and no_parity:
        raise typer.BadParameter(f"--fp32-islands {fp32_islands} needs the parity gate: leave --no-parity out")

    _export(
        "onnx", checkpoint, output, chosen_precision(fp16=fp16, bf16=bf16, int8=int8),
        calibration=calibration, questions=questions, int8_range=int8_range, int8_keep=named_matmuls(int8_keep),
        task=task, fixed=given_sizes(batch, text, objects), hidden_states=hidden_states, attentions=attentions,
        object_heads=object_heads, io_dtype=io_dtype, opset=opset, fp32_islands=fp32_islands,
        attention=attention, optimize_for=optimize_for, single_file=single_file, split=split, revision=revision,
        num_attention_heads=num_attention_heads,
        ignore_other_parts=ignore_other_parts, parity=not no_parity,
        keep_failed=keep_failed, overwrite=overwrite, verbose=verbose, providers=provider or (CPU,),
    )  # fmt: skip


def tensorflow(
    checkpoint: options.CheckpointArgument = DEMO,
    fp16: options.Fp16Flag = False,
    task: options.TaskOption = None,
    file_format: options.FormatOption = "saved-model",
    output: options.OutputOption = None,
    batch: options.BatchOption = None,
    text: options.TextOption = None,
    objects: options.ObjectsOption = None,
    hidden_states: options.HiddenStatesFlag = False,
    attentions: options.AttentionsFlag = False,
    object_heads: options.ObjectHeadsFlag = False,
    revision: options.RevisionOption = None,
    num_attention_heads: options.HeadsOption = None,
    ignore_other_parts: options.IgnoreOtherPartsFlag = False,
    no_parity: options.NoParityFlag = False,
    keep_failed: options.KeepFailedOption = None,
    overwrite: options.OverwriteOption = False,
    verbose: options.VerboseFlag = False,
) -> None:
    """Convert a checkpoint to TensorFlow, and check the result.

    The outputs are compared with the checkpoint's in float64. If this check fails, no artifact is written and the exit code
    is 3.
    """
    _export(
        "tensorflow", checkpoint, output, chosen_precision(fp16=fp16),
        task=task, file_format=file_format, fixed=given_sizes(batch, text, objects), hidden_states=hidden_states,
        attentions=attentions, object_heads=object_heads, revision=revision,
        num_attention_heads=num_attention_heads, ignore_other_parts=ignore_other_parts,
        parity=not no_parity, keep_failed=keep_failed, overwrite=overwrite, verbose=verbose,
    )  # fmt: skip


def tflite(
    checkpoint: options.CheckpointArgument = DEMO,
    fp16: options.Fp16WeightsFlag = False,
    int8: options.Int8Flag = False,
    full_integer: options.FullIntegerFlag = False,
    calibration: options.CalibrationOption = None,
    questions: options.CalibrationQuestionsOption = None,
    task: options.TaskOption = None,
    output: options.OutputOption = None,
    batch: options.BatchOption = None,
    text: options.TextOption = None,
    objects: options.ObjectsOption = None,
    hidden_states: options.HiddenStatesFlag = False,
    attentions: options.AttentionsFlag = False,
    object_heads: options.ObjectHeadsFlag = False,
    revision: options.RevisionOption = None,
    num_attention_heads: options.HeadsOption = None,
    ignore_other_parts: options.IgnoreOtherPartsFlag = False,
    no_parity: options.NoParityFlag = False,
    keep_failed: options.KeepFailedOption = None,
    overwrite: options.OverwriteOption = False,
    verbose: options.VerboseFlag = False,
) -> None:
    """Convert a checkpoint to TFLite, and check the result.

    The outputs are compared with the checkpoint's in float64. If this check fails, no artifact is written and the exit code
    is 3.
    """
    if full_integer and not int8:
        raise typer.BadParameter("--full-integer is a kind of --int8: give --int8, too")
    if (calibration is not None or questions is not None) and not full_integer:
        raise typer.BadParameter("--calibration is for --int8 --full-integer")
    _export(
        "tflite", checkpoint, output, chosen_precision(fp16=fp16, int8=int8),
        task=task, fixed=given_sizes(batch, text, objects), hidden_states=hidden_states, attentions=attentions,
        object_heads=object_heads, full_integer=full_integer, calibration=calibration,
        questions=questions, revision=revision,
        num_attention_heads=num_attention_heads,
        ignore_other_parts=ignore_other_parts, parity=not no_parity, keep_failed=keep_failed, overwrite=overwrite,
        verbose=verbose,
    )  # fmt: skip


def _export(
    target: str, checkpoint: str, output: Path | None, precision: Precision | None, *, verbose: bool, **options: Any
) -> None:
    """Exports, then prints which checkpoint was used, the parity report, and what was written."""
    from lxmert_export.api import export as api

    with shown_progress() as progress:
        artifact = api.export(target, checkpoint, output, precision=precision or "fp32", progress=progress, **options)
    say_origin(artifact)
    show_report(artifact.report, verbose=verbose)
    size = sum(facts["bytes"] for facts in artifact.manifest.files.values())
    typer.echo(f"wrote {artifact.path} ({size:,} bytes)")
