"""Both tokenizers and both transformers read one another's files, and get the same ids."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import transformers

import lxmert_export as lx
from lxmert_export.errors import CheckpointError
from lxmert_export.files import hub
from lxmert_export.files.beside_weights import COMPANION_FILES
from lxmert_export.tokenizer.fast import LxmertTokenizerFast
from lxmert_export.tokenizer.files import TOKENIZER_CLASS
from lxmert_export.tokenizer.opening import load_tokenizer
from lxmert_export.tokenizer.pure import LxmertTokenizer
from lxmert_export.tokenizer.settings import NO_LIMIT
from parity_tests.tokenizer.tokenizer_recording import VOCABULARY

pytestmark = pytest.mark.quick

OURS = (LxmertTokenizerFast, LxmertTokenizer)
Ours = type[LxmertTokenizerFast] | type[LxmertTokenizer]
FOUR_FILES = {"vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
# Shows every option: capitals, accents, Chinese characters side by side, special tokens.
TEXT = "What Café ÉLAN 一丁 is [MASK] unaffable?"
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"do_lower_case": False},
    {"strip_accents": False},
    {"tokenize_chinese_chars": False},
    {"do_lower_case": False, "strip_accents": True, "model_max_length": 512},
)

# In the other environment: reads every directory that it is given, and saves what it makes of the first with both classes.
ORACLE = """
import json, sys
from transformers import AutoTokenizer, LxmertTokenizer, LxmertTokenizerFast
text, out, *directories = sys.argv[1:]
told = {}
for directory in directories:
    made = {c.__name__: c.from_pretrained(directory) for c in (LxmertTokenizer, LxmertTokenizerFast, AutoTokenizer)}
    told[directory] = {name: [t.encode(text), t.model_max_length, t.mask_token_id, len(t)] for name, t in made.items()}
for name in ("LxmertTokenizer", "LxmertTokenizerFast"):
    tokenizer = globals()[name].from_pretrained(directories[-1])
    tokenizer(text, padding="max_length", max_length=40, truncation=True)  # leaves its mark in the fast one's file
    tokenizer.save_pretrained(f"{out}/{name}")
print("TOLD" + json.dumps(told))
"""


@pytest.mark.parametrize("number", range(len(OPTIONS)), ids=lambda number: " ".join(OPTIONS[number]) or "default")
@pytest.mark.parametrize("ours", OURS)
def test_what_one_of_ours_writes_both_read(number: int, ours: Ours, tmp_path: Path) -> None:
    options = OPTIONS[number]
    tokenizer = ours(VOCABULARY, **options)
    assert {Path(path).name for path in tokenizer.save_pretrained(tmp_path)} == FOUR_FILES
    assert {path.name for path in tmp_path.iterdir()} == FOUR_FILES <= {*COMPANION_FILES}
    for other in OURS:
        again = other.from_pretrained(tmp_path)
        assert again.settings == tokenizer.settings
        assert again.get_vocab() == tokenizer.get_vocab()
        assert again.encode(TEXT) == tokenizer.encode(TEXT)
    if options:
        assert tokenizer.encode(TEXT) != ours(VOCABULARY).encode(TEXT)


def test_both_write_the_same_bytes(tmp_path: Path) -> None:
    for ours in OURS:
        ours(VOCABULARY, model_max_length=20).save_pretrained(tmp_path / ours.__name__)
    for name in FOUR_FILES:
        fast, pure = ((tmp_path / ours.__name__ / name).read_bytes() for ours in OURS)
        assert fast == pure
    assert (tmp_path / "LxmertTokenizer" / "vocab.txt").read_bytes() == VOCABULARY.read_bytes()


def test_transformers_4_reads_ours_and_we_read_theirs(oracle_python: str, tmp_path: Path) -> None:
    directories = []
    for number, options in enumerate(OPTIONS):
        directories.append(tmp_path / f"ours_{number}")
        OURS[number % 2](VOCABULARY, **options).save_pretrained(directories[-1])
    done = subprocess.run(
        [oracle_python, "-c", ORACLE, TEXT, str(tmp_path), *map(str, directories)],
        capture_output=True, text=True, check=False, env={**os.environ, "USE_TF": "0", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.partition("TOLD")[2])
    for directory, by_class in told.items():
        tokenizer = LxmertTokenizer.from_pretrained(directory)
        wanted = [tokenizer.encode(TEXT), tokenizer.model_max_length, 103, len(tokenizer)]
        assert by_class == dict.fromkeys(("LxmertTokenizer", "LxmertTokenizerFast", "AutoTokenizer"), wanted)
    for name in ("LxmertTokenizer", "LxmertTokenizerFast"):
        for ours in OURS:
            again = ours.from_pretrained(tmp_path / name)
            assert again.encode(TEXT) == tokenizer.encode(TEXT)
            assert (again.model_max_length, again.do_lower_case, again.strip_accents) == (512, False, True)


@pytest.mark.parametrize("number", range(len(OPTIONS)), ids=lambda number: " ".join(OPTIONS[number]) or "default")
def test_transformers_5_reads_ours_and_we_read_theirs(number: int, tmp_path: Path) -> None:
    options = OPTIONS[number]
    theirs = transformers.LxmertTokenizerFast(str(VOCABULARY), **options)
    theirs.save_pretrained(tmp_path / "theirs")
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    for ours in OURS:
        tokenizer = ours.from_pretrained(tmp_path / "theirs")
        assert tokenizer.encode(TEXT) == theirs.encode(TEXT)
        assert tokenizer.model_max_length == theirs.model_max_length
        tokenizer.save_pretrained(tmp_path / ours.__name__)
        for reader in (transformers.LxmertTokenizerFast, transformers.AutoTokenizer):
            again = reader.from_pretrained(tmp_path / ours.__name__)
            assert again.encode(TEXT) == theirs.encode(TEXT)
            assert again.model_max_length == theirs.model_max_length
            assert again.get_vocab() == theirs.get_vocab()


@pytest.mark.parametrize("ours", OURS)
def test_the_published_files_of_the_vqa_repository(ours: Ours, tmp_path: Path) -> None:
    """A vocab.txt and a special_tokens_map.json: nothing says a length, and truncation says that it does nothing."""
    shutil.copy(VOCABULARY, tmp_path)
    special = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("unk", "sep", "pad", "cls", "mask")}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
    tokenizer = ours.from_pretrained(tmp_path)
    assert (
        tokenizer.model_max_length
        == NO_LIMIT
        == transformers.LxmertTokenizerFast.from_pretrained(tmp_path).model_max_length
    )
    text = "dog " * 600
    with pytest.warns(UserWarning, match=r"truncation='longest_first' has no effect: give max_length"):
        assert len(tokenizer(text, truncation=True).input_ids) == 602
    with pytest.warns(UserWarning, match=r"padding='max_length' has no effect"):
        assert len(tokenizer("dog", padding="max_length").input_ids) == 3
    assert len(ours.from_pretrained(tmp_path, model_max_length=512)(text, truncation=True).input_ids) == 512


@pytest.mark.parametrize("ours", OURS)
def test_files_by_their_own_path(ours: Ours, tmp_path: Path) -> None:
    tokenizer = ours(VOCABULARY, do_lower_case=False)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "BEST.pth").write_bytes(b"")  # a checkpoint's tokenizer stands beside it
    for name in ("vocab.txt", "tokenizer.json", "BEST.pth"):
        assert ours.from_pretrained(tmp_path / name).encode(TEXT) == tokenizer.encode(TEXT)
    shutil.copy(tmp_path / "vocab.txt", tmp_path / "words.txt")
    assert ours.from_pretrained(str(tmp_path / "words.txt"), do_lower_case=True).do_lower_case
    (tmp_path / "tokenizer_config.json").unlink()
    # Its normalizer keeps capitals; transformers 5.23 takes the default instead of the file's word.
    assert ours.from_pretrained(tmp_path / "tokenizer.json").encode(TEXT) == tokenizer.encode(TEXT)
    assert transformers.LxmertTokenizerFast.from_pretrained(tmp_path).tokenize("Dog") == ["dog"]
    assert ours.from_pretrained(tmp_path / "vocab.txt").encode(TEXT) == ours(VOCABULARY).encode(TEXT)


@pytest.mark.parametrize("ours", OURS)
def test_special_tokens_of_other_names(ours: Ours, tmp_path: Path) -> None:
    names = {"[PAD]": "<pad>", "[MASK]": "<mask>"}
    tokens = VOCABULARY.read_text(encoding="utf-8").splitlines()
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("".join(f"{names.get(token, token)}\n" for token in tokens), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"lacks \[PAD\], \[MASK\]"):
        ours(vocabulary)
    tokenizer = ours(vocabulary, pad_token="<pad>", mask_token="<mask>")
    tokenizer.save_pretrained(tmp_path / "saved")
    for reader in (*OURS, transformers.LxmertTokenizerFast):
        again = reader.from_pretrained(tmp_path / "saved")
        assert again.encode("dog<mask>s [MASK]") == tokenizer.encode("dog<mask>s [MASK]")
        assert (again.pad_token, again.pad_token_id, again.mask_token_id) == ("<pad>", 0, 103)


def test_load_tokenizer_takes_the_faster_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LxmertTokenizer(VOCABULARY).save_pretrained(tmp_path)
    assert lx.load_tokenizer is load_tokenizer
    assert type(load_tokenizer(tmp_path)) is LxmertTokenizerFast
    monkeypatch.setattr("lxmert_export.tokenizer.opening.find_spec", lambda name: None)
    assert type(load_tokenizer(tmp_path)) is LxmertTokenizer
    monkeypatch.setattr(hub, "DEMO_DIRECTORY", tmp_path)
    assert load_tokenizer("demo").encode(TEXT) == LxmertTokenizer(VOCABULARY).encode(TEXT)


def test_the_configuration_says_what_transformers_looks_for(tmp_path: Path) -> None:
    LxmertTokenizerFast(VOCABULARY).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == TOKENIZER_CLASS and hasattr(transformers, TOKENIZER_CLASS)
    assert config["added_tokens_decoder"]["103"]["content"] == config["mask_token"] == "[MASK]"
    assert "clean_up_tokenization_spaces" not in config  # unset, it stays each class's own habit
    LxmertTokenizerFast(VOCABULARY, clean_up_tokenization_spaces=True).save_pretrained(tmp_path)
    assert LxmertTokenizerFast.from_pretrained(tmp_path).decode([1, 2]) != ""
    assert transformers.LxmertTokenizerFast.from_pretrained(tmp_path).clean_up_tokenization_spaces is True
