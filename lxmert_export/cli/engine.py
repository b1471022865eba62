"""The command that builds engines: `lxmert-export tensorrt`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lxmert_export.cli import options
from lxmert_export.cli.option_values import chosen_precision, named_matmuls
from lxmert_export.cli.printing import say, say_origin, show_report, shown_progress
from lxmert_export.engines.options import BuildOptions
from lxmert_export.files.hub import DEMO

if TYPE_CHECKING:
    from lxmert_export.artifact.directory import Artifact

# Engines have no such option: the command takes it to say why.
RefusedOption = Annotated[str | None, typer.Option("--optimize-for", hidden=True)]


def tensorrt(
    source: options.SourceArgument = DEMO,
    fp16: options.Fp16Flag = False,
    bf16: options.Bf16Flag = False,
    int8: options.StaticInt8Flag = False,
    target: options.DeviceOption = "rtx",
    compute_capability: options.ComputeCapabilityOption = None,
    batch: options.BatchRangeOption = None,
    text: options.TextRangeOption = None,
    objects: options.ObjectsRangeOption = None,
    calibration: options.EngineCalibrationOption = None,
    questions: options.CalibrationQuestionsOption = None,
    int8_range: options.EngineInt8RangeOption = None,
    int8_keep: options.Int8KeepOption = None,
    task: options.TaskOption = None,
    output: options.OutputOption = None,
    opset: options.OpsetOption = None,
    hidden_states: options.HiddenStatesFlag = False,
    attentions: options.AttentionsFlag = False,
    object_heads: options.ObjectHeadsFlag = False,
    io_dtype: options.EngineIoDtypeOption = None,
    fp32_islands: options.IslandsOption = "standard",
    attention: options.AttentionOption = "decomposed",
    optimize_for: RefusedOption = None,
    version_compatible: options.VersionCompatibleFlag = False,
    hardware_compatible: options.HardwareCompatibleFlag = False,
    strip: options.StripFlag = False,
    refit: options.RefitFlag = False,
    weight_streaming: options.WeightStreamingFlag = False,
    timing_cache: options.TimingCacheOption = None,
    builder_level: options.BuilderLevelOption = None,
    dla: options.DlaFlag = False,
    bundle: options.BundleFlag = False,
    revision: options.RevisionOption = None,
    num_attention_heads: options.HeadsOption = None,
    ignore_other_parts: options.IgnoreOtherPartsFlag = False,
    no_parity: options.NoParityFlag = False,
    keep_failed: options.KeepFailedOption = None,
    overwrite: options.OverwriteOption = False,
    verbose: options.VerboseFlag = False,
    provider: options.ProviderOption = None,
) -> None:
    """Build a TensorRT engine from a checkpoint or an ONNX artifact.

    The ONNX graph is compared with its checkpoint before the build. After the build the engine's layers are counted by
    precision. The engine itself is checked by `lxmert-export verify` on a GPU.

    [unexecuted]: written from NVIDIA's documents, never run by us. This also holds for every build with classic TensorRT and
    for every run of an engine.
    """
    from lxmert_export.api.engine import OnnxOptions, build_engine

    # Passed on only if given: an ONNX artifact has been exported already, and build_engine refuses these options for it.
    asked: dict[str, Any] = {
        "task": task, "hidden_states": hidden_states, "attentions": attentions, "object_heads": object_heads,
        "io_dtype": io_dtype, "opset": opset, "revision": revision, "num_attention_heads": num_attention_heads,
        "ignore_other_parts": ignore_other_parts,
        "providers": provider, "fp32_islands": fp32_islands if fp32_islands != "standard" else None,
        "keep_failed": keep_failed,
        "attention": attention if attention == "operator" else None, "optimize_for": optimize_for,
        "questions": questions, "int8_range": int8_range, "int8_keep": named_matmuls(int8_keep),
        **({"parity": False} if no_parity else {}),
    }  # fmt: skip
    onnx_options: OnnxOptions = {k: v for k, v in asked.items() if v or k == "parity"}  # type: ignore[assignment]
    build = BuildOptions(
        version_compatible, hardware_compatible, strip, refit, weight_streaming, timing_cache, builder_level, dla
    )
    with shown_progress() as progress:
        artifact = build_engine(
            source, output, precision=chosen_precision(fp16=fp16, bf16=bf16, int8=int8), target=target,
            compute_capability=compute_capability, options=build, batch=batch or (), text=text or (),
            objects=objects or (), calibration=calibration, bundle=bundle, overwrite=overwrite, progress=progress,
            **onnx_options,
        )  # fmt: skip
    _say_built(artifact, verbose=verbose)


def _say_built(artifact: Artifact, *, verbose: bool) -> None:
    """Prints what was found before the build, what was built or bundled, and what was never executed."""
    from lxmert_export.api.inspect import lint_lines, predicted_errors

    say_origin(artifact)
    if artifact.report is not None:
        say("parity of the ONNX graph from which the engine is built:")
    show_report(artifact.report, verbose=verbose)
    described = artifact.manifest.options
    if described["lint_inputs"] is not None:
        for line in lint_lines(described["lint"]):
            say(f"fp16 lint: {line}")
    for predicted in predicted_errors(described):
        say(f"predicted error on the GPU: {predicted}")
    bundle = described.get("bundle")
    engine = bundle["engine"] if bundle else described["engine"]
    for note in engine["notes"]:
        say(f"note: {note}")
    if bundle:
        say(f"never executed by us for this target: {', '.join(engine['unexecuted']) or 'nothing'}")
        typer.echo(
            f"wrote {artifact.path} and {artifact.path}.tar.gz: no engine is built yet; README.md says how to build it"
        )
        return
    typer.echo(f"wrote {artifact.path} (engine {described['build']['engine_bytes']:,} bytes): {described['status']}")
