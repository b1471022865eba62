"""The command that builds engines: `lxmert-export tensorrt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lxmert_export.cli.options import (
    AttentionOption,
    AttentionsFlag,
    HeadsOption,
    HiddenStatesFlag,
    IslandsOption,
    NoParityFlag,
    ObjectHeadsFlag,
    OpsetOption,
    OutputOption,
    OverwriteOption,
    ProviderOption,
    RevisionOption,
    TaskOption,
    chosen_precision,
)
from lxmert_export.cli.printing import say, say_origin, show_report, shown_progress
from lxmert_export.engines.devices import Target
from lxmert_export.engines.options import BuildOptions
from lxmert_export.files.hub import DEMO


def _unexecuted(text: str) -> str:
    """Says of an option that no run of ours has executed that this is so."""
    return f"{text} [unexecuted]"


def _range(axis: str, default: str) -> Any:
    return typer.Option(
        f"--{axis}",
        metavar="MIN:OPT:MAX",
        help=f"Sizes of {axis}, or one; repeat for more profiles. Default: {default}.",
    )


def tensorrt(
    source: Annotated[
        str, typer.Argument(metavar="[CHECKPOINT|ARTIFACT]", help="As of `onnx`, or an ONNX artifact's directory.")
    ] = DEMO,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision, with float32 islands.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16, with float32 islands.")] = False,
    target: Annotated[Target, typer.Option(help="Where the engine is to run.")] = "rtx",
    compute_capability: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Such as 8.6,8.9; default: all that the target's runtime builds for."),
    ] = None,
    batch: Annotated[list[str] | None, _range("batch", "1:1:8")] = None,
    text: Annotated[list[str] | None, _range("text", "2:20:64")] = None,
    objects: Annotated[list[str] | None, _range("objects", "1:36:100")] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --fp16, real inputs for the linter, .npz or .safetensors; default: drawn."
        ),
    ] = None,
    task: TaskOption = None,
    output: OutputOption = None,
    opset: OpsetOption = None,
    hidden_states: HiddenStatesFlag = False,
    attentions: AttentionsFlag = False,
    object_heads: ObjectHeadsFlag = False,
    io_dtype: Annotated[
        Literal["float32", "float16"] | None, typer.Option(help="Dtype of floating-point inputs and outputs.")
    ] = None,
    fp32_islands: IslandsOption = "standard",
    attention: AttentionOption = "decomposed",
    version_compatible: Annotated[
        bool,
        typer.Option("--version-compatible", help=_unexecuted("Runs in later versions of TensorRT.")),
    ] = False,
    hardware_compatible: Annotated[
        bool,
        typer.Option("--hardware-compatible", help=_unexecuted("Runs on any GPU from Ampere on.")),
    ] = False,
    strip: Annotated[
        bool, typer.Option("--strip", help=_unexecuted("Leave out the weights; refit before it runs."))
    ] = False,
    refit: Annotated[bool, typer.Option("--refit", help=_unexecuted("Weights can be replaced."))] = False,
    weight_streaming: Annotated[
        bool, typer.Option("--weight-streaming", help=_unexecuted("Weights may stay in host memory."))
    ] = False,
    timing_cache: Annotated[
        str | None, typer.Option(metavar="FILE", help=_unexecuted("Times of earlier builds: read, and written again."))
    ] = None,
    builder_level: Annotated[int | None, typer.Option(help=_unexecuted("0 (fast build) to 5 (fast engine)."))] = None,
    dla: Annotated[
        bool, typer.Option("--dla", help=_unexecuted("Use the deep learning accelerator of AGX Orin."))
    ] = False,
    bundle: Annotated[
        bool,
        typer.Option(
            "--bundle", help="Build nothing; write what the device builds and verifies it from, and a .tar.gz of it."
        ),
    ] = False,
    revision: RevisionOption = None,
    num_attention_heads: HeadsOption = None,
    no_parity: NoParityFlag = False,
    overwrite: OverwriteOption = False,
    provider: ProviderOption = None,
) -> None:
    """Build a TensorRT engine from a checkpoint or an ONNX artifact, and count what it computes in.

    What is marked [unexecuted] follows NVIDIA's documentation, and no run of ours has executed it: so does every build with
    classic TensorRT, and every run of an engine.
    """
    from lxmert_export.api.engine import OnnxOptions, build_engine
    from lxmert_export.api.inspect import predicted_errors

    # Only what was asked for: an ONNX artifact has been exported already, and takes none of these.
    asked: dict[str, Any] = {
        "task": task, "hidden_states": hidden_states, "attentions": attentions, "object_heads": object_heads,
        "io_dtype": io_dtype, "opset": opset, "revision": revision, "num_attention_heads": num_attention_heads,
        "providers": provider, "fp32_islands": fp32_islands if fp32_islands == "auto" else None,
        "attention": attention if attention == "operator" else None,
        **({"parity": False} if no_parity else {}),
    }  # fmt: skip
    onnx_options: OnnxOptions = {k: v for k, v in asked.items() if v or k == "parity"}  # type: ignore[assignment]
    precision = chosen_precision(fp16=fp16, bf16=bf16)
    options = BuildOptions(
        version_compatible, hardware_compatible, strip, refit, weight_streaming, timing_cache, builder_level, dla
    )
    with shown_progress() as progress:
        artifact = build_engine(
            source, output, precision=precision, target=target, compute_capability=compute_capability, options=options,
            batch=batch or (), text=text or (), objects=objects or (), calibration=calibration,
            bundle=bundle, overwrite=overwrite, progress=progress, **onnx_options,
        )  # fmt: skip
    say_origin(artifact)
    if artifact.report is not None:
        say("parity of the ONNX graph that the engine is built from:")
    show_report(artifact.report)
    described = artifact.manifest.options
    _say_findings(described["lint"])
    for foretold in predicted_errors(described):
        say(f"foretold error: {foretold}")
    engine = described["bundle"]["engine"] if bundle else described["engine"]
    for note in engine["notes"]:
        say(f"note: {note}")
    if bundle:
        say(f"no run of ours has executed for this target: {', '.join(engine['unexecuted']) or 'nothing'}")
        typer.echo(f"wrote {artifact.path} and {artifact.path}.tar.gz: nothing is built yet; its README.md says how")
        return
    typer.echo(f"wrote {artifact.path} (engine {described['build']['engine_bytes']:,} bytes): {described['status']}")


def _say_findings(findings: Sequence[Mapping[str, Any]]) -> None:
    """Errors and warnings of the fp16 linter, and how many notes there are."""
    notes = [finding for finding in findings if finding["severity"] == "note"]
    for finding in findings:
        if finding not in notes:
            say("{severity}: {rule}: {node}: {seen}; {mend}".format(**finding))
    if notes:
        rules = ", ".join(sorted({finding["rule"] for finding in notes}))
        say(f"the fp16 linter's {len(notes)} notes ({rules}) are in the manifest")
