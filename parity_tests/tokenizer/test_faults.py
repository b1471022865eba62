"""Faults planted in both tokenizers: the comparisons of the other tests must see every one of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import LxmertTokenizerFast as TheirTokenizer

from lxmert_export.tokenizer import batching, word_pieces
from lxmert_export.tokenizer.fast import LxmertTokenizerFast
from lxmert_export.tokenizer.pure import LxmertTokenizer
from parity_tests.tokenizer import tokenizer_corpus as corpus
from parity_tests.tokenizer.tokenizer_recording import VOCABULARY, mismatches, pairs_to_truncate, recording

TEXTS = corpus.strings(4000)

# Each is planted in the pure algorithm, as (what is replaced, by what).
PURE_FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "accents are kept": lambda m: m.setattr(word_pieces._Accents, "replacement", lambda self, c, code: c),
    "Chinese characters stand together": lambda m: m.setattr(word_pieces, "CHINESE", ()),
    "one Chinese block is forgotten": lambda m: m.setattr(word_pieces, "CHINESE", word_pieces.CHINESE[:-1]),
    "words of 200 characters": lambda m: m.setattr(word_pieces, "LONGEST_WORD", 200),
    "words of 99 characters": lambda m: m.setattr(word_pieces, "LONGEST_WORD", 99),
    "the replacement character is kept": lambda m: m.setattr(word_pieces, "REPLACEMENT", -1),
    "punctuation stays in its word": lambda m: m.setattr(
        word_pieces._Punctuation, "replacement", lambda self, c, code: c
    ),
    "only ASCII is punctuation": lambda m: m.setattr(
        word_pieces._Punctuation,
        "replacement",
        lambda self, c, code: f" {c} " if c.isascii() and not c.isalnum() else c,
    ),
    "unassigned code points are kept": lambda m: plant_category(m, "Cn", "Lo"),
    "format characters are kept": lambda m: plant_category(m, "Cf", "Lo"),
    "tabs are control characters": lambda m: plant_removal(m, "\t"),
    "private characters are kept": lambda m: plant_category(m, "Co", "Lo"),
    "no composition first": lambda m: m.setattr(word_pieces.unicodedata, "normalize", lambda form, text: text),
    "the special tokens are split": lambda m: m.setattr(
        word_pieces.WordPieces,
        "tokenize",
        lambda self, text: [p for w in self._words(text) for p in self._word_pieces(w)],
    ),
    "a final sigma": lambda m: m.setattr(word_pieces.WordPieces, "tokenize", tokenize_with_final_sigma),
}


def plant_category(patch: pytest.MonkeyPatch, which: str, other: str) -> None:
    true = word_pieces.unicodedata.category

    def planted(character: str) -> str:
        category = true(character)
        return other if category == which else category

    patch.setattr(word_pieces.unicodedata, "category", planted)


def plant_removal(patch: pytest.MonkeyPatch, removed: str) -> None:
    true = word_pieces._Cleaning.replacement
    patch.setattr(
        word_pieces._Cleaning, "replacement", lambda self, c, code: None if c == removed else true(self, c, code)
    )


def tokenize_with_final_sigma(self: Any, text: str) -> list[str]:
    parts = self._special_pattern.split(text)
    tokens: list[str] = []
    for i, part in enumerate(parts):
        tokens += [part] if i % 2 else [p for word in self._words(part) for p in self._word_pieces(word)]
    return tokens


@pytest.mark.parametrize("fault", PURE_FAULTS)
def test_a_fault_in_the_pure_algorithm_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = recording().rows("strings")[: len(TEXTS)]
    assert mismatches(LxmertTokenizer(VOCABULARY)(TEXTS, add_special_tokens=False).input_ids, wanted, TEXTS) == []
    PURE_FAULTS[fault](monkeypatch)
    assert mismatches(LxmertTokenizer(VOCABULARY)(TEXTS, add_special_tokens=False).input_ids, wanted, TEXTS)


# Each changes one thing in the recipe that the Rust tokenizer is made of.
RUST_FAULTS: dict[str, tuple[str, str, Any]] = {
    "accents are kept": ("normalizer", "strip_accents", False),
    "capitals are kept": ("normalizer", "lowercase", False),
    "Chinese characters stand together": ("normalizer", "handle_chinese_chars", False),
    "control characters are kept": ("normalizer", "clean_text", False),
    "words of 200 characters": ("model", "max_input_chars_per_word", 200),
    "words of 99 characters": ("model", "max_input_chars_per_word", 99),
    "another prefix": ("model", "continuing_subword_prefix", "@@"),
    "another pre-tokenizer": ("pre_tokenizer", "type", "Whitespace"),
}


@pytest.fixture(scope="module")
def theirs() -> Any:
    return TheirTokenizer(str(VOCABULARY))


@pytest.fixture
def fast() -> LxmertTokenizerFast:
    return LxmertTokenizerFast(VOCABULARY)


@pytest.mark.parametrize("fault", RUST_FAULTS)
def test_a_fault_in_the_recipe_is_seen(fault: str, fast: LxmertTokenizerFast, theirs: Any) -> None:
    part, name, value = RUST_FAULTS[fault]
    recipe = json.loads(fast.backend_tokenizer.to_str())
    recipe[part][name] = value
    fast._tokenizer = Tokenizer.from_str(json.dumps(recipe))
    assert mismatches(fast(TEXTS).input_ids, theirs(TEXTS)["input_ids"], TEXTS)


def test_a_forgotten_special_token_is_seen(fast: LxmertTokenizerFast, theirs: Any) -> None:
    recipe = json.loads(fast.backend_tokenizer.to_str())
    recipe["added_tokens"].pop()
    fast._tokenizer = Tokenizer.from_str(json.dumps(recipe))
    assert mismatches(fast(TEXTS).input_ids, theirs(TEXTS)["input_ids"], TEXTS)


# What is done with the pieces of a text is Python in both classes: (module, name, what takes its place).
LAYOUT_FAULTS: dict[str, tuple[str, Any]] = {
    "the wrong text of two is cut first": (
        "_longest_first_lengths", lambda n, m, room, first_keeps_odd: (max(room - m, 0), min(m, room))
    ),
    "the odd token goes to the other text": (
        "_longest_first_lengths",
        lambda n, m, room, first_keeps_odd: TRUE_CUT(n, m, room, first_keeps_odd=not first_keeps_odd),
    ),
    "one token too many is cut": (
        "_longest_first_lengths", lambda n, m, room, first_keeps_odd: TRUE_CUT(n, m, room - 1, first_keeps_odd=first_keeps_odd)
    ),
}  # fmt: skip
TRUE_CUT = batching._longest_first_lengths


@pytest.mark.parametrize("fault", LAYOUT_FAULTS)
def test_a_wrong_truncation_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch, fast: Any, theirs: Any) -> None:
    name, planted = LAYOUT_FAULTS[fault]
    monkeypatch.setattr(batching, name, planted)
    slow, recorded = LxmertTokenizer(VOCABULARY), recording().rows("longest_first")
    seen_fast = seen_slow = 0
    for (pair, length), wanted in zip(pairs_to_truncate(), recorded, strict=True):
        keywords: dict[str, Any] = {"truncation": "longest_first", "max_length": length}
        seen_slow += slow.encode(*pair, **keywords) != wanted
        seen_fast += (
            fast([pair[0]], [pair[1]], **keywords).input_ids != theirs([pair[0]], [pair[1]], **keywords)["input_ids"]
        )
    assert seen_fast and seen_slow


def test_a_wrong_padding_or_mask_is_seen(monkeypatch: pytest.MonkeyPatch, fast: Any, theirs: Any) -> None:
    keywords: dict[str, Any] = {"padding": True, "pad_to_multiple_of": 8, "return_special_tokens_mask": True}
    wanted = theirs(TEXTS[:20], TEXTS[20:40], **keywords)
    assert dict(fast(TEXTS[:20], TEXTS[20:40], **keywords)) == dict(wanted)

    def one_short(lengths: Any, limits: Any) -> list[int]:
        return [length - 1 for length in batching.padded_lengths(lengths, limits)]

    monkeypatch.setattr("lxmert_export.tokenizer.pretrained.padded_lengths", one_short)
    found = fast(TEXTS[:20], TEXTS[20:40], **keywords)
    assert all(found[field] != wanted[field] for field in wanted)
