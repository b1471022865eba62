"""Files of features: each format is recognised by its content, and gives the pictures that were written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from lxmert_export.data.features.opening import open_features
from parity_tests.data import feature_files
from parity_tests.data.feature_files import KEPT, WIDTH, detected

pytestmark = pytest.mark.quick


def kept(name: str, tmp_path: Path) -> Path:
    """A copy of a recorded file or directory: an index is written beside it."""
    folder = shutil.copytree(KEPT / name, tmp_path / "copy")
    found = list(folder.iterdir())
    return found[0] if len(found) == 1 else folder


@pytest.mark.parametrize("name", feature_files.FORMATS)
def test_a_recorded_file_of_each_format_gives_its_pictures(name: str, tmp_path: Path) -> None:
    expected = detected()
    with open_features(kept(name, tmp_path)) as source:
        assert (source.format, source.feature_width, len(source.ids)) == (name, WIDTH, len(expected))
        for id, one in zip(source.ids, expected, strict=True):  # in the file's order
            found = source.read(id)
            assert found.features.dtype == found.boxes.dtype == np.float32
            assert np.array_equal(found.features, one.features)
            assert np.array_equal(found.boxes, one.shares)


@pytest.mark.parametrize("name", feature_files.FORMATS)
def test_the_writer_still_writes_what_is_recorded(name: str, tmp_path: Path) -> None:
    written = feature_files.FORMATS[name](tmp_path, detected())
    with open_features(written) as again, open_features(kept(name, tmp_path)) as recorded:
        assert list(again.ids) == list(recorded.ids)
        assert np.array_equal(again.read(again.ids[2]).features, recorded.read(again.ids[2]).features)
