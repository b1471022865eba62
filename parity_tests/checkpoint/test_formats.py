"""What a weight file is, and that the weights that are read are those that it holds."""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
import torch

from lxmert_export.checkpoint import archives
from lxmert_export.checkpoint.files import read_weights
from lxmert_export.checkpoint.formats import format_of
from lxmert_export.errors import CheckpointError
from lxmert_export.files import limits
from parity_tests.fixtures.random_models import TINY, lively_model

SHORTEST_HEADER, LONGEST_HEADER = 8, 4096
METADATA = '{"__metadata__":{"format":"pt"}}'


def safetensors_of(header_length: int) -> bytes:
    """A file without tensors; with metadata where they fit. The header is filled with spaces."""
    header = METADATA if header_length >= len(METADATA) else "{}"
    return struct.pack("<Q", header_length) + header.ljust(header_length).encode()


def test_a_safetensors_header_of_any_length_is_one(tmp_path: Path) -> None:
    """One length of 32 ends in the byte with which a pickle begins, and 2,560 to 2,687 look like a pickle's protocol too."""
    path = tmp_path / "model.safetensors"
    with path.open("wb", buffering=0) as file:
        for length in range(SHORTEST_HEADER, LONGEST_HEADER + 1):
            file.seek(0)
            file.write(safetensors_of(length))
            assert format_of(path) == "safetensors", length
            if length % 0x100 == 0x80:
                found = read_weights(path)
                assert (found.format, found.metadata) == ("safetensors", {"format": "pt"}), length


@pytest.mark.parametrize("length", [0x80, 0x280, 0x480])
def test_a_cut_safetensors_file_is_one_line(length: int, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    for end in (9, 20, length + 7):
        file.write_bytes(safetensors_of(length)[:end])
        with pytest.raises(CheckpointError, match=f"damaged safetensors file: its header claims {length} bytes$"):
            read_weights(file)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in lively_model("nlvr2", TINY).state_dict().items()}


def rewritten(file: Path, kind: int, *, only: str = "") -> Path:
    """The archive with other compression, of all members or of those whose names end in ``only``."""
    out = file.with_name("rewritten.pth")
    with ZipFile(file) as old, ZipFile(out, "w") as new:
        for member in old.infolist():
            member_kind = kind if member.filename.endswith(only) else ZIP_STORED
            new.writestr(member.filename, old.read(member), compress_type=member_kind)
    return out


@pytest.mark.parametrize("only", ["", "data/3", "data.pkl"])
def test_compressed_members_hold_the_same_weights(only: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "plain.pth")
    found = read_weights(rewritten(tmp_path / "plain.pth", ZIP_DEFLATED, only=only)).tensors
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_a_compression_that_pytorch_cannot_read_is_one_line(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "plain.pth")
    with pytest.raises(CheckpointError, match="damaged PyTorch file"):
        read_weights(rewritten(tmp_path / "plain.pth", ZIP_BZIP2))


def test_a_flipped_bit_of_a_tensor_is_noticed(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "it.pth")
    content = bytearray((tmp_path / "it.pth").read_bytes())
    with ZipFile(tmp_path / "it.pth") as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    content[largest.header_offset + 1000] ^= 0x10
    (tmp_path / "it.pth").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"damaged PyTorch file: Bad CRC-32 for file 'it/data/\d+'; copy it again"
    ):
        read_weights(tmp_path / "it.pth")


def test_a_file_without_checksums_loads_and_is_said_to_have_none(
    state: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "it.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with caplog.at_level(logging.WARNING):
        found = read_weights(tmp_path / "it.pth").tensors
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert caplog.messages == [
        f"{tmp_path / 'it.pth'}: carries no checksums of its own: damage to it cannot be noticed"
    ]


def test_an_archive_that_inflates_to_fill_the_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ALWAYS_ALLOWED", 1_000_000)
    monkeypatch.setattr(archives, "_read_through", lambda *_: pytest.fail("it was read"))
    with ZipFile(tmp_path / "bomb.pth", "w", ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data/0", bytes(3_000_000))
    with pytest.raises(CheckpointError, match="would inflate from [0-9]+ to 3000000 bytes"):
        read_weights(tmp_path / "bomb.pth")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "twice.pth", "w") as archive:
        archive.writestr("it/data.pkl", b"one")
        archive.writestr("it/data.pkl", b"two")
    with pytest.raises(CheckpointError, match=r"holds it/data\.pkl 2 times"):
        read_weights(tmp_path / "twice.pth")
