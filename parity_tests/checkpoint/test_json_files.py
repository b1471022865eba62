"""JSON that is made to break its reader is one line, in every file of others that is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lxmert_export.artifact.manifest import read_manifest
from lxmert_export.checkpoint.files import read_weights
from lxmert_export.errors import CheckpointError, ConfigError, LxmertExportError
from lxmert_export.files import json_files
from lxmert_export.files.converted_files import manifest_of
from lxmert_export.files.json_schema import first_problem
from lxmert_export.judging import device_report
from lxmert_export.parity.rejudging import read_report
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.tokenizer.opening import load_tokenizer

pytestmark = pytest.mark.quick

BROKEN = {
    "[" * 100_000: "nested too deep",
    '{"hidden_size": ' + "9" * 5000 + "}": "a number of 5000 digits",
    '{"layer_norm_eps": 1e999}': "a number that is too large: 1e999",
    '{"hidden_size": 32, "hidden_size": 64}': "holds the key 'hidden_size' twice",
    '{"hidden_size": NaN}': "holds NaN",
}
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "config": ("config.json", LxmertConfig.from_json_file),
    "shard index": ("model.safetensors.index.json", read_weights),
    "manifest": ("manifest.json", read_manifest),
    "report": ("report.json", read_report),
    "device report": ("report.json", device_report.read_report),
}


@pytest.mark.parametrize("text", BROKEN, ids=["deep", "digits", "infinite", "twice", "nan"])
@pytest.mark.parametrize("reader", READERS)
def test_it_is_one_line(reader: str, text: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    (tmp_path / name).write_text(text)
    with pytest.raises(LxmertExportError, match=BROKEN[text]) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_list_that_is_too_long_is_told() -> None:
    assert first_problem([1, 2, 3], {"maxItems": 2}) == "it has 3 entries, more than 2"
    assert first_problem([1, 2], {"maxItems": 2}) is None


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "parse_json", lambda _: pytest.fail("it was read"))
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(json_files.LARGEST_JSON + 1)  # sparse: it takes no room on the disk
    with pytest.raises(LxmertExportError, match="has 64000001 bytes, more than the 64000000 that such a file may have"):
        LxmertConfig.from_json_file(tmp_path / "config.json")


def test_what_is_no_manifest_of_ours_is_none(tmp_path: Path) -> None:
    for text in BROKEN:
        (tmp_path / "manifest.json").write_text(text)
        assert manifest_of(tmp_path) is None


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n"


@pytest.mark.parametrize(
    ("content", "told"), [(POINTER, "run 'git lfs pull' where it lies"), ("", "is empty; copy or")]
)
def test_a_file_that_was_not_copied_is_told(content: str, told: str, tmp_path: Path) -> None:
    for name in ("config.json", "vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=rf"config\.json: .*{told}"):
        LxmertConfig.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=rf"vocab\.txt: .*{told}"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(CheckpointError, match=rf"tokenizer_config\.json: .*{told}"):
        load_tokenizer(tmp_path)
