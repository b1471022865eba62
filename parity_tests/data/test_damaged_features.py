"""Files of features that were damaged at random: each is read, or is one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.trust.mutations import damaged
from lxmert_export.data.features.inspecting import inspect_features
from lxmert_export.data.features.opening import open_features
from lxmert_export.errors import LxmertExportError
from parity_tests.data.feature_files import KEPT

pytestmark = pytest.mark.quick

TRIALS = 40
# Many bytes of these are padding, or features, in which another number is a number, too.
LEAST_TOLD = {"mmf-lmdb": 2, "gqa-hdf5": 8, "hf-arrow": 8}


@pytest.mark.parametrize("name", sorted(folder.name for folder in KEPT.iterdir()))
def test_damaged_features_are_read_or_are_one_line(name: str, tmp_path: Path) -> None:
    told = 0
    for trial in range(TRIALS):
        folder = shutil.copytree(KEPT / name, tmp_path / str(trial))
        generator = np.random.default_rng(trial)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        file = files[generator.integers(len(files))]
        file.write_bytes(damaged(file.read_bytes(), generator))
        found = list(folder.iterdir())
        path = found[0] if len(found) == 1 else folder
        reading, inspecting = told_by(read_all, path), told_by(inspect_features, path)
        told += reading is not None
        for line in (reading, inspecting):
            assert line is None or (line.startswith(str(path)) and "\n" not in line), line
    assert told >= LEAST_TOLD.get(name, TRIALS // 4)


def read_all(path: Path) -> None:
    with open_features(path) as source:
        for id in source.ids:
            source.read(id)


def told_by(work: Callable[[Path], object], path: Path) -> str | None:
    """What an error says; None if there is none. Other errors than ours are failures."""
    try:
        work(path)
    except LxmertExportError as error:
        return str(error)
    return None
