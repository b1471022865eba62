"""A small file of features in each format, written as its own writer writes it.

``python -m parity_tests.data.feature_files`` writes those that are kept in ``fixtures/features/``.
"""

from __future__ import annotations

import base64
import csv
import json
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import lmdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import save_file

from lxmert_export.data.features.converting import convert_features
from lxmert_export.data.features.opening import open_features

KEPT = Path(__file__).parent.parent / "fixtures" / "features"
WIDTH = 8  # of the features; 2048 in real files


@dataclass(frozen=True)
class Detected:
    """What a detector found in one picture: features float32 [objects, width], boxes float32 [objects, 4] in pixels."""

    id: str
    width: int
    height: int
    features: NDArray[np.float32]
    boxes: NDArray[np.float32]

    @property
    def shares(self) -> NDArray[np.float32]:
        """The boxes as shares of the picture's size."""
        return self.boxes / np.array([self.width, self.height] * 2, np.float32)


def detected(
    count: int = 3, *, objects: Sequence[int] = (2, 3, 4), width: int = WIDTH, seed: int = 0
) -> list[Detected]:
    """Returns pictures of COCO's names. Their features are not negative, as those of a detector."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        many, size = objects[number % len(objects)], (640, 480) if number % 2 else (375, 500)
        corners = np.sort(random.random((many, 2, 2), np.float32), axis=1)  # [objects, begin and end, x and y]
        corners[0] = (0, 0), (1, 1)  # one object fills the picture
        boxes = (corners.reshape(many, 4) * np.array(size * 2, np.float32)).astype(np.float32)
        id = f"COCO_val2014_{262144 + number * 4:012d}"
        found.append(Detected(id, *size, np.abs(random.normal(size=(many, width))).astype(np.float32), boxes))
    return found


def airsplay_tsv(folder: Path, pictures: Sequence[Detected]) -> Path:
    """airsplay/lxmert: ``src/utils.py`` names the fields. Classes and attributes are int64, their scores float32."""
    rows = (
        (
            one.id, one.height, one.width, _text(np.arange(len(one.boxes))), _text(np.ones(len(one.boxes), np.float32)),
            _text(np.arange(len(one.boxes))), _text(np.ones(len(one.boxes), np.float32)), len(one.boxes), _text(one.boxes),
            _text(one.features),
        )
        for one in pictures
    )  # fmt: skip
    return _tsv(folder / "val2014_obj36.tsv", rows)


def bottom_up_tsv(folder: Path, pictures: Sequence[Detected]) -> Path:
    """peteanderson80/bottom-up-attention, ``tools/generate_tsv.py``: the width comes first, ids are numbers."""
    rows = (
        (int(one.id[-12:]), one.width, one.height, len(one.boxes), _text(one.boxes), _text(one.features))
        for one in pictures
    )
    return _tsv(folder / "karpathy_val.tsv", rows)


def milvlg_npz(folder: Path, pictures: Sequence[Detected]) -> Path:
    """MILVLG/bottom-up-attention.pytorch, ``utils/extract_utils.py``: compressed, with a pickled dictionary."""
    for one in pictures:
        count = len(one.boxes)
        info = {
            "image_id": one.id,
            "image_h": one.height,
            "image_w": one.width,
            "num_boxes": count,
            "objects_id": np.arange(count),
        }
        np.savez_compressed(
            folder / f"{one.id}.npz", x=one.features, bbox=one.boxes, num_bbox=count, image_h=one.height, image_w=one.width,
            info=info,  # type: ignore[arg-type]
        )  # fmt: skip
    return folder


def openvqa_npz(folder: Path, pictures: Sequence[Detected]) -> Path:
    """MILVLG/openvqa reads these: an object's features in a column, the picture's suffix in the name, no dictionary."""
    for one in pictures:
        arrays = {"x": one.features.T, "bbox": one.boxes, "num_bbox": len(one.boxes)}
        np.savez(folder / f"{one.id}.jpg.npz", image_h=one.height, image_w=one.width, **arrays)  # type: ignore[arg-type]
    return folder


def frcnn_npz(folder: Path, pictures: Sequence[Detected]) -> Path:
    """Hugging Face's LXMERT demo, ``modeling_frcnn.py``: one picture, padded with zeros to the most detections."""
    for one in pictures:
        np.savez(folder / f"{one.id}.npz", **_frcnn(one))  # type: ignore[arg-type]
    return folder


def frcnn_safetensors(folder: Path, pictures: Sequence[Detected]) -> Path:
    """The same output, in safetensors."""
    for one in pictures:
        save_file(_frcnn(one), folder / f"{one.id}.safetensors")
    return folder


def mmf_npy(folder: Path, pictures: Sequence[Detected]) -> Path:
    """MMF, ``tools/scripts/features/extract_features_vmb.py``: two arrays a picture, the second a pickled dictionary."""
    for one in pictures:
        np.save(folder / f"{one.id}.npy", one.features)
        info = {"bbox": one.boxes, "num_boxes": len(one.boxes), "image_height": one.height, "image_width": one.width}
        np.save(folder / f"{one.id}_info.npy", {**info, "objects": np.arange(len(one.boxes)), "cls_prob": None})  # type: ignore[arg-type]
    return folder


def mmf_lmdb(folder: Path, pictures: Sequence[Detected]) -> Path:
    """MMF, ``tools/scripts/features/lmdb_conversion.py``."""
    return lmdb_of(
        folder / "detectron.lmdb",
        {
            one.id: {
                "feature_path": one.id, "features": one.features, "image_height": one.height, "image_width": one.width,
                "num_boxes": len(one.boxes), "objects": np.arange(len(one.boxes)), "cls_prob": None, "bbox": one.boxes,
            }
            for one in pictures
        },
    )  # fmt: skip


def lmdb_of(path: Path, values: Mapping[str, Any]) -> Path:
    """Writes pickled values under ids, and the list of ids."""
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for id, value in values.items():
            transaction.put(id.encode(), pickle.dumps(value))
        transaction.put(b"keys", pickle.dumps([id.encode() for id in values]))
    (path / "lock.mdb").unlink()
    return path


def gqa_hdf5(folder: Path, pictures: Sequence[Detected]) -> Path:
    """GQA's download: rows padded to 100 objects, spread over several files, and a list in JSON."""
    info = {}
    for number, part in enumerate((pictures[:2], pictures[2:])):
        width = part[0].features.shape[1]
        features, boxes = np.zeros((len(part), 100, width), np.float32), np.zeros((len(part), 100, 4), np.float32)
        for row, one in enumerate(part):
            features[row, : len(one.boxes)], boxes[row, : len(one.boxes)] = one.features, one.boxes
            place = {"width": one.width, "height": one.height, "objectsNum": len(one.boxes), "idx": row, "file": number}
            info[one.id] = place
        with h5py.File(folder / f"gqa_objects_{number}.h5", "w") as file:
            file.create_dataset("features", data=features, compression="gzip")
            file.create_dataset("bboxes", data=boxes, compression="gzip")
    (folder / "gqa_objects_info.json").write_text(json.dumps(info))
    return folder


def hf_arrow(folder: Path, pictures: Sequence[Detected]) -> Path:
    """Hugging Face's LXMERT demo, ``extracting_data.py``: an ArrowWriter of datasets, whose Array2D is a list of lists."""
    most, width = max(len(one.boxes) for one in pictures), pictures[0].features.shape[1]
    storage = {name: pa.list_(pa.list_(pa.float32())) for name in ("boxes", "roi_features")}
    columns = {
        "boxes": pa.array([_padded(one.boxes, most).tolist() for one in pictures], storage["boxes"]),
        "img_id": pa.array([one.id for one in pictures]),
        "roi_features": pa.array([_padded(one.features, most).tolist() for one in pictures], storage["roi_features"]),
        "sizes": pa.array([[one.height, one.width] for one in pictures], pa.list_(pa.float32(), 2)),
        "preds_per_image": pa.array([len(one.boxes) for one in pictures], pa.int32()),
    }
    kinds = {"boxes": ([most, 4], "float32"), "roi_features": ([most, width], "float32")}
    fields = [
        pa.field(
            name,
            column.type,
            metadata={
                "ARROW:extension:name": "datasets.features.features.Array2DExtensionType",
                "ARROW:extension:metadata": json.dumps(kinds[name]),
            }
            if name in kinds
            else None,
        )
        for name, column in columns.items()
    ]
    table = pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields))
    path = folder / "features.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def _frcnn(one: Detected) -> dict[str, NDArray[Any]]:
    """What the demo's network returns for one picture, padded to one object more than it found."""
    most = len(one.boxes) + 1
    return {
        "boxes": _padded(one.boxes, most)[None],
        "normalized_boxes": _padded(one.shares, most)[None],
        "roi_features": _padded(one.features, most)[None],
        "sizes": np.array([[one.height, one.width]], np.float32),
        "preds_per_image": np.array([len(one.boxes)], np.int64),
    }


def _padded(array: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    return np.pad(array, [(0, most - len(array)), (0, 0)])


def _tsv(path: Path, rows: object) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return path


def _text(array: NDArray[np.generic]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


FORMATS: Mapping[str, Callable[[Path, Sequence[Detected]], Path]] = {
    "airsplay-tsv": airsplay_tsv,
    "bottom-up-tsv": bottom_up_tsv,
    "milvlg-npz": milvlg_npz,
    "frcnn-npz": frcnn_npz,
    "frcnn-safetensors": frcnn_safetensors,
    "mmf-npy": mmf_npy,
    "mmf-lmdb": mmf_lmdb,
    "gqa-hdf5": gqa_hdf5,
    "hf-arrow": hf_arrow,
}


def lxmert_export(folder: Path, pictures: Sequence[Detected]) -> Path:
    """What ``features convert`` writes."""
    with open_features(airsplay_tsv(folder, pictures), index_cache=folder) as source:
        convert_features(source, folder / "features")
    return folder / "features"


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        shutil.copytree(lxmert_export(Path(temporary), detected()), KEPT / "lxmert-export", dirs_exist_ok=True)
    for name, write in FORMATS.items():
        folder = KEPT / name
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, detected())
