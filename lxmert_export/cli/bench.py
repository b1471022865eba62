"""The command that measures artifacts side by side: `lxmert-export bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lxmert_export.api.bench import PASSES, REST, ROUNDS, TIME_LIMIT, WARM_UP, WORKLOAD_BATCH
from lxmert_export.cli import options
from lxmert_export.cli.parity import STDOUT
from lxmert_export.cli.printing import PARITY_FAILED, print_json, shown_progress
from lxmert_export.errors import InputError


def _sizes_option(axis: str, default: str) -> object:
    return typer.Option(
        f"--{axis}",
        metavar="LIST",
        help=f"Sizes of the {axis} axis, such as {default}. Default: {default}, or the fixed size.",
    )


def bench(
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ARTIFACT[@RUNTIME]...",
            help=f"Artifact directories; the first is the yardstick. {options.RUNTIME_HELP}",
        ),
    ] = None,
    batch: Annotated[str | None, _sizes_option("batch", "1,8")] = None,
    text: Annotated[str | None, _sizes_option("text", "20")] = None,
    objects: Annotated[str | None, _sizes_option("objects", "36")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="transformers|onnxruntime|openvino|nncf",
            help="Also measure other programs with the same weights: transformers' model, eager and compiled; its plain ONNX "
            "export in onnxruntime, as it is, optimised and in dynamic int8; the same in OpenVINO. Can be repeated.",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="With --against: what the artifacts were made from. Default: what the first one's manifest names.",
        ),
    ] = None,
    workload: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also answer the questions of this file, such as benchmarks/workload.json: batches sorted by length. The "
            "baseline is transformers' loop, padded to one length.",
        ),
    ] = None,
    workload_batch: Annotated[
        int, typer.Option("--workload-batch", help="With --workload: rows of a call.")
    ] = WORKLOAD_BATCH,
    passes: Annotated[int, typer.Option(help="With --workload: how often all questions are answered.")] = PASSES,
    rounds: Annotated[int, typer.Option(help="Timed calls of each contestant at each setting.")] = ROUNDS,
    warm_up: Annotated[
        int, typer.Option("--warm-up", help="Calls of each contestant before the timed ones.")
    ] = WARM_UP,
    rest: Annotated[float, typer.Option(metavar="SECONDS", help="The rest before each timed call.")] = REST,
    threads: Annotated[
        int | None, typer.Option(help="Threads of every contestant. Default: the machine's cores.")
    ] = None,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", help="The longest time that a contestant may take for one answer.")
    ] = TIME_LIMIT,
    json_file: options.JsonFileOption = None,
    html: options.HtmlOption = None,
) -> None:
    """Measure artifacts side by side: latency, throughput, start-up and memory.

    Each runs in a process of its own; they are called in rotation, one call at a time, with a rest before each call. The first
    artifact is the yardstick. The exit code is 3 if one answers something else than the first.
    """
    from lxmert_export.api import bench as api
    from lxmert_export.benching.pages.terminal import print_bench
    from lxmert_export.benching.pages.writing import write_bench
    from lxmert_export.parity.pages.writing import check_report_paths

    files = {"json": None if json_file == STDOUT else json_file, "html": html}
    check_report_paths(files.values(), reads=(workload, checkpoint, *(artifacts or ())))
    with shown_progress() as progress:
        report = api.bench(
            artifacts or (), batch=_sizes("--batch", batch), text=_sizes("--text", text),
            objects=_sizes("--objects", objects), against=against or (), checkpoint=checkpoint, workload=workload,
            workload_batch=workload_batch, passes=passes, rounds=rounds, warm_up=warm_up, rest=rest, threads=threads,
            time_limit=time_limit, progress=progress,
        )  # fmt: skip
    write_bench(report.to_dict(), **files)
    if json_file == STDOUT:
        print_json(report.to_dict())
    from rich.console import Console

    print_bench(report, Console(stderr=True))
    if not report.passed:
        raise typer.Exit(PARITY_FAILED)


def _sizes(flag: str, listed: str | None) -> list[int] | None:
    """The numbers of a list such as ``1,8``. ``InputError``: it holds something else."""
    if listed is None:
        return None
    try:
        return [int(size) for size in listed.split(",")]
    except ValueError:
        raise InputError(f"{flag}: takes whole numbers with commas between them, such as 1,8, not {listed!r}") from None
