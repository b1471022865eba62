"""Options and arguments that several commands share, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lxmert_export.artifact.targets import TARGETS
from lxmert_export.engines.device_kinds import DeviceName
from lxmert_export.spec.flops import USUAL_SIZES
from lxmert_export.spec.signature import Attention, Task

LONGEST = 7 * 24 * 3600.0  # the largest --time-limit, in seconds


def _unexecuted(text: str) -> str:
    """The help of an option that no run of ours has executed."""
    return f"{text} [unexecuted]"


def _range(axis: str, default: str) -> Any:
    return typer.Option(
        f"--{axis}",
        metavar="MIN:OPT:MAX",
        help=f"Smallest, optimal and largest size of the {axis} axis, or one fixed size; repeat the option for more "
        f"optimisation profiles. Default: {default}.",
    )


def _counted(usual: int) -> Any:
    return typer.Option(min=1, help=f"Count the operations of a call of this size. Default: {usual}, or as fixed.")


CheckpointArgument = Annotated[
    str,
    typer.Argument(
        metavar="[CHECKPOINT]",
        help="A file, a directory, a Hugging Face hub name (owner/name), or 'demo', the built-in checkpoint.",
    ),
]
TaskOption = Annotated[
    Task | None,
    typer.Option(
        help="Which heads to use. Default: the first of pretraining, question-answering and nlvr2 whose heads the checkpoint "
        "has, else model."
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="DIR",
        help="The directory to write. Default: ./<checkpoint>-<task>-<target>-<precision>.",
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace an output directory that a command of the same kind wrote (an export an artifact, convert a checkpoint). "
        "A directory with other files in it is refused.",
    ),
]
RevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit, if CHECKPOINT is a hub name.")]
HeadsOption = Annotated[
    int | None,
    typer.Option(
        "--num-attention-heads",
        min=1,
        help="The number of attention heads, which cannot be read from the weights. Needed only without a config.json. "
        "Default: hidden size / 64.",
    ),
]
IgnoreOtherPartsFlag = Annotated[
    bool,
    typer.Option(
        "--ignore-other-parts",
        help="Leave out what the file holds beside the LXMERT: other parts of a larger model. Without this flag they are an "
        "error that names them.",
    ),
]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider", help="Execution provider of onnxruntime; repeat the option in order of preference. Default: CPU."
    ),
]
BatchOption = Annotated[int | None, typer.Option(min=1, help="Fix the batch axis to this size; dynamic by default.")]
TextOption = Annotated[int | None, typer.Option(min=1, help="Fix the text axis to this size; dynamic by default.")]
ObjectsOption = Annotated[
    int | None, typer.Option(min=1, help="Fix the objects axis to this size; dynamic by default.")
]
CountedBatchOption = Annotated[int | None, _counted(USUAL_SIZES["batch"])]
CountedTextOption = Annotated[int | None, _counted(USUAL_SIZES["text"])]
CountedObjectsOption = Annotated[int | None, _counted(USUAL_SIZES["objects"])]
HiddenStatesFlag = Annotated[bool, typer.Option("--hidden-states", help="Also output every layer's hidden states.")]
AttentionsFlag = Annotated[bool, typer.Option("--attentions", help="Also output the attention probabilities.")]
ObjectHeadsFlag = Annotated[
    bool, typer.Option("--object-heads", help="Also output the object heads of pre-training (task pretraining).")
]
IslandsOption = Annotated[
    Literal["standard", "auto", "standard+"],
    typer.Option(
        "--fp32-islands",
        help="With --fp16: which nodes compute in float32. standard: LayerNorm, softmax with the mask, and GELU. "
        "auto: a search finds a set of nodes for which the gate passes, with none to spare. standard+: the standard ones, and "
        "what a search adds until the gate passes.",
    ),
]
OpsetOption = Annotated[
    int | None,
    typer.Option(min=18, max=25, help="ONNX operator set; default: 18, or 23 with --attention operator."),
]
AttentionOption = Annotated[
    Attention,
    typer.Option(
        "--attention",
        help="Write each attention as basic nodes (decomposed) or as one ONNX Attention operator (opset 23 or later).",
    ),
]
OptimizeForOption = Annotated[
    Literal["cpu", "cuda"] | None,
    typer.Option(
        "--optimize-for",
        help="cpu: carry session settings that make onnxruntime faster in the manifest; the graph stays portable. "
        "cuda: write few operators, for onnxruntime's CUDA provider alone (docs/cuda.md).",
    ),
]
SingleFileFlag = Annotated[
    bool,
    typer.Option(
        "--single-file",
        help="Put the weights into model.onnx, instead of a file of their own beside it. At most 2 GB.",
    ),
]
SplitFlag = Annotated[
    bool,
    typer.Option(
        "--split",
        help="Also write the graph's halves, which share its weights: vision.onnx for the images, question.onnx for all else. "
        "They are what runs; rows with the same image cost its half once.",
    ),
]
NoParityFlag = Annotated[
    bool,
    typer.Option(
        "--no-parity",
        help='Skip the parity gate. The manifest then holds "parity": null, and `verify` has no golden file to compare with.',
    ),
]
KeepFailedOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Keep an artifact that the gate refuses in this directory, for a look: `lxmert-export parity DIR --locate`.",
    ),
]
VerboseFlag = Annotated[bool, typer.Option("--verbose", help="Print every table, of what passes too.")]
_OTHER_RUNTIMES = [
    f"{target.title} artifacts run in {target.runtime.name}; "
    f"{' and '.join(f'@{runtime.name}' for runtime in target.other_runtimes)} behind a name choose another runtime."
    for target in TARGETS.values()
    if target.other_runtimes
]
RUNTIME_HELP = " ".join([*_OTHER_RUNTIMES, "A path that exists with an @ in it is a path."])
RunnableArgument = Annotated[
    Path, typer.Argument(metavar="ARTIFACT[@RUNTIME]", help=f"The directory that a conversion wrote. {RUNTIME_HELP}")
]
ArtifactArgument = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The directory that a conversion wrote.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else.")]
RunnersArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ARTIFACT[@RUNTIME]...",
        help=f"Artifact directories. {RUNTIME_HELP} With --checkpoint also: canonical-fp32 (-fp64, -fp16, -bf16), transformers, "
        "and files of inputs with recorded outputs (.npz, .safetensors).",
    ),
]
ReferenceOption = Annotated[
    str | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Compare with this checkpoint in float64. Default: each artifact with its own golden file.",
    ),
]
AllowOtherFlag = Annotated[
    bool,
    typer.Option(
        "--allow-other-checkpoint",
        help="With --checkpoint: also accept artifacts that were made from other weights.",
    ),
]
InputsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="With --checkpoint: also judge on your own inputs (.npz, .safetensors, or Polygraphy's .json). If the file holds "
        "labels, the numbers of the true answers, the report also has accuracy and flips.",
    ),
]
RequireOption = Annotated[
    str | None,
    typer.Option(
        metavar="TARGETS",
        help="Targets, such as onnx,tensorrt, or targets in one precision, such as onnx:fp16: fail unless each has an artifact "
        "here, and all its artifacts pass.",
    ),
]
DeviceReportOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="Also judge what a device computed from a bundle: the report.json that it sent back. Can be repeated.",
    ),
]
NoLawsFlag = Annotated[
    bool,
    typer.Option(
        "--no-laws",
        help="Leave out the laws: checks that need no reference, such as that padding changes no output.",
    ),
]
LocateFlag = Annotated[
    bool,
    typer.Option(
        "--locate",
        help="With --checkpoint: also find the first layer and operator where each artifact goes wrong, on --inputs too.",
    ),
]
TimeLimitOption = Annotated[
    float,
    typer.Option(metavar="SECONDS", min=1, max=LONGEST, help="The longest time that each artifact may run."),
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Judge a report again that --json wrote, instead of artifacts. Nothing is run.",
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(min=0, help="With --from: the largest score that passes. Default: the report's own threshold."),
]
PairThresholdOption = Annotated[
    float | None,
    typer.Option(min=0, help="With --from: the same for pairs of runners and for laws."),
]
BaselineOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Fail if the report is worse than this earlier one, which --json wrote; for example the last release's.",
    ),
]
JsonFileOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON; '-' is stdout.")
]
JunitOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the report as JUnit XML, which CI systems show.")
]
MarkdownOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the report as Markdown that fits a GitHub step summary.")
]
HtmlOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the report as one HTML page that works offline.")
]
PolygraphyOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Also write an ONNX artifact's golden file for `polygraphy run` into this new directory, with a script: "
        "`sh DIR/check.sh MODEL.onnx`.",
    ),
]
Fp16Flag = Annotated[bool, typer.Option("--fp16", help="Half precision, with float32 islands.")]
Bf16Flag = Annotated[bool, typer.Option("--bf16", help="bfloat16, with float32 islands.")]
IoDtypeOption = Annotated[
    Literal["float32", "float16"], typer.Option(help="Dtype of floating-point inputs and outputs.")
]
FormatOption = Annotated[
    Literal["saved-model", "keras"],
    typer.Option(
        "--format", help="A SavedModel, which runs without this package, or a .keras file, which can be trained on."
    ),
]
Fp16WeightsFlag = Annotated[bool, typer.Option("--fp16", help="Weights in float16, arithmetic in float32.")]
Int8Flag = Annotated[
    bool, typer.Option("--int8", help="Weights in int8; activations are quantised at run time (dynamic range).")
]
StaticInt8Flag = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="Matmuls with weights in int8, the rest in float32. Ranges are measured on the --calibration inputs.",
    ),
]
Int8RangeOption = Annotated[
    Literal["8bit", "7bit"],
    typer.Option(help="With --int8: 7bit for CPUs without VNNI, whose kernels saturate on larger weights."),
]
EngineInt8RangeOption = Annotated[
    Literal["8bit", "7bit"] | None, typer.Option("--int8-range", help="As for onnx. Default: 8bit.")
]
Int8KeepOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|none|NAMES",
        help="With --int8: matmuls to leave in float32: names of nodes, with commas between. auto finds those that int8 "
        "costs most.",
    ),
]
FullIntegerFlag = Annotated[
    bool,
    typer.Option(
        "--full-integer",
        help="With --int8: every operator computes in int8. The ranges are measured on the --calibration inputs.",
    ),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Real inputs to measure ranges on: .npz, .safetensors, or Polygraphy's JSON; with --questions a file of features. "
        "Only the built-in checkpoint has a default: its demo scenes.",
    ),
]
CalibrationQuestionsOption = Annotated[
    Path | None,
    typer.Option(
        "--questions",
        metavar="FILE",
        help="With --calibration: questions about the pictures of a file of features, as 'predict' reads both.",
    ),
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="[CHECKPOINT|ARTIFACT]",
        help="A checkpoint (file, directory, hub name or 'demo'), or the directory of an ONNX artifact.",
    ),
]
DeviceOption = Annotated[DeviceName, typer.Option(help="The device that the engine will run on.")]
ComputeCapabilityOption = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Compute capabilities of the GPUs to build for, such as 8.6,8.9. Default: the target's.",
    ),
]
BatchRangeOption = Annotated[list[str] | None, _range("batch", "1:1:8")]
TextRangeOption = Annotated[list[str] | None, _range("text", "2:20:64")]
ObjectsRangeOption = Annotated[list[str] | None, _range("objects", "1:36:100")]
EngineCalibrationOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Real inputs: .npz, .safetensors, or Polygraphy's JSON. With --fp16 for the fp16 linter (default: random "
        "ones), with --int8 to measure ranges on.",
    ),
]
EngineIoDtypeOption = Annotated[
    Literal["float32", "float16"] | None, typer.Option(help="Dtype of floating-point inputs and outputs.")
]
VersionCompatibleFlag = Annotated[
    bool,
    typer.Option("--version-compatible", help=_unexecuted("The engine also runs in later versions of TensorRT.")),
]
HardwareCompatibleFlag = Annotated[
    bool,
    typer.Option("--hardware-compatible", help=_unexecuted("The engine runs on any GPU from Ampere on.")),
]
StripFlag = Annotated[
    bool,
    typer.Option("--strip", help=_unexecuted("Leave the weights out; the engine must be refitted before it runs.")),
]
RefitFlag = Annotated[bool, typer.Option("--refit", help=_unexecuted("The engine's weights can be replaced later."))]
WeightStreamingFlag = Annotated[
    bool, typer.Option("--weight-streaming", help=_unexecuted("Weights may stay in host memory."))
]
TimingCacheOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help=_unexecuted("A file of kernel timings: read before the build, updated after it."),
    ),
]
BuilderLevelOption = Annotated[int | None, typer.Option(help=_unexecuted("0 (fast build) to 5 (fast engine)."))]
DlaFlag = Annotated[bool, typer.Option("--dla", help=_unexecuted("Use the deep learning accelerator of AGX Orin."))]
BundleFlag = Annotated[
    bool,
    typer.Option(
        "--bundle",
        help="Build no engine. Write a directory and a .tar.gz from which the device builds and verifies the engine itself.",
    ),
]
