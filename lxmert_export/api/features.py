"""Looking at files of features, and converting them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lxmert_export.data.features.converting import Converted, convert_features
from lxmert_export.data.features.inspecting import Inspection, inspect_features
from lxmert_export.data.features.opening import open_features
from lxmert_export.progress import Progress, silent

__all__ = ["Converted", "Inspection", "convert", "inspect_features"]


def convert(
    source: str | Path,
    output: str | Path,
    *,
    precision: Literal["fp16", "fp32"] = "fp16",
    boxes: str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Converted:
    """Converts a file of features to our own format, or to bottom-up-attention's TSV if the output's name ends with ``.tsv``.

    A conversion that was killed goes on where it was. Errors: ``InputError``: the source cannot be read, or one of its pictures
    cannot be used. ``ArtifactError``: the output exists, or another run writes it. ``MissingExtra``: a library is not installed.
    """
    with open_features(source, boxes=boxes, progress=progress) as opened:
        dtype: Literal["float16", "float32"] = "float16" if precision == "fp16" else "float32"
        return convert_features(opened, Path(output), dtype=dtype, overwrite=overwrite, progress=progress)
