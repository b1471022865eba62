"""The commands for files of features: `lxmert-export features inspect` and `features convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lxmert_export.cli import options
from lxmert_export.cli.printing import print_json, say, shown_progress
from lxmert_export.data.features.boxes import LAYOUTS
from lxmert_export.errors import InputError

features = typer.Typer(
    help="Inspect and convert files of the features of pictures.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        help="A file or directory of features: TSV of airsplay or bottom-up-attention, .npz, .npy, GQA's HDF5, MMF's LMDB, "
        "arrow, safetensors, or what 'features convert' wrote. Its format is read from its content.",
    ),
]
BoxesOption = Annotated[
    str | None,
    typer.Option(
        metavar="LAYOUT",
        help=f"What the file's boxes are, if it is not what they look like: {', '.join(LAYOUTS)}.",
    ),
]


@features.command()
def inspect(
    source: SourceArgument,
    sample: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Check only so many pictures, spread over the file. Default: all."),
    ] = None,
    boxes: BoxesOption = None,
    as_json: options.JsonFlag = False,
) -> None:
    """Show what a file of features is, what its pictures are like, and what is wrong with them.

    The exit code is 1 if a picture cannot be used.
    """
    from lxmert_export.api.features import inspect_features

    with shown_progress() as progress:
        found = inspect_features(source, sample=sample, boxes=boxes, progress=progress)
    if as_json:
        print_json(found.to_dict())
    else:
        for label, value in found.rows():
            typer.echo(f"{label:<14} {value}")
    if found.fault_count:
        raise InputError(f"{source}: {found.fault_count} of its pictures cannot be used, the first: {found.faults[0]}")


@features.command()
def convert(
    source: SourceArgument,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The directory to write; a name that ends with .tsv is a text file."
        ),
    ],
    precision: Annotated[
        Literal["fp16", "fp32"], typer.Option(help="The precision of the features; boxes are float32.")
    ] = "fp16",
    boxes: BoxesOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace features that this command wrote.")] = False,
) -> None:
    """Convert a file of features to memory-mapped safetensors, or to TSV.

    Every picture is checked. A conversion that was stopped goes on where it was when the same command is given again.
    """
    from lxmert_export.api.features import convert as convert_file

    with shown_progress() as progress:
        done = convert_file(source, output, precision=precision, boxes=boxes, overwrite=overwrite, progress=progress)
    if done.kept:
        say(f"went on after {done.kept:,} pictures of an earlier run")
    rounded = f"; float16 changed features by at most {done.rounding:.2g}" if done.rounding else ""
    typer.echo(f"wrote {output} ({done.pictures:,} pictures, {done.bytes:,} bytes{rounded})")
