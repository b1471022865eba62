"""Bad files of features: each is one line with the file, the place and the picture, and how to mend it."""

from __future__ import annotations

import base64
import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lxmert_export.data.features.inspecting import inspect_features
from lxmert_export.data.features.opening import open_features
from lxmert_export.data.features.tsv_index import MOST_FAULTS
from lxmert_export.errors import InputError
from parity_tests.data.feature_files import (
    airsplay_tsv,
    bottom_up_tsv,
    detected,
    gqa_hdf5,
    lmdb_of,
    milvlg_npz,
    mmf_lmdb,
    mmf_npy,
)
from parity_tests.fixtures.command import refused, run

pytestmark = pytest.mark.quick

SECOND = "picture COCO_val2014_000000262148"


def read_all(path: Path) -> None:
    with open_features(path) as opened:
        for id in opened.ids:
            opened.read(id)


def changed_rows(folder: Path, change: Callable[[list[bytes]], None]) -> Path:
    """A TSV of airsplay whose rows were changed."""
    path = airsplay_tsv(folder, detected(20))
    rows = path.read_bytes().splitlines(keepends=True)
    change(rows)
    path.write_bytes(b"".join(rows))
    return path


def field(row: bytes, number: int, value: bytes) -> bytes:
    fields = row.split(b"\t")
    fields[number] = value
    return b"\t".join(fields)


def cut_last(rows: list[bytes]) -> None:
    rows[-1] = rows[-1][:-30]


def cut_second(rows: list[bytes]) -> None:
    rows[1] = rows[1][:40] + b"\n"


def cut_and_went_on(rows: list[bytes]) -> None:
    rows[1] = rows[1][:-30]


def other_width(rows: list[bytes]) -> None:
    wider = np.ones((3, 9), np.float32)
    rows[1] = field(rows[1], 9, base64.b64encode(wider.tobytes()) + b"\n")


def not_utf8(rows: list[bytes]) -> None:
    rows[1] = field(rows[1], 0, b"caf\xe9")


def empty_id(rows: list[bytes]) -> None:
    rows[5] = field(rows[5], 0, b"")


def blank_id(rows: list[bytes]) -> None:
    rows[5] = field(rows[5], 0, b" ")


def same_id(rows: list[bytes]) -> None:
    rows[3] = field(rows[3], 0, rows[1].split(b"\t")[0])


def no_base64(rows: list[bytes]) -> None:
    text = rows[1].split(b"\t")[9]
    rows[1] = field(rows[1], 9, b"!" + text[1:])


def no_number(rows: list[bytes]) -> None:
    rows[1] = field(rows[1], 7, b"many")


def byte_order_mark(rows: list[bytes]) -> None:
    rows[0] = b"\xef\xbb\xbf" + rows[0]


TSV = {
    "cut in the last row": (cut_last, "row 20, picture COCO_val2014_000000262220: .*cut"),
    "cut in a row": (cut_second, f"row 2, {SECOND}: has 4 fields instead of 10: it is cut"),
    "cut, and the next row begins in its middle": (cut_and_went_on, f"row 2, {SECOND}: .*19 fields|row 2, {SECOND}: .*cut"),
    "of another width": (other_width, f"row 2, {SECOND}: its features are 9 wide, those of the rows before it 8"),
    "an id that is not UTF-8": (not_utf8, "row 2: its id is not UTF-8"),
    "an empty id": (empty_id, "row 6: its id is empty"),
    "an id of white space": (blank_id, "row 6: its id is empty"),
    "an id twice with other content": (same_id, f"row 4, {SECOND}: has the id of row 2, and other content"),
    "no base64": (no_base64, f"row 2, {SECOND}: "),
    "no number of objects": (no_number, f"row 2, {SECOND}: its num_boxes is 'many'"),
    "a byte order mark": (byte_order_mark, "row 1, .*byte order mark"),
}  # fmt: skip


@pytest.mark.parametrize("name", TSV)
def test_a_bad_row_is_told_with_its_number_and_id(name: str, tmp_path: Path) -> None:
    change, saying = TSV[name]
    path = changed_rows(tmp_path, change)
    with pytest.raises(InputError, match=saying) as told:
        read_all(path)
    assert str(told.value).startswith(f"{path}: row ")
    assert any(str(path) in fault and "row " in fault for fault in inspect_features(path).faults)


def crlf(rows: list[bytes]) -> None:
    rows[:] = [row.replace(b"\n", b"\r\n") for row in rows]


def exact_copy(rows: list[bytes]) -> None:
    rows.append(rows[1])


def no_last_line_end(rows: list[bytes]) -> None:
    rows[-1] = rows[-1].rstrip(b"\n")


def python_bytes(rows: list[bytes]) -> None:
    text = rows[1].split(b"\t")[9].strip()
    rows[1] = field(rows[1], 9, b"b'" + text + b"'\n")


HARMLESS = {
    "CRLF": (crlf, "CRLF"),
    "an exact copy": (exact_copy, "1 rows are exact copies"),
    "no line end at the end": (no_last_line_end, "the last line has no end"),
    "base64 as Python writes bytes": (python_bytes, ""),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_read_and_noted(name: str, tmp_path: Path) -> None:
    change, note = HARMLESS[name]
    path = changed_rows(tmp_path, change)
    with open_features(path) as opened:
        assert list(opened.ids) == [one.id for one in detected(20)]
        for id, one in zip(opened.ids, detected(20), strict=True):
            assert np.array_equal(opened.read(id).features, one.features)
        assert any(note in one for one in opened.file.notes) or not note


EMPTY_OR_OTHER: dict[str, tuple[bytes, str]] = {
    "0 bytes": (b"", "is empty"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "text": (b"some notes\n", "row 1 has 1 fields; the rows of a feature file have 10 or 6"),
    "UTF-16": (("a\tb\n" * 30).encode("utf-16"), "row 1 has 2 fields"),
    "parquet": (b"PAR1rest", "parquet"),
    "a bare pickle": (pickle.dumps({"a": 1}), "bare pickle"),
    "gzip": (b"\x1f\x8brest", "gzip"),
    "a damaged archive": (b"PK\x03\x04rest", "cannot be read"),
    "a damaged array": (b"\x93NUMPY\x01\x00rest", "cannot be read"),
    "damaged HDF5": (b"\x89HDF\r\n\x1a\nrest", "gqa_objects_info.json"),
    "damaged arrow": (b"\xff\xff\xff\xffrest", "damaged"),
    "a row without end": (b"\t" * (1 << 26) + b"x" * 9, "row of more than"),
}  # fmt: skip


@pytest.mark.parametrize("name", EMPTY_OR_OTHER)
def test_a_file_of_something_else_is_one_line(name: str, tmp_path: Path) -> None:
    content, saying = EMPTY_OR_OTHER[name]
    (tmp_path / "file").write_bytes(content)
    refused(run("features", "inspect", "file", cwd=tmp_path), saying)


def test_a_path_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    refused(run("features", "inspect", "gone", cwd=tmp_path), "gone: no such file")
    (tmp_path / "empty").mkdir()
    refused(run("features", "inspect", "empty", cwd=tmp_path), "holds no file of features")


def test_the_command_says_what_a_file_is_and_fails_if_a_picture_cannot_be_used(tmp_path: Path) -> None:
    pictures = detected(20)
    path = airsplay_tsv(tmp_path, pictures)
    done = run("features", "inspect", path.name, cwd=tmp_path)
    assert done.returncode == 0
    assert "airsplay-tsv" in done.stdout and "2 to 4 a picture" in done.stdout and "pixels" in done.stdout
    pictures[1] = dataclasses.replace(pictures[1], features=pictures[1].features * np.nan)
    airsplay_tsv(tmp_path, pictures)
    done = run("features", "inspect", path.name, "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert f"1 of its pictures cannot be used, the first: {path.name}: row 2, {SECOND}" in done.stderr


def test_all_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    """Of very many, the index keeps the first."""
    path = airsplay_tsv(tmp_path, detected(1))
    row = path.read_bytes()
    count = MOST_FAULTS + 20
    path.write_bytes(row + b"".join(field(row, 0, b"picture%d" % number)[:-30] + b"\n" for number in range(count)))
    assert inspect_features(path).fault_count == count
    with pytest.raises(InputError, match=rf"^.*: row 2, picture picture0: .* \(and {count - 1} more"):
        open_features(path)
    airsplay_tsv(tmp_path, detected(3)).rename(tmp_path / "a.tsv")
    path.write_bytes(row + b"".join(field(row, 0, b"picture%d" % number)[:-30] + b"\n" for number in range(count)))
    assert inspect_features(tmp_path).fault_count == count


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trace}",)


def hostile_npz(folder: Path, bad: Hostile) -> Path:
    path = milvlg_npz(folder, detected()) / f"{detected()[1].id}.npz"
    one = detected()[1]
    np.savez(path, x=one.features, bbox=one.boxes, info=np.array(bad, dtype=object))
    return folder


def hostile_npy(folder: Path, bad: Hostile) -> Path:
    mmf_npy(folder, detected())
    np.save(folder / f"{detected()[1].id}_info.npy", np.array({"bbox": bad}, dtype=object))
    return folder


def hostile_lmdb(folder: Path, bad: Hostile) -> Path:
    one = detected()[0]
    good = {"features": one.features, "bbox": one.boxes, "image_width": one.width, "image_height": one.height}
    return lmdb_of(folder / "x.lmdb", {one.id: good, detected()[1].id: {"features": bad}})


@pytest.mark.parametrize("write", [hostile_npz, hostile_npy, hostile_lmdb])
def test_a_hostile_pickle_is_refused_and_named_and_does_not_run(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    path = write(folder, Hostile(tmp_path / "trace"))
    with pytest.raises(InputError, match="COCO_val2014_000000262148: .*system: only numbers, texts"):
        read_all(path)
    assert inspect_features(path).fault_count == 1
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(("names", "program"), [
    (("features", "boxes", "image_h", "image_w"), "vilbert-multi-task"),
    (("features", "boxes", "img_h", "img_w"), "volta"),
    (("something",), "no program that is known"),
])  # fmt: skip
def test_lmdb_of_another_program_is_named(names: tuple[str, ...], program: str, tmp_path: Path) -> None:
    path = lmdb_of(tmp_path / "x.lmdb", {"1": dict.fromkeys(names, 1)})
    with pytest.raises(InputError, match=f"LMDB file of {program}.*only MMF's are read"):
        open_features(path)


def test_a_cut_lmdb_file_is_told_before_it_is_opened(tmp_path: Path) -> None:
    path = mmf_lmdb(tmp_path, detected(20))
    data = path / "data.mdb"
    data.write_bytes(data.read_bytes()[:-4096])
    with pytest.raises(InputError, match="is cut"):
        open_features(path)


def test_hdf5_needs_its_list_and_the_list_its_files(tmp_path: Path) -> None:
    path = gqa_hdf5(tmp_path, detected())
    (tmp_path / "gqa_objects_1.h5").rename(tmp_path / "aside")
    with pytest.raises(InputError, match="picture COCO_val2014_000000262152: is in gqa_objects_1.h5, which is missing"):
        open_features(path)
    with open_features(tmp_path / "gqa_objects_0.h5") as one:
        assert len(one.ids) == 2
    (tmp_path / "gqa_objects_info.json").unlink()
    with pytest.raises(InputError, match="needs gqa_objects_info.json beside it"):
        open_features(tmp_path / "gqa_objects_0.h5")


def test_an_hdf5_file_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    path = gqa_hdf5(tmp_path, detected())
    with h5py.File(tmp_path / "gqa_objects_0.h5", "a") as file:
        del file["bboxes"]
        file["bboxes"] = h5py.ExternalLink("gqa_objects_1.h5", "/bboxes")
    with pytest.raises(InputError, match="holds a link"):
        open_features(path)


def test_a_directory_of_mixed_widths_names_the_file(tmp_path: Path) -> None:
    milvlg_npz(tmp_path, detected(2))
    milvlg_npz(tmp_path, detected(3, width=9)[2:])
    with pytest.raises(InputError, match=r"262152.npz, picture COCO_val2014_000000262152: its features are 9 wide.* 8"):
        read_all(tmp_path)


def test_directories_of_mixed_kinds_are_told(tmp_path: Path) -> None:
    milvlg_npz(tmp_path, detected(2))
    mmf_npy(tmp_path, detected(3)[2:])
    with pytest.raises(InputError, match="several kinds"):
        open_features(tmp_path)


def test_ids_are_texts_whatever_the_file_holds(tmp_path: Path) -> None:
    with open_features(bottom_up_tsv(tmp_path, detected())) as opened:
        assert list(opened.ids) == ["262144", "262148", "262152"]
        with pytest.raises(InputError, match="holds no picture '7'; its 3 pictures are 262144, 262148, 262152"):
            opened.read("7")


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = airsplay_tsv(tmp_path, detected())
    with open_features(path) as opened:
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(InputError, match="has changed while it was read"):
            opened.read(opened.ids[0])
