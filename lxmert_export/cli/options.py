"""Options and arguments that several commands share, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lxmert_export.spec.signature import Attention, Precision, Task

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


def chosen_precision(**flags: bool) -> Precision | None:
    """The one precision that a flag asks for; None where none does."""
    chosen: list[Precision] = [name for name, on in flags.items() if on]  # type: ignore[misc]  # names are precisions
    if len(chosen) > 1:
        raise typer.BadParameter(f"{' and '.join(f'--{name}' for name in chosen)} exclude each other")
    return chosen[0] if chosen else None


ArtifactArgument = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The directory that a conversion wrote.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else.")]
