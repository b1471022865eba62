"""LxmertTokenizerFast gives what transformers' LxmertTokenizerFast gives, live: every field of every kind of call."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LxmertTokenizerFast as TheirTokenizer

from lxmert_export.errors import InputError
from lxmert_export.tokenizer.fast import LxmertTokenizerFast
from parity_tests.tokenizer import tokenizer_corpus as corpus
from parity_tests.tokenizer.tokenizer_recording import (
    CALLS,
    DECODINGS,
    OPTIONS,
    STRATEGIES,
    VOCABULARY,
    call_texts,
    mismatches,
    pairs_to_truncate,
    texts_to_decode,
)

EVERYTHING = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
QUIET = pytest.mark.filterwarnings("ignore:.*max_length.*is ignored", "ignore:.*has no effect")


@pytest.fixture(scope="module")
def fast() -> LxmertTokenizerFast:
    return LxmertTokenizerFast(VOCABULARY)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return TheirTokenizer(str(VOCABULARY))


@pytest.mark.parametrize("name", ["strings", "code_points"])
def test_every_field_of_every_text(name: str, fast: LxmertTokenizerFast, theirs: Any) -> None:
    texts = corpus.strings() if name == "strings" else corpus.code_point_strings()
    assert len(texts) >= 20_000
    ours, wanted = fast(texts, **EVERYTHING), theirs(texts, **EVERYTHING)
    assert list(ours) == list(wanted) and len(ours) == 5
    for field in wanted:
        assert mismatches(ours[field], wanted[field], texts) == [], field
    for method in ("tokens", "word_ids", "sequence_ids"):
        found = (getattr(ours, method)(i) for i in range(len(texts)))
        assert mismatches(found, (getattr(wanted, method)(i) for i in range(len(texts))), texts) == [], method


@pytest.mark.parametrize("number", range(len(OPTIONS)), ids=lambda number: " ".join(OPTIONS[number]))
def test_options_are_honoured(number: int, fast: LxmertTokenizerFast) -> None:
    texts = corpus.strings()[::10]
    ours = LxmertTokenizerFast(VOCABULARY, **OPTIONS[number])(texts, **EVERYTHING)
    wanted = TheirTokenizer(str(VOCABULARY), **OPTIONS[number])(texts, **EVERYTHING)
    assert mismatches(ours.input_ids, wanted["input_ids"], texts) == []
    assert mismatches(ours.offset_mapping, wanted["offset_mapping"], texts) == []
    assert ours.input_ids != fast(texts).input_ids


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("special", [True, False])
def test_pairs_are_truncated_alike(strategy: str, special: bool, fast: LxmertTokenizerFast, theirs: Any) -> None:
    outcomes = []
    for (first, second), length in pairs_to_truncate():
        keywords = {"truncation": strategy, "max_length": length, "add_special_tokens": special, **EVERYTHING}
        found, wanted = (outcome(tokenizer, [first], [second], keywords) for tokenizer in (fast, theirs))
        assert found == wanted, (first, second, length)
        outcomes.append("refused" if wanted is None else "cut" if len(wanted["input_ids"][0]) == length else "kept")
    assert outcomes.count("cut") > 100 and ("refused" in outcomes) == (strategy != "longest_first")


def outcome(tokenizer: Any, first: Any, second: Any, keywords: dict[str, Any]) -> dict[str, Any] | None:
    """The fields, None where the strategy cannot be followed (theirs raises a bare Exception)."""
    try:
        return dict(tokenizer(first, second, **keywords))
    except InputError:
        return None
    except Exception as error:
        if "Truncation error" not in str(error):
            raise
        return None


@QUIET
@pytest.mark.parametrize("number", range(len(CALLS)), ids=lambda number: "-".join(map(str, CALLS[number].values())))
def test_whole_calls(number: int, fast: LxmertTokenizerFast, theirs: Any) -> None:
    texts, keywords = call_texts(corpus.strings(200)), {**CALLS[number], **EVERYTHING, "return_length": True}
    for arguments in (
        (texts,),
        (texts, texts[::-1]),
        ([*zip(texts, texts[::-1], strict=True)],),
        (texts[2],),
        (texts[2], "dog"),
    ):
        try:
            wanted = theirs(*arguments, **keywords)
        except ValueError as error:
            assert "not a multiple" in str(error)  # noqa: PT017  (the oracle's refusal, which ours must share)
            with pytest.raises(InputError, match="not a multiple"):
                fast(*arguments, **keywords)
        else:
            assert dict(fast(*arguments, **keywords)) == dict(wanted)


@pytest.mark.parametrize("kind", ["np", "pt"])
def test_tensors(kind: str, fast: LxmertTokenizerFast, theirs: Any) -> None:
    texts = call_texts(corpus.strings(200))
    for arguments in ((texts,), (texts, texts[::-1]), ("dog",), ("dog", "cat")):
        keywords = {"padding": True, "return_tensors": kind, "return_length": True, **EVERYTHING}
        ours, wanted = fast(*arguments, **keywords), theirs(*arguments, **keywords)
        assert list(ours) == list(wanted)
        for field in wanted:
            assert type(ours[field]) is (np.ndarray if kind == "np" else torch.Tensor)
            assert ours[field].dtype == wanted[field].dtype
            np.testing.assert_array_equal(ours[field], wanted[field])


def test_words_instead_of_texts(fast: LxmertTokenizerFast, theirs: Any) -> None:
    strings = corpus.strings(3000)
    words = [strings[i : i + 5] for i in range(0, len(strings), 5)]
    for arguments in (
        (words,),
        (words, words[::-1]),
        ([*zip(words, words[::-1], strict=True)],),
        (words[0],),
        (words[0], words[1]),
    ):
        ours = fast(*arguments, is_split_into_words=True, **EVERYTHING)
        wanted = theirs(*arguments, is_split_into_words=True, **EVERYTHING)
        assert dict(ours) == dict(wanted)
        assert ours.word_ids() == wanted.word_ids()


# In the other environment, whose tokenizers is an older one (0.22.2).
OLDER = """
import sys
from transformers import LxmertTokenizerFast as TheirTokenizer
from lxmert_export.tokenizer.fast import LxmertTokenizerFast
from parity_tests.tokenizer.tokenizer_corpus import strings
keywords = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
ours, theirs = (made(sys.argv[1])(strings(), **keywords) for made in (LxmertTokenizerFast, TheirTokenizer))
print(len(ours.input_ids), dict(ours) == dict(theirs))
"""


def test_transformers_4_and_an_older_tokenizers_agree(oracle_python: str) -> None:
    root = str(VOCABULARY.parents[3])
    done = subprocess.run(
        [oracle_python, "-c", OLDER, str(VOCABULARY)],
        capture_output=True, text=True, check=False, env={**os.environ, "USE_TF": "0", "PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "20000 True\n"


def test_a_single_text_and_what_its_encoding_tells(fast: LxmertTokenizerFast, theirs: Any) -> None:
    keywords = {"padding": "max_length", "max_length": 12, "truncation": True}
    for arguments in (("hello [MASK] unaffable", "what color?"), ("", ""), ("dog", ""), ("", "dog"), ("café " * 20,)):
        ours, wanted = fast(*arguments, **keywords), theirs(*arguments, **keywords)
        assert dict(ours) == dict(wanted)
        assert ours.tokens() == wanted.tokens()
        assert ours.word_ids() == wanted.word_ids()
        assert ours.sequence_ids() == wanted.sequence_ids()
    assert fast.encode("café", "dog") == theirs.encode("café", "dog")
    assert fast.tokenize("hello [MASK] unaffable Ж!", "x") == theirs.tokenize("hello [MASK] unaffable Ж!", "x")


def test_decoding(fast: LxmertTokenizerFast, theirs: Any) -> None:
    texts = texts_to_decode(corpus.strings(4000))
    ids = [theirs.encode(text) for text in texts]
    for keywords in DECODINGS:
        found = fast.batch_decode(ids, **keywords)
        assert mismatches(found, theirs.batch_decode(ids, **keywords), texts) == []
    padded = fast(texts[:4], padding=True, return_tensors="pt").input_ids
    assert fast.batch_decode(padded) == theirs.batch_decode(padded)
    assert fast.decode(padded[0]) == theirs.decode(padded[0])
    assert fast.decode(103) == theirs.decode(103) == "[MASK]"
    assert fast.convert_tokens_to_string(["un", "##aff", ",", "x"]) == theirs.convert_tokens_to_string(
        ["un", "##aff", ",", "x"]
    )


def test_attributes(fast: LxmertTokenizerFast, theirs: Any) -> None:
    names = [f"{kind}_token" for kind in ("unk", "sep", "pad", "cls", "mask")]
    for name in (
        *names, *(f"{name}_id" for name in names), "all_special_tokens", "all_special_ids", "special_tokens_map",
        "model_max_length", "model_input_names", "padding_side", "truncation_side", "vocab_size", "is_fast",
        "do_lower_case", "strip_accents", "tokenize_chinese_chars",
    ):  # fmt: skip
        assert getattr(fast, name) == getattr(theirs, name), name
    assert len(fast) == len(theirs) and fast.get_vocab() == theirs.get_vocab()
    assert fast.num_special_tokens_to_add() == theirs.num_special_tokens_to_add()
    assert fast.num_special_tokens_to_add(pair=True) == theirs.num_special_tokens_to_add(pair=True)
    for tokens in ("dog", "no such token", ["dog", "##s", "no such token"]):
        assert fast.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
    for ids in (103, [0, 103, 200]):
        assert fast.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
        assert fast.convert_ids_to_tokens([0, 200], True) == theirs.convert_ids_to_tokens([0, 200], True) != []
    # Gone from transformers 5; 4.57.6 has it.
    assert fast.build_inputs_with_special_tokens([7, 8]) == [101, 7, 8, 102]
    assert fast.build_inputs_with_special_tokens([7], [8]) == [101, 7, 102, 8, 102]


def test_the_recipe_is_theirs(fast: LxmertTokenizerFast, theirs: Any) -> None:
    theirs("dog", padding="max_length", max_length=8, truncation=True)
    theirs("dog")  # without: or the last call's settings would be in the file
    assert fast.backend_tokenizer.to_str(pretty=True) == theirs.backend_tokenizer.to_str(pretty=True)
