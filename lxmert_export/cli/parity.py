"""The commands that judge: `lxmert-export parity` and `verify`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from lxmert_export.artifact.directory import ONNX_FILE
from lxmert_export.cli.options import ArtifactArgument, HeadsOption, JsonFlag, ProviderOption, RevisionOption
from lxmert_export.cli.printing import PARITY_FAILED, print_json, say, show_report, shown_progress
from lxmert_export.errors import BuiltNotRun
from lxmert_export.parity.report import ParityError

LONGEST = 7 * 24 * 3600.0  # seconds


def parity(
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ARTIFACT...",
            help="Artifact directories; with --checkpoint also canonical-fp32 (-fp64, -fp16, -bf16), transformers, and files of "
            "inputs with recorded outputs (.npz, .safetensors).",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Judge against this checkpoint in float64; default: the golden files.")
    ] = None,
    allow_other_checkpoint: Annotated[
        bool, typer.Option("--allow-other-checkpoint", help="Judge artifacts that were made from other weights, too.")
    ] = False,
    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --checkpoint: judge on these inputs of yours, too: .npz, .safetensors, Polygraphy's .json.",
        ),
    ] = None,
    require: Annotated[
        str | None,
        typer.Option(
            metavar="TARGETS", help="Such as onnx,tensorrt: fail unless artifacts of these are there, and pass."
        ),
    ] = None,
    device_report: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Judge what a device computed from a bundle, too: the report.json it sent back; repeat.",
        ),
    ] = None,
    no_laws: Annotated[
        bool,
        typer.Option("--no-laws", help="Leave out the reference-free laws, such as padding that must change nothing."),
    ] = False,
    locate: Annotated[
        bool,
        typer.Option("--locate", help="Also look into each artifact for the first layer and operator that go wrong."),
    ] = False,
    time_limit: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=1, max=LONGEST, help="How long each artifact may run, in a process of its own."
        ),
    ] = 1800,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Judge a report again that --json wrote; runs nothing, so name no artifacts."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, help="With --from: the score that fails, in noise floors; default: the report's."),
    ] = None,
    pair_threshold: Annotated[
        float | None,
        typer.Option(min=0, help="With --from: the same for two runners against each other, and for laws."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Fail where this is worse than that report of --json, such as the last release's."
        ),
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON; '-' is stdout.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as JUnit XML, which CI systems show.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as Markdown that fits a GitHub step summary.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as one HTML page, which needs nothing but a browser.")
    ] = None,
    revision: RevisionOption = None,
    num_attention_heads: HeadsOption = None,
    provider: ProviderOption = None,
) -> None:
    """Judge artifacts against a checkpoint, and against one another."""
    from lxmert_export.api import parity as parity_api
    from lxmert_export.parity.pages.writing import check_report_paths, write_reports
    from lxmert_export.parity.rejudging import read_report
    from lxmert_export.runners.onnx.providers import CPU

    if (from_file is None) == (not artifacts):
        given = "both were given" if artifacts else "neither was given"
        raise typer.BadParameter(f"name artifacts to judge, or --from a report to judge again: {given}")
    if from_file is None and (threshold is not None or pair_threshold is not None):
        raise typer.BadParameter(
            "--threshold and --pair-threshold are for --from: what is run is judged by the study's"
        )
    if from_file is not None and (checkpoint or inputs or device_report or locate):
        raise typer.BadParameter("--from runs nothing: leave --checkpoint, --inputs, --device-report and --locate out")
    if device_report and (checkpoint or inputs):
        raise typer.BadParameter(
            "--device-report is judged by a bundle's golden file: leave --checkpoint and --inputs out"
        )
    quiet = json_file == "-"
    files = {"json": None if quiet else json_file, "junit": junit, "markdown": markdown, "html": html}
    check_report_paths(files.values())
    known = None if baseline is None else read_report(baseline)  # before anything is run that needs it
    require_targets = [name.strip() for name in require.split(",")] if require else ()
    if from_file is not None:
        report = parity_api.judge_report(
            from_file, threshold=threshold, pair_threshold=pair_threshold, require_targets=require_targets
        )
    else:
        with shown_progress() as progress:
            report = parity_api.check_parity(
                artifacts or (),
                checkpoint=checkpoint,
                revision=revision,
                num_attention_heads=num_attention_heads,
                allow_other_checkpoint=allow_other_checkpoint,
                inputs=inputs,
                require_targets=require_targets,
                device_reports=device_report or (),
                laws=not no_laws,
                find_divergence=locate,
                time_limit=time_limit,
                providers=provider or (CPU,),
                progress=progress,
            )
    if known is not None:
        report = parity_api.compare_with_baseline(report, known)
    values = report.to_dict()
    write_reports(values, **files)
    if quiet:
        print_json(values)
    _conclude(report, quiet=quiet)


def verify(
    artifact: ArtifactArgument,
    polygraphy: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write the golden file for `polygraphy run` there, too: `sh DIR/check.sh MODEL.onnx`."
        ),
    ] = None,
    provider: ProviderOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Check an artifact's hashes and replay its golden outputs; needs no PyTorch."""
    from lxmert_export.api import parity as parity_api
    from lxmert_export.runners.onnx.providers import CPU

    with shown_progress() as progress:
        try:
            report = parity_api.verify(artifact, polygraphy=polygraphy, providers=provider or (CPU,), progress=progress)
        except BuiltNotRun as error:
            if as_json:
                print_json(parity_api.report_not_run(artifact, error).to_dict())
            raise
    if polygraphy is not None:
        say(f"wrote {polygraphy}: sh {quote(f'{polygraphy}/check.sh')} {quote(f'{artifact}/{ONNX_FILE}')}")
    if as_json:
        print_json(report.to_dict())
    _conclude(report, quiet=as_json)


def _conclude(report: Any, *, quiet: bool) -> None:
    if not quiet:
        show_report(report)
    if not report.passed:
        raise ParityError(report.summary(), report) if quiet else typer.Exit(PARITY_FAILED)
