"""Pictures whose boxes or features cannot be used: their layout is recognised, mistakes are named, with place and id."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lxmert_export.data.features.inspecting import inspect_features
from lxmert_export.data.features.opening import open_features
from lxmert_export.errors import InputError
from parity_tests.data.feature_files import (
    Detected,
    airsplay_tsv,
    bottom_up_tsv,
    detected,
    gqa_hdf5,
    hf_arrow,
    milvlg_npz,
    mmf_lmdb,
)
from parity_tests.data.test_bad_features import read_all

pytestmark = pytest.mark.quick


def with_boxes(make: Callable[[Detected], np.ndarray[Any, Any]]) -> list[Detected]:
    return [dataclasses.replace(one, boxes=np.asarray(make(one), np.float32)) for one in detected(20)]


def as_xywh(one: Detected) -> np.ndarray[Any, Any]:
    return np.concatenate([one.boxes[:, :2], one.boxes[:, 2:] - one.boxes[:, :2]], axis=1)


def shares_as_xywh(one: Detected) -> np.ndarray[Any, Any]:
    return np.concatenate([one.shares[:, :2], one.shares[:, 2:] - one.shares[:, :2]], axis=1)


LAYOUTS: dict[str, Callable[[Detected], np.ndarray[Any, Any]]] = {
    "pixels": lambda one: one.boxes,
    "normalised": lambda one: one.shares,
    "pixels-xywh": as_xywh,
    "normalised-xywh": shares_as_xywh,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_boxes_is_recognised(layout: str, tmp_path: Path) -> None:
    with open_features(airsplay_tsv(tmp_path, with_boxes(LAYOUTS[layout]))) as opened:
        assert opened.layout == layout
        for id, one in zip(opened.ids, detected(20), strict=True):
            assert np.allclose(opened.read(id).boxes, one.shares, atol=1e-6)


def swapped(folder: Path) -> Path:
    return airsplay_tsv(folder, [dataclasses.replace(one, width=one.height, height=one.width) for one in detected(20)])


def twice(folder: Path) -> Path:
    return airsplay_tsv(folder, with_boxes(lambda one: one.shares / np.array([one.width, one.height] * 2, np.float32)))


@pytest.mark.parametrize(("write", "layout"), [(swapped, "pixels-swapped"), (twice, "normalised-twice")])
def test_a_mistake_in_all_boxes_is_named_and_read_only_when_asked_for(
    write: Callable[[Path], Path], layout: str, tmp_path: Path
) -> None:
    path = write(tmp_path)
    with pytest.raises(InputError, match=f'row 1, .*boxes="{layout}"'):
        read_all(path)
    with open_features(path, boxes=layout) as opened:
        for id, one in zip(opened.ids, detected(20), strict=True):
            assert np.allclose(opened.read(id).boxes, one.shares, atol=1e-5)
    assert inspect_features(path).boxes == layout


ONE_PICTURE: dict[str, tuple[Callable[[Detected], dict[str, Any]], str]] = {
    "a box outside": (lambda one: {"boxes": one.boxes * 2}, "box 1 .* lies outside of the picture"),
    "width and height exchanged": (lambda one: {"width": one.height, "height": one.width}, "width and height are exchanged"),
    "normalised boxes": (lambda one: {"boxes": one.shares}, "all of its boxes lie in the first 2% of its size; "),
    "a box that ends before it begins": (lambda one: {"boxes": one.boxes[:, [2, 3, 0, 1]]}, "ends before it begins"),
    "a NaN": (lambda one: {"features": one.features * np.nan}, "features of object 1 hold NaN"),
    "an infinite feature": (lambda one: {"features": one.features / 0}, "features of object 1 hold NaN, infinity"),
    "a NaN in a box": (lambda one: {"boxes": one.boxes * np.nan}, "box 1 .* lies outside"),
    "boxes of 0": (lambda one: {"boxes": one.boxes * 0}, "all of its boxes are 0"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", ONE_PICTURE)
@pytest.mark.parametrize("write", [airsplay_tsv, bottom_up_tsv, gqa_hdf5, mmf_lmdb, milvlg_npz, hf_arrow])
def test_one_bad_picture_is_told_with_its_place_and_id(name: str, write: Callable[..., Path], tmp_path: Path) -> None:
    change, saying = ONE_PICTURE[name]
    pictures = detected(20)
    pictures[1] = dataclasses.replace(pictures[1], **change(pictures[1]))
    path = write(tmp_path, pictures)
    with pytest.raises(InputError, match=saying) as told:
        read_all(path)
    assert "262148: " in str(told.value) and str(told.value).startswith(f"{path}: ")
    found = inspect_features(path)
    assert found.fault_count == 1 and found.checked == 20
