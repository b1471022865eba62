"""Pictures as named arrays: the names that each program gives to features, boxes, sizes and numbers of objects.

| naming   | program                                                        | features       | boxes                          |
|----------|----------------------------------------------------------------|----------------|--------------------------------|
| milvlg   | MILVLG/bottom-up-attention.pytorch (detectron2), OpenVQA       | ``x``          | ``bbox``                       |
| frcnn    | Hugging Face's LXMERT demo (``modeling_frcnn.py``)             | ``roi_features`` | ``normalized_boxes``, ``boxes`` |
| mmf      | MMF (``lmdb_conversion.py``, ``extract_features_vmb.py``)      | ``features``   | ``bbox``                       |
| hub      | datasets on Hugging Face's hub, made from airsplay's files     | ``features``   | ``normalized_boxes``           |
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lxmert_export.data.features.stored import StoredPicture


@dataclass(frozen=True)
class Naming:
    """How a program names its arrays. Of ``boxes`` the first is taken that is there.

    ``sizes`` names an array of heights and widths, which only ``boxes`` in pixels need.
    """

    name: str
    features: str
    boxes: tuple[str, ...]
    count: str = ""
    width: str = ""
    height: str = ""
    sizes: str = ""
    ids: tuple[str, ...] = ()


NAMINGS = (
    Naming("milvlg", "x", ("bbox",), "num_bbox", "image_w", "image_h"),
    Naming("frcnn", "roi_features", ("normalized_boxes", "boxes"), "preds_per_image", sizes="sizes", ids=("img_id", "iid")),
    Naming("mmf", "features", ("bbox",), "num_boxes", "image_width", "image_height"),
    Naming("hub", "features", ("normalized_boxes",), ids=("image_id", "img_id")),
)  # fmt: skip


def naming_of(names: Container[str]) -> Naming | None:
    """Returns the naming of some arrays; None: it is none of these."""
    for naming in NAMINGS:
        if naming.features in names and any(box in names for box in naming.boxes):
            return naming
    return None


def expected_names() -> str:
    """Says which names an array of features and one of boxes may have."""
    return ", ".join(f"{naming.features} and {' or '.join(naming.boxes)}" for naming in NAMINGS)


def stored_picture(naming: Naming, arrays: Mapping[str, Any], id: str) -> StoredPicture:
    """Makes a picture of the arrays of one. ``ValueError``: they do not fit one another, or one of them is no array."""
    boxes_name = next(name for name in naming.boxes if name in arrays)
    features, boxes = (_array(arrays[name], name) for name in (naming.features, boxes_name))
    if features.shape[0] != boxes.shape[0] and features.shape[1] == boxes.shape[0]:
        features = features.T  # OpenVQA stores the features of an object in a column
    if features.shape[0] != boxes.shape[0]:
        raise ValueError(f"has features of {features.shape[0]} objects and {boxes.shape[0]} boxes")
    count = _whole_number(arrays, naming.count)
    if count is not None:
        if not 0 < count <= len(boxes):
            raise ValueError(f"its {naming.count} is {count}, and it has {len(boxes)} boxes")
        features, boxes = features[:count], boxes[:count]
    return StoredPicture(id, features, boxes, _size(naming, arrays))


def _array(value: Any, name: str) -> NDArray[np.generic]:
    """An array [objects, …] of numbers. Some programs write a batch of one picture."""
    array = np.asarray(value)
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.dtype.kind not in "fiu" or array.ndim != 2:
        raise ValueError(f"its {name} is no array [objects, values] of numbers, but {array.dtype} {list(array.shape)}")
    return array


def _size(naming: Naming, arrays: Mapping[str, Any]) -> tuple[int, int] | None:
    if naming.sizes in arrays:
        sizes = np.asarray(arrays[naming.sizes]).reshape(-1)
        return (round(float(sizes[1])), round(float(sizes[0]))) if len(sizes) == 2 else None
    info = arrays.get("info")  # some versions of MILVLG's program keep the size there
    places = [arrays, info] if isinstance(info, Mapping) else [arrays]
    for place in places:
        width, height = (_whole_number(place, name) for name in (naming.width, naming.height))
        if width is not None and height is not None:
            return width, height
    return None


def _whole_number(arrays: Mapping[str, Any], name: str) -> int | None:
    if not name or arrays.get(name) is None:
        return None
    value = np.asarray(arrays[name])
    if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
        raise ValueError(f"its {name} is no number")
    return round(float(value.reshape(-1)[0]))
