"""Files that are made to take much time or memory, each of a few kilobytes to some megabytes, or sparse."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import h5py
import numpy as np
import onnx
import torch

from benchmarks.trust.samples import CONFIG, WEIGHTS, Samples
from parity_tests.fixtures.manifests import edit_manifest, list_files

CHECKPOINT, TOKENIZER, ARTIFACT, INPUTS, REPORT, PICTURE = (
    "checkpoint",
    "tokenizer",
    "artifact",
    "inputs",
    "report",
    "picture",
)
INDEX = "pytorch_model.bin.index.json"
PROGRAMS = {
    "onnx": "model.onnx",
    "saved-model": "saved_model/saved_model.pb",
    "keras": "model.keras",
    "tflite": "model.tflite",
}
MILLION, SPARSE, DEEP = 10**6, 2 * 10**9, 100_000
Make = Callable[
    [Samples, Path], Path
]  # fills a directory with a copy of a sample, one file of it hostile; returns what to name


def _with_file(sample: str, name: str, content: Callable[[], bytes]) -> Make:
    def make(samples: Samples, directory: Path) -> Path:
        shutil.copytree(samples.directory(sample), directory)
        (directory / name).write_bytes(content())
        return directory

    return make


def _sparse(sample: str, name: str) -> Make:
    """Two gigabytes that take no room on the disk."""

    def make(samples: Samples, directory: Path) -> Path:
        shutil.copytree(samples.directory(sample), directory)
        with (directory / name).open("wb") as file:
            file.truncate(SPARSE)
        return directory

    return make


def _sealed(sample: str, name: str, content: Callable[[], bytes]) -> Make:
    """A file of an artifact, with hashes that fit."""

    def make(samples: Samples, directory: Path) -> Path:
        _with_file(sample, name, content)(samples, directory)
        list_files(directory, name)
        return directory

    return make


def _safetensors(header: Callable[[], str], data: int = 0) -> Callable[[], bytes]:
    def content() -> bytes:
        text = header().encode()
        return struct.pack("<Q", len(text)) + text + bytes(data)

    return content


def _empty_tensors(count: int = MILLION) -> str:
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return "{" + ",".join(f'"t{number}":{entry}' for number in range(count)) + "}"


def _large_tensor() -> str:
    return '{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}'


def _many_shards() -> bytes:
    return json.dumps({"weight_map": {f"t{number}": f"s{number}" for number in range(MILLION)}}).encode()


def _many_values() -> bytes:
    return b"[" + b"[]," * (20 * MILLION) + b"[]]"


def _short_words() -> bytes:
    letters = [chr(code) for code in range(33, 127)]
    return "".join(f"{a}{b}{c}{d}\n" for a in letters[:14] for b in letters for c in letters for d in letters).encode()


def _many_words() -> bytes:
    return "".join(f"w{number}\n" for number in range(MILLION)).encode()


def _repeated_keys() -> str:
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return "{" + ",".join(f'"t{number % 1000}":{entry}' for number in range(MILLION)) + "}"


def _config(**changes: Any) -> Callable[[], bytes]:
    return lambda: json.dumps({**CONFIG.to_dict(), **changes}).encode()


def _archive(tensors: object) -> bytes:
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


def _with_pickle(content: bytes, compression: int = ZIP_STORED) -> bytes:
    """An archive of PyTorch's with another pickle in it."""
    stream = io.BytesIO()
    with ZipFile(io.BytesIO(_archive({"x": torch.zeros(1)}))) as valid, ZipFile(stream, "w", compression) as archive:
        for member in valid.infolist():
            archive.writestr(member.filename, content if member.filename.endswith("data.pkl") else valid.read(member))
    return stream.getvalue()


def _doubling() -> bytes:
    """Dictionaries of which each holds the one before twice: 2^60 leaves in a kilobyte."""
    inner: dict[str, Any] = {}
    for _ in range(60):
        inner = {"a": inner, "b": inner}
    return pickle.dumps(inner, protocol=2)


def _deep_pickle() -> bytes:
    return b"\x80\x02" + b"}U\x01a" * MILLION + b"}" + b"s" * MILLION + b"."


def _many_dictionaries() -> bytes:
    return pickle.dumps({number: {} for number in range(MILLION)}, protocol=2)


def _bytes_of_dictionaries() -> bytes:
    """A list of ten million empty dictionaries, of one byte each."""
    return b"\x80\x02(" + b"}" * (10 * MILLION) + b"l."


def _many_members() -> bytes:
    stream = io.BytesIO()
    with ZipFile(stream, "w") as archive:
        for number in range(300_000):
            archive.writestr(f"a{number}.npy", b"")
    return stream.getvalue()


def _endless_string() -> bytes:
    return b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x."


def _large_claim() -> bytes:
    return _archive({"bert.x": torch.zeros(1).expand(MILLION, MILLION)})


def _hdf5(fill: Callable[[h5py.File], None]) -> Callable[[], bytes]:
    def content() -> bytes:
        stream = io.BytesIO()
        with h5py.File(stream, "w") as file:
            fill(file)
        return stream.getvalue()

    return content


def _never_written(file: h5py.File) -> None:
    file.create_dataset("layer/kernel:0", shape=(MILLION, MILLION), chunks=(1000, 1000), dtype="f4", compression="gzip")


def _inflating(file: h5py.File) -> None:
    file.create_dataset("layer/kernel:0", data=np.zeros((1000, 100_000), "f4"), chunks=(1000, 1000), compression="gzip")


def _groups(count: int) -> Callable[[h5py.File], None]:
    def fill(file: h5py.File) -> None:
        for number in range(count):
            file.create_group(f"g{number}")

    return fill


def _driver() -> bytes:
    content = bytearray(_hdf5(_groups(1))())
    content[48:56] = struct.pack("<Q", len(content))
    return bytes(content) + b"\0\0\0\0" + struct.pack("<I", 4 * 10**9) + b"NCSAfami"


def _npz(array: bytes, compression: int = ZIP_STORED) -> Callable[[], bytes]:
    def content() -> bytes:
        stream = io.BytesIO()
        with ZipFile(stream, "w", compression) as archive:
            archive.writestr("input_ids.npy", array)
        return stream.getvalue()

    return content


def _npy(shape: str, data: int) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(data)


def _many_files(samples: Samples, directory: Path) -> Path:
    shutil.copytree(samples.directory("onnx"), directory)
    edit_manifest(directory, files={f"f{number}": {"sha256": "0" * 64, "bytes": 1} for number in range(100_000)})
    return directory


def _nested_graphs() -> bytes:
    """A node whose attribute is a graph with a node whose attribute is a graph, and so on."""
    content = b""
    for _ in range(20_000):
        attribute = _field(6, content)
        content = _field(1, _field(5, attribute))
    return _field(7, content)


def _many_nodes(path: tuple[int, ...], operator: int) -> Callable[[], bytes]:
    """Two million nodes, which stand in the messages that the field numbers lead to, with nothing but an operator."""

    def content() -> bytes:
        *outer, number = path
        found = _field(number, _field(operator, b"Add")) * (2 * MILLION)
        for field in reversed(outer):
            found = _field(field, found)
        return found

    return content


def _nested_messages() -> bytes:
    """Fields 2 in fields 2: what a SavedModel's reader goes down."""
    content = b""
    for _ in range(20_000):
        content = _field(2, content)
    return content


def _field(number: int, content: bytes) -> bytes:
    length, rest = b"", len(content)
    while True:
        length += bytes([rest & 0x7F | (0x80 if rest > 0x7F else 0)])
        rest >>= 7
        if not rest:
            return bytes([number << 3 | 2]) + length + content


def _many_operators() -> bytes:
    model = onnx.ModelProto()
    for number in range(200_000):
        model.graph.node.add(op_type=f"O{number}")
    return bytes(model.SerializeToString())


def _endless_table() -> bytes:
    """A TFLite file whose vector of operator codes claims four billion entries."""
    root = struct.pack("<I4sHHHHiI", 20, b"TFL3", 8, 8, 0, 4, 0, 0)
    return root[:20] + struct.pack("<iI", 12, 4) + struct.pack("<I", 2**32 - 1) + bytes(64)


def _keras(config: bytes) -> Callable[[], bytes]:
    def content() -> bytes:
        stream = io.BytesIO()
        with ZipFile(stream, "w", ZIP_DEFLATED) as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", config)
            archive.writestr("model.weights.h5", b"")
        return stream.getvalue()

    return content


def _png() -> bytes:
    """A picture of 60,000 by 60,000 pixels, all black."""

    def chunk(kind: bytes, held: bytes) -> bytes:
        return struct.pack(">I", len(held)) + kind + held + struct.pack(">I", zlib.crc32(kind + held))

    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(10**7))) + chunk(b"IEND", b"")
    )


def _checkpoint(sample: str, name: str, content: Callable[[], bytes]) -> tuple[str, Make]:
    return CHECKPOINT, _with_file(sample, name, content)


def _weights(sample: str, content: Callable[[], bytes]) -> tuple[str, Make]:
    return _checkpoint(sample, WEIGHTS[sample], content)


def _program(sample: str, content: Callable[[], bytes]) -> tuple[str, Make]:
    return ARTIFACT, _sealed(sample, PROGRAMS[sample], content)


def _inputs(array: bytes, compression: int = ZIP_STORED) -> tuple[str, Make]:
    return INPUTS, _with_file("inputs", "inputs.npz", _npz(array, compression))


DEEP_JSON = b"[" * DEEP + b"]" * DEEP
# Of each kind: what reads it, and how it is made.
HOSTILE: Mapping[str, tuple[str, Make]] = {
    "safetensors, 10^6 empty tensors": _weights("hf", _safetensors(_empty_tensors)),
    "safetensors, 1,000 keys, each a thousand times": _weights("hf", _safetensors(_repeated_keys)),
    "safetensors, a header nested 10^5 deep": _weights("hf", _safetensors(lambda: '{"a":' * DEEP)),
    "safetensors, a header of 90 MB of spaces": _weights("hf", _safetensors(lambda: "{}".ljust(90 * MILLION))),
    "safetensors, a header of 7 MB of empty tensors": _weights("hf", _safetensors(lambda: _empty_tensors(115_000))),
    "safetensors, a tensor of 4 TB": _weights("hf", _safetensors(_large_tensor)),
    "config, 10^6 layers": _checkpoint("hf", "config.json", _config(l_layers=MILLION)),
    "config, a million wide": _checkpoint("hf", "config.json", _config(hidden_size=MILLION, vocab_size=MILLION)),
    "config, nested 10^5 deep": _checkpoint("hf", "config.json", lambda: DEEP_JSON),
    "config, 2 GB, sparse": (CHECKPOINT, _sparse("hf", "config.json")),
    "shard index, 2 GB, sparse": (CHECKPOINT, _sparse("sharded", INDEX)),
    "shard index, 10^6 names": _checkpoint("sharded", INDEX, _many_shards),
    ".pth, dictionaries that hold each other twice": _weights("original", lambda: _with_pickle(_doubling())),
    ".pth, dictionaries nested 10^6 deep": _weights("original", lambda: _with_pickle(_deep_pickle())),
    ".pth, 10^6 dictionaries": _weights("original", lambda: _with_pickle(_many_dictionaries())),
    ".pth, 10^7 dictionaries of a byte": _weights("original", lambda: _with_pickle(_bytes_of_dictionaries())),
    ".pth, 300,000 members": _weights("original", _many_members),
    ".pth, a name of 10^12 characters": _weights("original", lambda: _with_pickle(_endless_string())),
    ".pth, a tensor of 4 TB": _weights("original", _large_claim),
    ".pth, a pickle of 1 GB deflated": _weights("original", lambda: _with_pickle(bytes(10**9), ZIP_DEFLATED)),
    "HDF5, 4 TB never written": _weights("tf", _hdf5(_never_written)),
    "HDF5, 400 MB of zeros deflated": _weights("tf", _hdf5(_inflating)),
    "HDF5, 20,000 groups": _weights("tf", _hdf5(_groups(20_000))),
    "HDF5, 200,000 groups": _weights("tf", _hdf5(_groups(200_000))),
    "HDF5, a driver's block of 4 GB": _weights("tf", _driver),
    "vocab.txt, 2 GB, sparse": (TOKENIZER, _sparse("hf", "vocab.txt")),
    "vocab.txt, 12 million words": (TOKENIZER, _with_file("hf", "vocab.txt", _short_words)),
    "vocab.txt, 10^6 words": (TOKENIZER, _with_file("hf", "vocab.txt", _many_words)),
    "tokenizer.json, 2 GB, sparse": (TOKENIZER, _sparse("hf", "tokenizer.json")),
    "tokenizer.json, nested 10^5 deep": (TOKENIZER, _with_file("hf", "tokenizer.json", lambda: DEEP_JSON)),
    "manifest, 2 GB, sparse": (ARTIFACT, _sparse("onnx", "manifest.json")),
    "manifest, nested 10^5 deep": (ARTIFACT, _with_file("onnx", "manifest.json", lambda: DEEP_JSON)),
    "manifest, 10^5 files": (ARTIFACT, _many_files),
    "ONNX, graphs nested 20,000 deep": _program("onnx", _nested_graphs),
    "ONNX, 200,000 operators": _program("onnx", _many_operators),
    "ONNX, 2 million operators": _program("onnx", _many_nodes((7, 1), 4)),
    "SavedModel, 2 million nodes": _program("saved-model", _many_nodes((2, 2, 1), 2)),
    "SavedModel, nested 20,000 deep": _program("saved-model", _nested_messages),
    "TFLite, a table of 4 billion entries": _program("tflite", _endless_table),
    ".keras, a config of 1 GB deflated": _program("keras", _keras(bytes(10**9))),
    ".keras, a config nested 10^5 deep": _program("keras", _keras(DEEP_JSON)),
    ".npz, an array of 4 TB": _inputs(_npy("(1000000, 1000000)", 16)),
    ".npz, 1 GB of zeros deflated": _inputs(_npy("(250000000,)", 10**9), ZIP_DEFLATED),
    ".npz, 300,000 members": (INPUTS, _with_file("inputs", "inputs.npz", _many_members)),
    ".npz, a shape nested 60,000 deep": _inputs(_npy("(" * 60_000, 16)),
    "report, nested 10^5 deep": (REPORT, _with_file("report", "report.json", lambda: DEEP_JSON)),
    "report, 20 million empty lists": (REPORT, _with_file("report", "report.json", _many_values)),
    "report, 2 GB, sparse": (REPORT, _sparse("report", "report.json")),
    "PNG, 60,000 by 60,000 pixels": (PICTURE, _with_file("picture", "scene.png", _png)),
}
