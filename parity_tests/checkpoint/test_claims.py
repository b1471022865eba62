"""Files that claim more than they hold are refused before anything of that size is allocated."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipFile

import h5py
import numpy as np
import pytest
import torch

from lxmert_export.checkpoint import archives
from lxmert_export.checkpoint.files import read_weights
from lxmert_export.errors import CheckpointError, InputError
from lxmert_export.files import hdf5_files, json_files, limits, zip_archives
from lxmert_export.files.array_files import read_arrays, read_batches
from lxmert_export.files.beside_weights import Companions
from lxmert_export.tokenizer import files
from lxmert_export.tokenizer.opening import load_tokenizer

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_hdf5_weights_that_were_never_written(compression: str | None, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file.create_dataset(
            "layer/kernel:0", shape=(10**6, 10**6), chunks=(1000, 1000), dtype="f4", compression=compression
        )
    with pytest.raises(CheckpointError, match=r"claims 4000000000000 bytes of weights and has \d+; write it again"):
        read_weights(tmp_path / "tf_model.h5")


def test_hdf5_named_types_are_passed_over_and_empty_datasets_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file["type"] = np.dtype("f4")
        file["layer/kernel:0"] = np.zeros(3, np.float32)
    assert list(read_weights(tmp_path / "tf_model.h5").tensors) == ["kernel"]
    with h5py.File(tmp_path / "tf_model.h5", "a") as file:
        file["layer/bias:0"] = h5py.Empty("f4")
    with pytest.raises(CheckpointError, match="bias:0 is an empty dataset"):
        read_weights(tmp_path / "tf_model.h5")


def test_hdf5_that_names_a_driver_of_four_gigabytes(tmp_path: Path) -> None:
    """HDF5 allocates what the block claims before it looks whether the file is as long."""
    file = tmp_path / "tf_model.h5"
    with h5py.File(file, "w") as opened:
        opened["layer/kernel:0"] = np.zeros(3, np.float32)
    content = bytearray(file.read_bytes())
    assert content[48:56] == b"\xff" * 8  # where the address of the driver's block is, if there is one
    content[48:56] = struct.pack("<Q", len(content))
    file.write_bytes(bytes(content) + b"\0\0\0\0" + struct.pack("<I", 4 * 10**9) + b"NCSAfami")
    with pytest.raises(CheckpointError, match="names a driver for files in several parts"):
        read_weights(file)


def header(shape: str, descr: str = "'<f4'") -> bytes:
    """The start of a ``.npy`` file, version 1.0."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("shape", "saying"),
    [
        ("(1000000000000,)", r"claims \(1000000000000,\) and has 144 bytes"),
        ("(-1,)", "cannot be read as inputs"),
        ("'x'", "cannot be read as inputs"),
        ("(" * 60, "cannot be read as inputs"),
    ],
)
def test_an_array_that_claims_more_than_its_member_has(shape: str, saying: str, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "it.npz", "w") as archive:
        archive.writestr("input_ids.npy", header(shape) + bytes(16))
    with pytest.raises(InputError, match=saying) as caught:
        read_arrays(tmp_path / "it.npz", "inputs")
    assert "\n" not in str(caught.value)
    stored = {"polygraphy_class": "ndarray", "array": base64.b64encode(header(shape) + bytes(16)).decode()}
    (tmp_path / "it.json").write_text(json.dumps([{"input_ids": stored}]))
    with pytest.raises(InputError, match="cannot be read as inputs"):
        read_batches(tmp_path / "it.json", "inputs")


def test_an_archive_that_inflates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ALWAYS_ALLOWED", 1_000_000)
    np.savez_compressed(tmp_path / "it.npz", zeros=np.zeros(10**6, np.float32))
    with pytest.raises(InputError, match=r"would inflate from \d+ to 4000128 bytes"):
        read_arrays(tmp_path / "it.npz", "inputs")


def test_members_that_are_no_arrays_do_not_matter(tmp_path: Path) -> None:
    np.savez(tmp_path / "it.npz", it=np.arange(3))
    with ZipFile(tmp_path / "it.npz", "a") as archive:
        archive.writestr("folder/", b"")
    assert np.array_equal(read_arrays(tmp_path / "it.npz", "inputs")["it"], np.arange(3))


@pytest.mark.parametrize("kind", [ZIP_STORED, ZIP_DEFLATED, ZIP_LZMA])
def test_arrays_of_any_compression_are_read(kind: int, tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.arange(6.0).reshape(2, 3))
    with ZipFile(tmp_path / "it.npz", "w", kind) as archive:
        archive.writestr("it.npy", array.getvalue())
    assert np.array_equal(read_arrays(tmp_path / "it.npz", "inputs")["it"], np.arange(6.0).reshape(2, 3))


def test_a_header_of_a_million_tensors_is_not_parsed(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", limits.LARGEST_SAFETENSORS_HEADER + 1) + b'{"a":')
        file.truncate(limits.LARGEST_SAFETENSORS_HEADER + 9)
    with pytest.raises(CheckpointError, match="its header claims more than 8000000 bytes"):
        read_weights(tmp_path / "model.safetensors")


def test_dictionaries_that_are_nested_too_deep(tmp_path: Path) -> None:
    inner: dict[str, object] = {"weight": torch.zeros(2)}
    for _ in range(limits.MOST_NESTED_DICTIONARIES):
        inner = {"a": inner}
    torch.save(inner, tmp_path / "model.pth")
    assert len(read_weights(tmp_path / "model.pth").tensors) == 1
    torch.save({"a": inner}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="dictionaries are nested more than 50 deep"):
        read_weights(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "labels.json"])
def test_what_lies_beside_weights_is_no_larger_than_such_files_are(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(limits.LARGEST_COMPANION + 1)
    with pytest.raises(CheckpointError, match=rf"{name}: .*has 64000001 bytes"):
        Companions.beside(tmp_path / "model.safetensors", 3)
    if name != "labels.json":
        with pytest.raises(CheckpointError, match=rf"{name}: .*has 64000001 bytes"):
            load_tokenizer(tmp_path)


@pytest.mark.parametrize("force_zip64", [False, True])
def test_an_archive_of_more_members_than_such_files_have(
    force_zip64: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300,000 members took 17 s; the directory tells how many there are."""
    if force_zip64:
        monkeypatch.setattr("zipfile.ZIP_FILECOUNT_LIMIT", 5)
    with ZipFile(tmp_path / "it.npz", "w") as archive:
        for number in range(30):
            archive.writestr(f"{number:02}.npy", header("(4,)") + bytes(16))
    assert (b"PK\6\7" in (tmp_path / "it.npz").read_bytes()) == force_zip64
    assert len(read_arrays(tmp_path / "it.npz", "inputs")) == 30
    (tmp_path / "it.pth").write_bytes((tmp_path / "it.npz").read_bytes())
    monkeypatch.setattr(zip_archives, "LARGEST_ZIP_DIRECTORY", 30 * (46 + 6) - 1)
    told = "lists its members in 1560 bytes, more than the 1559 that such a file may have"
    with pytest.raises(InputError, match=told):
        read_arrays(tmp_path / "it.npz", "inputs")
    with pytest.raises(CheckpointError, match=told):
        read_weights(tmp_path / "it.pth")


def test_hdf5_of_more_groups_than_weights_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200,000 groups took 34 s."""
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        for number in range(5):
            file[f"layer/{number}/kernel:0"] = np.zeros(3, np.float32)
    monkeypatch.setattr(hdf5_files, "MOST_HDF5_OBJECTS", 11)
    assert len(read_weights(tmp_path / "tf_model.h5").tensors) == 5
    monkeypatch.setattr(hdf5_files, "MOST_HDF5_OBJECTS", 10)
    with pytest.raises(CheckpointError, match="holds more than 10 groups and datasets"):
        read_weights(tmp_path / "tf_model.h5")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_is_larger_than_that_of_weights(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte of a pickle can stand for a dictionary: ten million of them took 18 s and 700 MB."""
    file = tmp_path / "BEST.pth"
    torch.save({f"bert.{n}": torch.full((3,), n) for n in range(99)}, file, _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_weights(file).tensors["bert.98"], torch.full((3,), 98))
    monkeypatch.setattr(archives, "LARGEST_PICKLE", 4000)
    with pytest.raises(CheckpointError, match=r"names its tensors in at least \d+ bytes, more than the 4000 that"):
        read_weights(file)


def test_json_of_more_values_than_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bytes of JSON can stand for a list: twenty million of them took 13 s and 1.5 GB."""
    monkeypatch.setattr(json_files, "MOST_JSON_VALUES", 10)
    assert json_files.parse_json('{"a": [[], [], {}, [1, 2]]}') == {"a": [[], [], {}, [1, 2]]}
    (tmp_path / "it.json").write_text('[{"a": 1}, {"b": 2}, {"c": 3}, {"d": 4}]')
    with pytest.raises(ValueError, match="holds up to 11 values, more than the 10 that such a file may have"):
        json_files.parse_json('{"a": [[], [], {}, [1, 2, 3]]}')
    with pytest.raises(InputError, match=r"inputs: it is not a list|is not a numpy array"):
        read_batches(tmp_path / "it.json", "inputs")
    monkeypatch.setattr(json_files, "MOST_JSON_VALUES", 7)
    with pytest.raises(InputError, match="holds up to 8 values"):
        read_batches(tmp_path / "it.json", "inputs")


def test_a_vocabulary_of_more_words_than_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_WORDS", 6)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a")
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    assert len(load_tokenizer(tmp_path)) == 6
    (tmp_path / "vocab.txt").write_text("\n".join((*words, "b")) + "\n")
    with pytest.raises(CheckpointError, match="has 7 lines, more than the 6 that a vocabulary may have"):
        load_tokenizer(tmp_path)
