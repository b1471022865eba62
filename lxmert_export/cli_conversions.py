"""The commands that write an artifact, one for each target: `lxmert-export onnx|tensorflow|tflite`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lxmert_export.hub import DEMO
from lxmert_export.signature import Attention, Precision, Task
from lxmert_export.terminal import say, show_report, shown_progress

if TYPE_CHECKING:
    from lxmert_export.artifact import Artifact

CheckpointArgument = Annotated[
    str, typer.Argument(metavar="[CHECKPOINT]", help="A file, a directory, a hub name (owner/name), or 'demo'.")
]
TaskOption = Annotated[Task | None, typer.Option(help="Which head; by default the fullest that the checkpoint holds.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="DIR", help="Default: ./<checkpoint>-<task>-<target>-<precision>."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output directory.")]
RevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub name.")]
HeadsOption = Annotated[
    int | None,
    typer.Option(
        "--num-attention-heads", min=1, help="For checkpoints without config.json; default: hidden size / 64."
    ),
]
ProviderOption = Annotated[
    list[str] | None, typer.Option("--provider", help="onnxruntime execution provider; repeat in order of preference.")
]
BatchOption = Annotated[int | None, typer.Option(min=1, help="Fix the batch axis; dynamic by default.")]
TextOption = Annotated[int | None, typer.Option(min=1, help="Fix the text axis; dynamic by default.")]
ObjectsOption = Annotated[int | None, typer.Option(min=1, help="Fix the objects axis; dynamic by default.")]
HiddenStatesFlag = Annotated[bool, typer.Option("--hidden-states", help="Add every layer's hidden states.")]
AttentionsFlag = Annotated[bool, typer.Option("--attentions", help="Add the attention probabilities.")]
ObjectHeadsFlag = Annotated[bool, typer.Option("--object-heads", help="Add pre-training's object heads.")]
IslandsOption = Annotated[
    Literal["standard", "auto"],
    typer.Option(
        "--fp32-islands",
        help="With --fp16, what computes in float32: LayerNorm, softmax and GELU, or what a search finds necessary.",
    ),
]
OpsetOption = Annotated[
    int | None,
    typer.Option(min=18, max=25, help="ONNX operator set; default: 18, or 23 with --attention operator."),
]
AttentionOption = Annotated[
    Attention,
    typer.Option("--attention", help="Each attention as nodes, or as ONNX's own operator (opset 23 or later)."),
]
NoParityFlag = Annotated[bool, typer.Option("--no-parity", help="Skip the gate; the manifest then says so.")]


def onnx(
    checkpoint: CheckpointArgument = DEMO,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision, with float32 islands.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16, with float32 islands.")] = False,
    task: TaskOption = None,
    output: OutputOption = None,
    opset: OpsetOption = None,
    fp32_islands: IslandsOption = "standard",
    attention: AttentionOption = "decomposed",
    batch: BatchOption = None,
    text: TextOption = None,
    objects: ObjectsOption = None,
    hidden_states: HiddenStatesFlag = False,
    attentions: AttentionsFlag = False,
    object_heads: ObjectHeadsFlag = False,
    io_dtype: Annotated[
        Literal["float32", "float16"], typer.Option(help="Dtype of floating-point inputs and outputs.")
    ] = "float32",
    revision: RevisionOption = None,
    num_attention_heads: HeadsOption = None,
    no_parity: NoParityFlag = False,
    overwrite: OverwriteOption = False,
    provider: ProviderOption = None,
) -> None:
    """Convert a checkpoint to ONNX, and prove it."""
    from lxmert_export.runners.providers import CPU

    if fp32_islands == "auto" and not fp16:
        raise typer.BadParameter("--fp32-islands auto is for --fp16")
    if fp32_islands == "auto" and no_parity:
        raise typer.BadParameter("--fp32-islands auto searches for what the gate lets pass: leave --no-parity out")

    _export(
        "onnx", checkpoint, output, chosen_precision(fp16=fp16, bf16=bf16),
        task=task, fixed=_fixed(batch, text, objects), hidden_states=hidden_states, attentions=attentions,
        object_heads=object_heads, io_dtype=io_dtype, opset=opset, fp32_islands=fp32_islands,
        attention=attention, revision=revision, num_attention_heads=num_attention_heads, parity=not no_parity,
        overwrite=overwrite, providers=provider or (CPU,),
    )  # fmt: skip


def tensorflow(
    checkpoint: CheckpointArgument = DEMO,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision, with float32 islands.")] = False,
    task: TaskOption = None,
    file_format: Annotated[
        Literal["saved-model", "keras"],
        typer.Option("--format", help="A SavedModel, served without Python of ours, or a .keras file to train on."),
    ] = "saved-model",
    output: OutputOption = None,
    batch: BatchOption = None,
    text: TextOption = None,
    objects: ObjectsOption = None,
    hidden_states: HiddenStatesFlag = False,
    attentions: AttentionsFlag = False,
    object_heads: ObjectHeadsFlag = False,
    revision: RevisionOption = None,
    num_attention_heads: HeadsOption = None,
    no_parity: NoParityFlag = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert a checkpoint to TensorFlow, and prove it."""
    _export(
        "tensorflow", checkpoint, output, chosen_precision(fp16=fp16),
        task=task, file_format=file_format, fixed=_fixed(batch, text, objects), hidden_states=hidden_states,
        attentions=attentions, object_heads=object_heads, revision=revision, num_attention_heads=num_attention_heads,
        parity=not no_parity, overwrite=overwrite,
    )  # fmt: skip


def tflite(
    checkpoint: CheckpointArgument = DEMO,
    fp16: Annotated[bool, typer.Option("--fp16", help="Weights in float16, arithmetic in float32.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights in int8, activations quantised as they come (dynamic range).")
    ] = False,
    full_integer: Annotated[
        bool, typer.Option("--full-integer", help="With --int8: every operator in int8; needs calibration inputs.")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Real inputs for --full-integer, .npz or .safetensors; default: demo scenes."
        ),
    ] = None,
    task: TaskOption = None,
    output: OutputOption = None,
    batch: BatchOption = None,
    text: TextOption = None,
    objects: ObjectsOption = None,
    hidden_states: HiddenStatesFlag = False,
    attentions: AttentionsFlag = False,
    object_heads: ObjectHeadsFlag = False,
    revision: RevisionOption = None,
    num_attention_heads: HeadsOption = None,
    no_parity: NoParityFlag = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert a checkpoint to TFLite for edge devices, and prove it."""
    if full_integer and not int8:
        raise typer.BadParameter("--full-integer is a kind of --int8: give both")
    if calibration is not None and not full_integer:
        raise typer.BadParameter("--calibration is for --int8 --full-integer")
    _export(
        "tflite", checkpoint, output, chosen_precision(fp16=fp16, int8=int8),
        task=task, fixed=_fixed(batch, text, objects), hidden_states=hidden_states, attentions=attentions,
        object_heads=object_heads, full_integer=full_integer, calibration=calibration, revision=revision,
        num_attention_heads=num_attention_heads, parity=not no_parity, overwrite=overwrite,
    )  # fmt: skip


def _export(target: str, checkpoint: str, output: Path | None, precision: Precision | None, **options: Any) -> None:
    """Exports, and tells which checkpoint was used, what it proved, and what was written."""
    from lxmert_export import api

    with shown_progress() as progress:
        artifact = api.export(target, checkpoint, output, precision=precision or "fp32", progress=progress, **options)
    say_origin(artifact)
    show_report(artifact.report)
    size = sum(facts["bytes"] for facts in artifact.manifest.files.values())
    typer.echo(f"wrote {artifact.path} ({size:,} bytes)")


def _say_islands(options: Mapping[str, Any]) -> None:
    """The float32 islands that were searched, one a line."""
    islands = options.get("fp32_islands")
    if islands is None:
        return
    needed = (
        "each is needed" if options["fp32_islands_minimal"] else "the search ran out of time: some may not be needed"
    )
    say(f"float32 islands: {len(islands)} nodes" + (f" ({needed})" if islands else ", none is needed"))
    for name in islands:
        say(f"  {name}")


def say_origin(artifact: Artifact) -> None:
    """Which checkpoint was used, what of it was not, and what was searched for it."""
    origin = artifact.manifest.checkpoint
    hashed = f", sha256 {origin['sha256'][:12]}" if origin["sha256"] else ""
    say(f"checkpoint {origin['name']} ({origin['dialect']} dialect{hashed})")
    if origin["unused_heads"]:
        say(f"not used by task {artifact.manifest.task}: {', '.join(origin['unused_heads'])}")
    _say_islands(artifact.manifest.options)


def chosen_precision(**flags: bool) -> Precision | None:
    """The one precision that a flag asks for; None where none does."""
    chosen: list[Precision] = [name for name, on in flags.items() if on]  # type: ignore[misc]  # names are precisions
    if len(chosen) > 1:
        raise typer.BadParameter(f"{' and '.join(f'--{name}' for name in chosen)} exclude each other")
    return chosen[0] if chosen else None


def _fixed(batch: int | None, text: int | None, objects: int | None) -> dict[str, int]:
    return {axis: n for axis, n in (("batch", batch), ("text", text), ("objects", objects)) if n is not None}
