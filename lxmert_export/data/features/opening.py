"""Opens a file of features, whatever its format: what it is, is read from its content."""

from __future__ import annotations

from pathlib import Path

from lxmert_export.data.features.boxes import LAYOUTS, MISTAKES, BoxLayout, as_layout, layout_of
from lxmert_export.data.features.checked import CheckedFeatures
from lxmert_export.data.features.stored import FeatureFile
from lxmert_export.data.features.tsv import TsvFile
from lxmert_export.errors import InputError, shortened
from lxmert_export.option_names import option
from lxmert_export.progress import Progress, silent

SAMPLED = 16  # pictures, spread over the file, from which the layout of its boxes is recognised


def open_features(
    path: str | Path, *, boxes: str | None = None, index_cache: Path | None = None, progress: Progress = silent
) -> CheckedFeatures:
    """Opens a file or directory of features. Every picture is checked when it is read.

    ``boxes``: the layout of the boxes (``data/features/boxes.py``); None: it is recognised. ``index_cache``: a directory for the
    index of a text file; None: beside it, or in the user's cache. ``InputError``: it is no such file, or cannot be used.
    """
    file = open_stored(Path(path), index_cache, progress)
    try:
        if file.faults:
            more = (
                f" (and {len(file.faults) - 1} more: 'lxmert-export features inspect')" if len(file.faults) > 1 else ""
            )
            raise InputError(f"{file.faults[0].said_of(file.path)}{more}")
        if not file.ids:
            raise InputError(f"{path}: holds no pictures")
        return CheckedFeatures(file, _layout(file, boxes))
    except BaseException:
        file.close()
        raise


def open_stored(path: Path, index_cache: Path | None = None, progress: Progress = silent) -> FeatureFile:
    """Opens a file of features without judging what it holds. ``InputError``: it is no such file."""
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    return TsvFile(path, index_cache, progress)


def sampled(file: FeatureFile) -> list[int]:
    """Returns positions that are spread over a file."""
    count = len(file.ids)
    return sorted({number * count // SAMPLED for number in range(SAMPLED)}) if count else []


def _layout(file: FeatureFile, asked: str | None) -> BoxLayout:
    if asked is not None:
        if (layout := as_layout(asked)) is None:
            raise InputError(f"{option('boxes', asked)}: is no layout of boxes; they are {shortened(list(LAYOUTS))}")
        return layout
    found = layout_of([file.stored(position) for position in sampled(file)])
    if found is None:
        first = file.error(0, "its boxes are sound in no layout").args[0]
        raise InputError(f"{first}; 'lxmert-export features inspect' shows them")
    if found in MISTAKES:
        problem = f"{MISTAKES[found]}; write the file again, or give {option('boxes', found)}"
        raise file.error(0, problem)
    return found
