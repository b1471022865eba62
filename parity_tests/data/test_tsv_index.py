"""The index of a text file: made once, found again, made again when the file has changed."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from lxmert_export.data.features import tsv_index
from lxmert_export.data.features.opening import open_features
from parity_tests.data.feature_files import airsplay_tsv, detected

pytestmark = pytest.mark.quick


def rows_read(path: Path, cache: Path | None = None) -> int:
    """How many rows opening a file parses to make its index."""
    with mock.patch.object(tsv_index, "parse_row", wraps=tsv_index.parse_row) as parse:
        open_features(path, index_cache=cache).close()
        return parse.call_count


def test_the_index_is_made_once_and_lies_beside_the_file(tmp_path: Path) -> None:
    path = airsplay_tsv(tmp_path, detected(5))
    assert rows_read(path) == 5
    assert [file.name for file in tmp_path.iterdir() if file != path] == [f"{path.name}{tsv_index.SUFFIX}"]
    assert rows_read(path) == 0


def test_the_index_is_made_again_when_the_file_has_changed(tmp_path: Path) -> None:
    path = airsplay_tsv(tmp_path, detected(5))
    open_features(path).close()
    before = path.stat()
    airsplay_tsv(tmp_path, detected(5, seed=1))  # as many bytes
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert rows_read(path) == 5
    with open_features(path) as opened:
        assert np.array_equal(opened.read(opened.ids[4]).features, detected(5, seed=1)[4].features)


@pytest.mark.parametrize("content", [b"", b"no index", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_index_is_made_again(content: bytes, tmp_path: Path) -> None:
    path = airsplay_tsv(tmp_path, detected(5))
    path.with_name(f"{path.name}{tsv_index.SUFFIX}").write_bytes(content)
    assert rows_read(path) == 5
    assert rows_read(path) == 0


def test_an_index_may_lie_in_another_directory(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = airsplay_tsv(folder, detected(5))
    assert [rows_read(path, tmp_path / "cache"), rows_read(path, tmp_path / "cache")] == [5, 0]
    assert list(folder.iterdir()) == [path]


def test_a_directory_that_takes_no_files_leaves_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = airsplay_tsv(tmp_path, detected(5))
    blocked = path.with_name(f"{path.name}{tsv_index.SUFFIX}")
    blocked.mkdir()  # as a read-only disk: root may write anywhere else
    (blocked / "x").touch()
    assert [rows_read(path), rows_read(path)] == [5, 0]
    assert list((tmp_path / "cache" / "lxmert-export" / "feature-indexes").iterdir())
