"""Opens a file of features, whatever its format: what it is, is read from its content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lxmert_export.data.features.arrow import ArrowFile, is_arrow
from lxmert_export.data.features.boxes import LAYOUTS, MISTAKES, layout_of
from lxmert_export.data.features.checked import CheckedFeatures
from lxmert_export.data.features.gqa_hdf5 import INFO_FILE, GqaObjects, is_gqa
from lxmert_export.data.features.joined import JoinedFiles
from lxmert_export.data.features.mmf_lmdb import MmfLmdb, is_lmdb
from lxmert_export.data.features.picture_files import PictureBatch, PictureFiles, is_batch, picture_files
from lxmert_export.data.features.shards import INDEX_FILE, ShardedFeatures
from lxmert_export.data.features.stored import BoxLayout, FeatureFile
from lxmert_export.data.features.tsv import TsvFile
from lxmert_export.data.features.tsv_index import SUFFIX as INDEX_SUFFIX
from lxmert_export.errors import InputError, shortened
from lxmert_export.files.array_files import ARRAY_SIGNATURE, ZIP_SIGNATURE
from lxmert_export.files.hdf5_files import SIGNATURE as HDF5_SIGNATURE
from lxmert_export.files.lfs_pointers import not_copied
from lxmert_export.files.listing import files_below
from lxmert_export.option_names import option
from lxmert_export.progress import Progress, silent

FORMATS: Mapping[str, str] = {
    "airsplay-tsv": "airsplay/lxmert's *_obj36.tsv: 10 fields, base64",
    "bottom-up-tsv": "bottom-up-attention's TSV: 6 fields, base64",
    "milvlg-npz": "bottom-up-attention.pytorch (MILVLG, detectron2) and OpenVQA: a .npz for each picture",
    "frcnn-npz": "the output of Hugging Face's LXMERT demo, saved as .npz",
    "mmf-npy": "MMF: NAME.npy and NAME_info.npy for each picture",
    "mmf-lmdb": "MMF's LMDB",
    "gqa-hdf5": "GQA's object features: gqa_objects_N.h5 and gqa_objects_info.json",
    "hf-arrow": "Hugging Face datasets' arrow, with features in its rows",
    "milvlg-safetensors": "the arrays of the .npz formats in .safetensors (also frcnn-, mmf-, hub-safetensors)",
    "lxmert-export": "our own, written by 'features convert': float16 or float32, memory-mapped",
}
SAMPLED = 16  # pictures, spread over the file, from which the layout of its boxes is recognised
# Formats that are told, and not read: their first bytes, and what to do.
NOT_READ = {
    b"PAR1": "is a parquet file: write it as arrow (datasets' save_to_disk) or as one of the formats of docs/data.md",
    b"\x80": "is a bare pickle, which could run code when it is read: write its arrays with numpy.savez",
    b"\x1f\x8b": "is compressed with gzip: unpack it first",
}


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
                f" (and {file.fault_count - 1} more: 'lxmert-export features inspect')" if file.fault_count > 1 else ""
            )
            raise InputError(f"{file.faults[0].said_of(file.path)}{more}")
        if not file.ids:
            raise InputError(f"{path}: holds no pictures")
        return CheckedFeatures(file, box_layout(file, boxes))
    except BaseException:
        file.close()
        raise


def open_stored(path: Path, index_cache: Path | None = None, progress: Progress = silent) -> FeatureFile:
    """Opens a file of features without judging what it holds. ``InputError``: it is no such file."""
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    return _open_directory(path, index_cache, progress) if path.is_dir() else _open_file(path, index_cache, progress)


def box_layout(file: FeatureFile, asked: str | None) -> BoxLayout:
    """Returns the layout of a file's boxes: the one that is asked for, or the one that a sample of them shows.

    ``InputError``: there is no such layout, or the sample shows none, or a mistake of whoever wrote the file.
    """
    if asked is not None:
        if (layout := next((layout for layout in LAYOUTS if layout == asked), None)) is None:
            raise InputError(f"{option('boxes', asked)}: is no layout of boxes; they are {shortened(list(LAYOUTS))}")
        return layout
    found = file.layout or layout_of([file.stored(position) for position in sampled(file)])
    if found is None:
        raise file.error(0, "its boxes are sound in no layout; 'lxmert-export features inspect' shows them")
    if found in MISTAKES:
        raise file.error(0, f"{MISTAKES[found]}; write the file again, or give {option('boxes', found)}")
    return found


def sampled(file: FeatureFile, most: int = SAMPLED) -> list[int]:
    """Returns positions that are spread over a file: at most so many."""
    count = len(file.ids)
    return sorted({number * count // most for number in range(most)}) if count else []


def _open_directory(path: Path, index_cache: Path | None, progress: Progress) -> FeatureFile:
    if (path / INDEX_FILE).is_file():
        return ShardedFeatures(path)
    if is_gqa(path):
        return GqaObjects(path)
    if is_lmdb(path):
        return MmfLmdb(path)
    if is_arrow(path):
        return ArrowFile(path)
    files = [file for file in files_below(path) if not file.name.startswith(".")]
    if arrays := list(picture_files(file for file in files if not file.name.endswith(INDEX_SUFFIX))):
        return PictureFiles(path, arrays)
    texts = [file for file in files if file.suffix in (".tsv", ".csv", ".txt", "") or ".tsv." in file.name]
    texts = [file for file in texts if not file.name.endswith(INDEX_SUFFIX)]
    if not texts:
        raise InputError(f"{path}: holds no file of features; docs/data.md lists the formats")
    parts: list[FeatureFile] = []
    try:
        for file in texts:
            parts.append(_open_file(file, index_cache, progress))
        return JoinedFiles(path, parts) if len(parts) > 1 else parts[0]
    except BaseException:
        for part in parts:
            part.close()
        raise


def _open_file(path: Path, index_cache: Path | None, progress: Progress) -> FeatureFile:
    with path.open("rb") as file:
        start = file.read(256)
    if problem := not_copied(start):
        raise InputError(f"{path}: {problem}")
    if path.name == INDEX_FILE:
        return ShardedFeatures(path)
    if path.name == INFO_FILE or start.startswith(HDF5_SIGNATURE):
        return GqaObjects(path)
    if is_lmdb(path):
        return MmfLmdb(path)
    if is_arrow(path):
        return ArrowFile(path)
    if start.startswith((ZIP_SIGNATURE, ARRAY_SIGNATURE)) or start[8:9] == b"{":  # the last: the header of safetensors
        return PictureBatch(path) if is_batch(path) else PictureFiles(path, [path])
    if reason := next((reason for first, reason in NOT_READ.items() if start.startswith(first)), None):
        raise InputError(f"{path}: {reason}")
    return TsvFile(path, index_cache, progress)
