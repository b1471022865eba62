"""Bad vocabularies, bad files, bad texts, bad keywords: one clear line each, and a failed write leaves the old files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lxmert_export.errors import CheckpointError, ConfigError, InputError, LxmertExportError
from lxmert_export.tokenizer.fast import LxmertTokenizerFast
from lxmert_export.tokenizer.pure import LxmertTokenizer
from parity_tests.tokenizer.tokenizer_recording import VOCABULARY

pytestmark = pytest.mark.quick

OURS = (LxmertTokenizerFast, LxmertTokenizer)
Ours = type[LxmertTokenizerFast] | type[LxmertTokenizer]
GOOD = VOCABULARY.read_bytes()


def told(error: pytest.ExceptionInfo[LxmertExportError]) -> str:
    """The message, which must be one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


# What is wrong with a vocab.txt: (its bytes, what the error says).
BAD_VOCABULARIES: dict[str, tuple[bytes, str]] = {
    "a special token is missing": (GOOD.replace(b"[MASK]\n", b"mask\n"), r"of \d+ tokens lacks \[MASK\]"),
    "all of them are missing": (b"dog\ncat\n", r"lacks \[UNK\], \[SEP\], \[PAD\], \[CLS\], \[MASK\]; is it a BERT"),
    "a token is there twice": (GOOD + b"dog\n", r"lines \d+ and 2479 are the same token, 'dog'; keep one"),
    "Windows line ends": (
        GOOD.replace(b"\n", b"\r\n"),
        r"line 1 has a carriage return .*save it with Unix line ends",
    ),
    "it is empty": (b"", r"is empty; copy or download it again"),
    "a blank line at its end": (GOOD + b"\n", r"line 2479 is blank"),
    "it is in Latin-1": (
        GOOD.decode().replace("ñ", "n").encode("latin-1", "replace").replace(b"dog", b"d\xf6g"),
        r"is not .* UTF-8",
    ),
    "it is in UTF-16": (GOOD.decode().encode("utf-16"), r"not a vocabulary in UTF-8: byte 0 is 0xff"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, r"begins with a byte order mark"),
}


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("fault", BAD_VOCABULARIES)
def test_a_bad_vocabulary_is_one_line(fault: str, ours: Ours, tmp_path: Path) -> None:
    content, message = BAD_VOCABULARIES[fault]
    file = tmp_path / "vocab.txt"
    file.write_bytes(content)
    for load in (ours, ours.from_pretrained, lambda path: ours.from_pretrained(path.parent)):
        with pytest.raises(CheckpointError, match=message) as error:
            load(file)
        assert told(error).startswith(f"{file}: ")


def changed(*path: str, to: Any) -> Callable[[dict[str, Any]], Any]:
    """Sets one thing in a tokenizer.json."""

    def change(recipe: dict[str, Any]) -> dict[str, Any]:
        part = recipe
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = to
        return recipe

    return change


# What is wrong with a tokenizer.json: (the change, what the error says).
BAD_RECIPES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "it is a list": (lambda recipe: [recipe], "expected a JSON object, not list"),
    "a BPE model": (changed("model", "type", to="BPE"), "holds a BPE model; LXMERT's tokenizer is a WordPiece model"),
    "a BPE model without its type": (
        lambda recipe: {**recipe, "model": {"vocab": {"a": 0}, "merges": []}}, "holds a BPE model"
    ),
    "no model": (changed("model", to=None), "it has no model, so it is not a BERT tokenizer"),
    "no vocabulary": (changed("model", "vocab", to=None), "its model has no vocabulary"),
    "an empty vocabulary": (changed("model", "vocab", to={}), "vocabulary of 0 tokens lacks"),
    "a vocabulary of lists": (changed("model", "vocab", to=[["a", 0.0]]), "its model has no vocabulary"),
    "an id that is no integer": (changed("model", "vocab", "dog", to="7"), "its model has no vocabulary"),
    "an id twice": (changed("model", "vocab", "dog", to=7), "do not have the ids 0 to 2477"),
    "an id too many": (changed("model", "vocab", "new", to=9999), "do not have the ids 0 to 2478"),
    "a token of two lines": (changed("model", "vocab", "a\nb", to=2478), "token 2478 is 'a\\\\nb'"),
    "a lone surrogate": (changed("model", "vocab", "\ud800", to=2478), "token 2478 is '.ud800'; it must be one line"),
    "another prefix": (changed("model", "continuing_subword_prefix", to="@@"), "prefix for word continuations is '@@'"),
    "longer words": (changed("model", "max_input_chars_per_word", to=200), "limit of characters per word is 200, not 100"),
    "another normalizer": (changed("normalizer", "type", to="NFC"), "its normalizer is 'NFC', not 'BertNormalizer'"),
    "no normalizer": (changed("normalizer", to=None), "it has no normalizer, so it is not a BERT tokenizer"),
    "an option of the wrong type": (changed("normalizer", "lowercase", to="yes"), "do_lower_case must be true or false"),
    "another pre-tokenizer": (changed("pre_tokenizer", "type", to="ByteLevel"), "its pre-tokenizer is 'ByteLevel'"),
    "another template": (changed("post_processor", "single", to=[]), "does not make .CLS. A .SEP. B .SEP."),
    "one more added token": (
        changed("added_tokens", to=[{"id": 2478, "content": "<image>"}]), "adds the token '<image>'; only the five"
    ),
    "a special token of another id": (
        changed("added_tokens", to=[{"id": 5, "content": "[MASK]"}]), r"\[MASK\] has the id 5 here and 103"
    ),
    "a special token that eats spaces": (
        changed("added_tokens", to=[{"id": 103, "content": "[MASK]", "lstrip": True}]), r"\[MASK\] has lstrip set differently"
    ),
}  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    LxmertTokenizer(VOCABULARY).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("fault", BAD_RECIPES)
def test_a_bad_tokenizer_json_is_one_line(fault: str, ours: Ours, saved: Path) -> None:
    change, message = BAD_RECIPES[fault]
    file = saved / "tokenizer.json"
    file.write_text(json.dumps(change(json.loads(file.read_text(encoding="utf-8")))), encoding="utf-8")
    for name in ("vocab.txt", "tokenizer_config.json"):
        (saved / name).unlink()
    with pytest.raises(CheckpointError, match=message) as error:
        ours.from_pretrained(saved)
    assert told(error).startswith(str(saved))


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe{", b"[" * 100_000, b'"text"'], ids=repr)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_a_damaged_file_is_one_line(name: str, content: bytes, saved: Path) -> None:
    (saved / name).write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        LxmertTokenizerFast.from_pretrained(saved)
    assert told(error).startswith(f"{saved / name}: ")


# What a tokenizer_config.json may not ask for.
BAD_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "another class": ({"tokenizer_class": "RobertaTokenizer"}, "tokenizer_class is 'RobertaTokenizer'"),
    "padding on the left": ({"padding_side": "left"}, "padding_side is 'left'; only 'right' is supported"),
    "truncation on the left": ({"truncation_side": "left"}, "truncation_side is 'left'"),
    "no basic tokenizer": ({"do_basic_tokenize": False}, "do_basic_tokenize is False"),
    "words never split": ({"never_split": ["dog"]}, r"never_split is \['dog'\], but only the five special tokens"),
    "more special tokens": ({"additional_special_tokens": ["<image>"]}, "additional_special_tokens is"),
    "more added tokens": ({"added_tokens_decoder": {"2478": {"content": "<image>"}}}, "adds the token '<image>'"),
    "an added token of another id": ({"added_tokens_decoder": {"7": {"content": "[MASK]"}}}, r"\[MASK\] has the id 7"),
    "a mask that eats spaces": ({"mask_token": {"content": "[MASK]", "lstrip": True}}, "mask_token has lstrip set"),
    "a number for a flag": ({"do_lower_case": 1}, "do_lower_case must be true or false, not 1"),
    "a length of zero": ({"model_max_length": 0}, "model_max_length must be a positive integer, not 0"),
    "a token twice": ({"mask_token": "[PAD]"}, "the special tokens .* are not distinct"),
    "an unknown special token": ({"mask_token": "<mask>"}, "lacks <mask>"),
}


@pytest.mark.parametrize("fault", BAD_CONFIGS)
def test_a_config_that_asks_for_something_else_is_one_line(fault: str, saved: Path) -> None:
    content, message = BAD_CONFIGS[fault]
    file = saved / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **content}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message) as error:
        LxmertTokenizer.from_pretrained(saved)
    assert told(error).startswith(str(saved))


def test_two_files_that_contradict_each_other(saved: Path) -> None:
    (saved / "vocab.txt").write_bytes(GOOD.replace(b"\ndog\n", b"\nhound\n"))
    with pytest.raises(
        CheckpointError, match="gives 'hound' the id None, vocab.txt beside it gives 1196; remove the file"
    ):
        LxmertTokenizer.from_pretrained(saved)
    (saved / "vocab.txt").write_bytes(GOOD + b"hound\n")
    with pytest.raises(CheckpointError, match="has 2478 tokens, vocab.txt beside it has 2479"):
        LxmertTokenizer.from_pretrained(saved)
    (saved / "added_tokens.json").write_text('{"<image>": 2478}')
    (saved / "vocab.txt").write_bytes(GOOD)
    with pytest.raises(CheckpointError, match="added_tokens.json: adds the token '<image>'"):
        LxmertTokenizer.from_pretrained(saved)


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no tokenizer here .no vocab.txt or tokenizer.json"):
        LxmertTokenizer.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no such file or directory"):
        LxmertTokenizer.from_pretrained(tmp_path / "missing")
    with pytest.raises(CheckpointError, match=r"missing.txt: cannot be read: No such file"):
        LxmertTokenizer(tmp_path / "missing.txt")


# What a call may not be given: (its arguments, its keywords, what the error says).
BAD_CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "None": ((None,), {}, "the text is None, not str"),
    "bytes": ((b"dog",), {}, "the text is bytes, not str"),
    "a number": ((3,), {}, "the text is int, not str"),
    "a number in a batch": ((["dog", 3],), {}, "text 1 is int, not str"),
    "None in a batch": (([None],), {}, "text 0 is None, not str"),
    "a pair of three": (([("a", "b", "c")],), {}, "text 0 is a tuple of 3; give a str, or a pair of exactly two"),
    "a pair with a number": (([("a", 3)],), {}, "text 0, second is int, not str"),
    "an empty batch": (([],), {}, "the batch is empty"),
    "one text_pair for a batch": (
        (["a", "b"], "c"),
        {},
        "text is a batch of 2, so text_pair must be a list as long, not str",
    ),
    "too few of them": ((["a", "b"], ["c"]), {}, "must be a list as long, not 1 texts"),
    "a text_pair that is no text": (("a", 3), {}, "text_pair is int, not str"),
    "a text for words": (("dog",), {"is_split_into_words": True}, "the text is str, not a list of words"),
    "a number for a word": ((["dog", 3],), {"is_split_into_words": True}, "the text, word 1 is int, not str"),
    "a lone surrogate": (("dog\ud800",), {}, r"'dog.ud800' has a lone surrogate at 3"),
    "one in a batch": ((["cat", "\udfff"],), {}, "has a lone surrogate at 0"),
    "one in a pair": (("cat", "\udfff"), {}, "has a lone surrogate"),
    "one in a word": ((["cat", "\udfff"],), {"is_split_into_words": True}, "has a lone surrogate"),
    "an unknown padding": (("a",), {"padding": "left"}, "padding must be True, False or one of longest, max_length"),
    "an unknown truncation": (
        ("a",),
        {"truncation": "longest"},
        "truncation must be True, False or one of longest_first",
    ),
    "a length of zero": (("a",), {"max_length": 0}, "max_length must be a positive integer, not 0"),
    "a length of text": (("a",), {"max_length": "20"}, "max_length must be a positive integer, not '20'"),
    "a multiple of zero": (("a",), {"pad_to_multiple_of": 0}, "pad_to_multiple_of must be a positive integer"),
    "no room": (("a",), {"max_length": 1}, "max_length 1 has no room for 2 special tokens"),
    "no room for a pair": (("a", "b"), {"max_length": 2}, "max_length 2 has no room for 3 special tokens"),
    "only_second of one text": (("a b",), {"truncation": "only_second", "max_length": 3}, "that text is too short"),
    "unknown tensors": (("a",), {"return_tensors": "tf"}, "return_tensors must be None or one of np, pt, not 'tf'"),
    "uneven rows": ((["a", "a b"],), {"return_tensors": "np"}, "input_ids: rows of different lengths.*padding=True"),
}


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("fault", BAD_CALLS)
def test_a_bad_call_is_one_line(fault: str, ours: Ours) -> None:
    arguments, keywords, message = BAD_CALLS[fault]
    with pytest.raises(InputError, match=message) as error:
        ours(VOCABULARY)(*arguments, **keywords)
    told(error).encode()  # can be printed


@pytest.mark.parametrize("ours", OURS)
def test_nothing_is_ignored(ours: Ours) -> None:
    tokenizer: Any = ours(VOCABULARY)
    for keywords in ({"stride": 2}, {"return_overflowing_tokens": True}, {"padding_side": "left"}, {"verbose": False}):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            tokenizer("dog", **keywords)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        ours(VOCABULARY, never_split=["dog"])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        ours.from_pretrained(VOCABULARY, use_fast=True)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="do_lower_case must be true or false, not 'yes'"):
        ours(VOCABULARY, do_lower_case="yes")  # type: ignore[arg-type]
    for name in ("padding_side", "pad_token", "model_max_length"):
        with pytest.raises(AttributeError):
            setattr(tokenizer, name, "left")


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"max_length": 4, "padding": True}, "max_length=4 has no effect: set truncation=True to cut to it"),
        ({"max_length": 4, "truncation": False}, "max_length=4 has no effect"),
        ({"pad_to_multiple_of": 4}, "pad_to_multiple_of=4 has no effect: set padding=True"),
        ({"truncation": "only_first"}, "truncation='only_first' has no effect: give max_length"),
        ({"padding": "max_length"}, "padding='max_length' has no effect: give max_length"),
    ],
)
def test_what_has_no_effect_is_told(keywords: dict[str, Any], message: str, ours: Ours) -> None:
    tokenizer = ours(VOCABULARY)
    with pytest.warns(UserWarning, match=message) as warned:
        assert tokenizer("what color is the dog", **keywords).input_ids == tokenizer("what color is the dog").input_ids
    assert Path(warned[0].filename) == Path(__file__)


@pytest.mark.parametrize("ours", OURS)
def test_ids_outside_the_vocabulary(ours: Ours) -> None:
    tokenizer: Any = ours(VOCABULARY)
    for bad in (2478, -1, [5, 2478], np.array([-100])):
        with pytest.raises(InputError, match=r"token id -?\d+ is outside the vocabulary of 2478 tokens"):
            tokenizer.decode(bad)
    for bad in ([[1, 2], [3]], "dog", [1.5], None):
        with pytest.raises(InputError, match="token ids must be an integer or a list of them"):
            tokenizer.decode(bad)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("failing", range(1, 10))
def test_a_failed_write_leaves_the_old_files(failing: int, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of the nine steps fails: four files and a mark are flushed to the disk, then four files are moved into place."""
    (saved / "special_tokens_map.json").unlink()  # one that was not there must not be there afterwards
    (saved / "notes.md").write_text("of somebody else")
    before = contents(saved)
    steps = iter(range(1, 100))

    def failing_step(true: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            if next(steps) == failing:
                raise OSError(28, "No space left on device")
            return true(*arguments)

        return step

    flushed, sync = failing_step(os.fsync), os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda number: (sync if Path(f"/proc/self/fd/{number}").is_dir() else flushed)(number)
    )
    monkeypatch.setattr(Path, "replace", failing_step(Path.replace))
    other = LxmertTokenizer(VOCABULARY, do_lower_case=False, model_max_length=20)
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device; nothing was changed"):
        other.save_pretrained(saved)
    assert contents(saved) == before
    monkeypatch.undo()
    other.save_pretrained(saved)
    assert LxmertTokenizer.from_pretrained(saved).settings == other.settings
    assert (saved / "notes.md").read_text() == "of somebody else"
    assert not [path for path in saved.iterdir() if re.search("writing", path.name)]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory" / "vocab.txt").mkdir(parents=True)
    for place in (tmp_path / "file", tmp_path / "directory"):
        with pytest.raises(CheckpointError, match="cannot be written") as error:
            LxmertTokenizerFast(VOCABULARY).save_pretrained(place)
        assert told(error).startswith(str(place))


def test_a_length_that_would_take_all_memory(saved: Path) -> None:
    for kind in (LxmertTokenizer, LxmertTokenizerFast):
        with pytest.raises(InputError, match="no model reads so many"):
            kind.from_pretrained(saved)("a", padding="max_length", max_length=10**9)
