"""The commands that judge artifacts: `lxmert-export parity` and `verify`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote

import typer

from lxmert_export.artifact.directory import ONNX_FILE, split_runtime
from lxmert_export.cli import options
from lxmert_export.cli.printing import PARITY_FAILED, print_json, say, show_report, shown_progress
from lxmert_export.errors import BuiltNotRun
from lxmert_export.judging.own_process import TIME_LIMIT
from lxmert_export.parity.report import ParityError, ParityReport

STDOUT = "-"  # --json - prints the report


def parity(
    artifacts: options.RunnersArgument = None,
    checkpoint: options.ReferenceOption = None,
    allow_other_checkpoint: options.AllowOtherFlag = False,
    inputs: options.InputsOption = None,
    require: options.RequireOption = None,
    device_report: options.DeviceReportOption = None,
    no_laws: options.NoLawsFlag = False,
    locate: options.LocateFlag = False,
    verbose: options.VerboseFlag = False,
    time_limit: options.TimeLimitOption = TIME_LIMIT,
    from_file: options.FromOption = None,
    threshold: options.ThresholdOption = None,
    pair_threshold: options.PairThresholdOption = None,
    baseline: options.BaselineOption = None,
    json_file: options.JsonFileOption = None,
    junit: options.JunitOption = None,
    markdown: options.MarkdownOption = None,
    html: options.HtmlOption = None,
    revision: options.RevisionOption = None,
    num_attention_heads: options.HeadsOption = None,
    provider: options.ProviderOption = None,
) -> None:
    """Judge artifacts against a checkpoint, and against each other.

    Each output is compared on several families (named sets) of sample inputs. Its score is RMS error ÷ noise floor: the error
    is measured against the error that the precision causes anyway. The exit code is 3 if anything fails.
    """
    from lxmert_export.api.parity import check_parity, compare_with_baseline, judge_report
    from lxmert_export.parity.pages.writing import check_report_paths
    from lxmert_export.parity.rejudging import read_report
    from lxmert_export.runners.onnx.providers import CPU

    _check_usage(
        bool(artifacts), from_file is not None, thresholds=threshold is not None or pair_threshold is not None,
        by_checkpoint=bool(checkpoint or inputs), device_report=bool(device_report), locate=locate,
    )  # fmt: skip
    files = {"json": json_file, "junit": junit, "markdown": markdown, "html": html}
    check_report_paths(
        (None if file == STDOUT else file for file in files.values()), reads=(inputs, *(device_report or ()))
    )
    known = None if baseline is None else read_report(baseline)  # fails early: before anything is run
    require_targets = [name.strip() for name in require.split(",")] if require is not None else ()
    if from_file is not None:
        report = judge_report(
            from_file, threshold=threshold, pair_threshold=pair_threshold, require_targets=require_targets
        )
    else:
        with shown_progress() as progress:
            report = check_parity(
                artifacts or (), checkpoint=checkpoint, revision=revision, num_attention_heads=num_attention_heads,
                allow_other_checkpoint=allow_other_checkpoint, inputs=inputs, require_targets=require_targets,
                device_reports=device_report or (), laws=not no_laws, find_divergence=locate, time_limit=time_limit,
                providers=provider or (CPU,), progress=progress,
            )  # fmt: skip
    _conclude_parity(report if known is None else compare_with_baseline(report, known), files, verbose=verbose)


def _check_usage(
    artifacts: bool, from_file: bool, *, thresholds: bool, by_checkpoint: bool, device_report: bool, locate: bool
) -> None:
    """``typer.BadParameter`` (exit code 2): options that contradict each other."""
    if from_file == artifacts:
        given = "both were given" if artifacts else "neither was given"
        raise typer.BadParameter(f"give either artifacts to judge, or --from with a report to judge again: {given}")
    if not from_file and thresholds:
        raise typer.BadParameter(
            "--threshold and --pair-threshold are only for --from: artifacts are judged by the fixed thresholds"
        )
    if from_file and (by_checkpoint or device_report or locate):
        raise typer.BadParameter("--from runs nothing: leave --checkpoint, --inputs, --device-report and --locate out")
    if device_report and by_checkpoint:
        raise typer.BadParameter(
            "--device-report is judged by its bundle's golden file: leave --checkpoint and --inputs out"
        )


def _conclude_parity(report: ParityReport, files: Mapping[str, str | Path | None], *, verbose: bool) -> None:
    """Writes the requested report files, then ends with the verdict. With ``--json -`` stdout holds the JSON alone."""
    from lxmert_export.parity.pages.writing import write_reports

    values = report.to_dict()
    quiet = files["json"] == STDOUT
    write_reports(values, **{kind: None if file == STDOUT else file for kind, file in files.items()})
    if quiet:
        print_json(values)
    _conclude(report, quiet=quiet, verbose=verbose)


def verify(
    artifact: options.RunnableArgument,
    polygraphy: options.PolygraphyOption = None,
    provider: options.ProviderOption = None,
    verbose: options.VerboseFlag = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Check an artifact's hashes, and run its golden inputs again.

    The outputs are compared with the float64 outputs in the golden file. Needs no PyTorch and no checkpoint. Runs a slice of
    the laws; `lxmert-export parity` runs all of them.
    """
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
        say(
            f"wrote {polygraphy}: sh {quote(f'{polygraphy}/check.sh')} {quote(f'{split_runtime(artifact)[0]}/{ONNX_FILE}')}"
        )
    if as_json:
        print_json(report.to_dict())
    _conclude(report, quiet=as_json, verbose=verbose)


def _conclude(report: ParityReport, *, quiet: bool, verbose: bool) -> None:
    if not quiet:
        show_report(report, verbose=verbose)
    if not report.passed:
        raise ParityError(report.summary(), report) if quiet else typer.Exit(PARITY_FAILED)
