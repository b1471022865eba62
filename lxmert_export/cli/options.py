"""Options and arguments that several commands share, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lxmert_export.engines.device_kinds import DeviceName
from lxmert_export.spec.signature import Attention, Precision, Task

LONGEST = 7 * 24 * 3600.0  # seconds that an artifact may run


def _unexecuted(text: str) -> str:
    """Says of an option that no run of ours has executed that this is so."""
    return f"{text} [unexecuted]"


def _range(axis: str, default: str) -> Any:
    return typer.Option(
        f"--{axis}",
        metavar="MIN:OPT:MAX",
        help=f"Sizes of {axis}, or one; repeat for more profiles. Default: {default}.",
    )


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
ArtifactArgument = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The directory that a conversion wrote.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else.")]
RunnersArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ARTIFACT...",
        help="Artifact directories; with --checkpoint also canonical-fp32 (-fp64, -fp16, -bf16), transformers, and files of "
        "inputs with recorded outputs (.npz, .safetensors).",
    ),
]
ReferenceOption = Annotated[
    str | None, typer.Option(help="Judge against this checkpoint in float64; default: the golden files.")
]
AllowOtherFlag = Annotated[
    bool, typer.Option("--allow-other-checkpoint", help="Judge artifacts that were made from other weights, too.")
]
InputsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="With --checkpoint: judge on these inputs of yours, too: .npz, .safetensors, Polygraphy's .json.",
    ),
]
RequireOption = Annotated[
    str | None,
    typer.Option(metavar="TARGETS", help="Such as onnx,tensorrt: fail unless artifacts of these are there, and pass."),
]
DeviceReportOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="Judge what a device computed from a bundle, too: the report.json it sent back; repeat.",
    ),
]
NoLawsFlag = Annotated[
    bool,
    typer.Option("--no-laws", help="Leave out the reference-free laws, such as padding that must change nothing."),
]
LocateFlag = Annotated[
    bool,
    typer.Option("--locate", help="Also look into each artifact for the first layer and operator that go wrong."),
]
TimeLimitOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=1, max=LONGEST, help="How long each artifact may run, in a process of its own."
    ),
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="FILE", help="Judge a report again that --json wrote; runs nothing, so name no artifacts."
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(min=0, help="With --from: the score that fails, in noise floors; default: the report's."),
]
PairThresholdOption = Annotated[
    float | None,
    typer.Option(min=0, help="With --from: the same for two runners against each other, and for laws."),
]
BaselineOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Fail where this is worse than that report of --json, such as the last release's."
    ),
]
JsonFileOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON; '-' is stdout.")
]
JunitOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JUnit XML, which CI systems show.")]
MarkdownOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write it as Markdown that fits a GitHub step summary.")
]
HtmlOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write it as one HTML page, which needs nothing but a browser.")
]
PolygraphyOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Write the golden file for `polygraphy run` there, too: `sh DIR/check.sh MODEL.onnx`."
    ),
]
Fp16Flag = Annotated[bool, typer.Option("--fp16", help="Half precision, with float32 islands.")]
Bf16Flag = Annotated[bool, typer.Option("--bf16", help="bfloat16, with float32 islands.")]
IoDtypeOption = Annotated[
    Literal["float32", "float16"], typer.Option(help="Dtype of floating-point inputs and outputs.")
]
FormatOption = Annotated[
    Literal["saved-model", "keras"],
    typer.Option("--format", help="A SavedModel, served without Python of ours, or a .keras file to train on."),
]
Fp16WeightsFlag = Annotated[bool, typer.Option("--fp16", help="Weights in float16, arithmetic in float32.")]
Int8Flag = Annotated[
    bool, typer.Option("--int8", help="Weights in int8, activations quantised as they come (dynamic range).")
]
FullIntegerFlag = Annotated[
    bool, typer.Option("--full-integer", help="With --int8: every operator in int8; needs calibration inputs.")
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Real inputs for --full-integer, .npz or .safetensors; default: demo scenes."),
]
SourceArgument = Annotated[
    str, typer.Argument(metavar="[CHECKPOINT|ARTIFACT]", help="As of `onnx`, or an ONNX artifact's directory.")
]
DeviceOption = Annotated[DeviceName, typer.Option(help="Where the engine is to run.")]
ComputeCapabilityOption = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Such as 8.6,8.9; default: all that the target's runtime builds for."),
]
BatchRangeOption = Annotated[list[str] | None, _range("batch", "1:1:8")]
TextRangeOption = Annotated[list[str] | None, _range("text", "2:20:64")]
ObjectsRangeOption = Annotated[list[str] | None, _range("objects", "1:36:100")]
LintCalibrationOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="With --fp16, real inputs for the linter, .npz or .safetensors; default: drawn."),
]
EngineIoDtypeOption = Annotated[
    Literal["float32", "float16"] | None, typer.Option(help="Dtype of floating-point inputs and outputs.")
]
VersionCompatibleFlag = Annotated[
    bool,
    typer.Option("--version-compatible", help=_unexecuted("Runs in later versions of TensorRT.")),
]
HardwareCompatibleFlag = Annotated[
    bool,
    typer.Option("--hardware-compatible", help=_unexecuted("Runs on any GPU from Ampere on.")),
]
StripFlag = Annotated[bool, typer.Option("--strip", help=_unexecuted("Leave out the weights; refit before it runs."))]
RefitFlag = Annotated[bool, typer.Option("--refit", help=_unexecuted("Weights can be replaced."))]
WeightStreamingFlag = Annotated[
    bool, typer.Option("--weight-streaming", help=_unexecuted("Weights may stay in host memory."))
]
TimingCacheOption = Annotated[
    str | None, typer.Option(metavar="FILE", help=_unexecuted("Times of earlier builds: read, and written again."))
]
BuilderLevelOption = Annotated[int | None, typer.Option(help=_unexecuted("0 (fast build) to 5 (fast engine)."))]
DlaFlag = Annotated[bool, typer.Option("--dla", help=_unexecuted("Use the deep learning accelerator of AGX Orin."))]
BundleFlag = Annotated[
    bool,
    typer.Option(
        "--bundle", help="Build nothing; write what the device builds and verifies it from, and a .tar.gz of it."
    ),
]


def chosen_precision(**flags: bool) -> Precision | None:
    """The one precision that a flag asks for; None where none does."""
    chosen: list[Precision] = [name for name, on in flags.items() if on]  # type: ignore[misc]  # names are precisions
    if len(chosen) > 1:
        raise typer.BadParameter(f"{' and '.join(f'--{name}' for name in chosen)} exclude each other")
    return chosen[0] if chosen else None
