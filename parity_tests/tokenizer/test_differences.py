"""Where the fast and the pure tokenizer differ, as transformers' two do: every class of it, listed in docs/tokenizers.md."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from lxmert_export.errors import InputError
from lxmert_export.tokenizer.fast import LxmertTokenizerFast
from lxmert_export.tokenizer.pure import LxmertTokenizer
from parity_tests.tokenizer import tokenizer_corpus as corpus
from parity_tests.tokenizer.tokenizer_recording import VOCABULARY

PAGE = Path(__file__).parent.parent.parent / "docs" / "tokenizers.md"
KEPT = {"do_lower_case": False, "strip_accents": False}
# class of difference: (options, text, what the fast tokenizer makes of it, what the pure one does)
TEXT_DIFFERENCES: dict[str, tuple[dict[str, Any], str, list[str], list[str]]] = {
    "unassigned": ({}, "do\u0378g", ["[UNK]"], ["dog"]),
    "newer mark": ({}, "do\u0898g", ["[UNK]"], ["dog"]),
    "newer format character": ({}, "do\u0890g", ["[UNK]"], ["dog"]),
    "newer punctuation": ({}, "dog\u2e5dcat", ["[UNK]"], ["dog", "[UNK]", "cat"]),
    "Chinese extension E": ({}, "dog\U0002b820cat", ["[UNK]"], ["dog", "[UNK]", "cat"]),
    "changed category": ({}, "dog\u166dcat", ["dog", "[UNK]", "cat"], ["[UNK]"]),
    "composition": (KEPT, "cafe\u0301", ["cafe", "##\u0301"], ["café"]),
    "special token brought about": (KEPT, "[MA\0SK]", ["[", "M", "##A", "##S", "##K", "]"], ["[MASK]"]),
}


@pytest.fixture(scope="module")
def fast() -> LxmertTokenizerFast:
    return LxmertTokenizerFast(VOCABULARY)


@pytest.fixture(scope="module")
def slow() -> LxmertTokenizer:
    return LxmertTokenizer(VOCABULARY)


@pytest.mark.parametrize("name", TEXT_DIFFERENCES)
def test_texts_that_are_split_otherwise(name: str) -> None:
    options, text, by_fast, by_slow = TEXT_DIFFERENCES[name]
    assert LxmertTokenizerFast(VOCABULARY, **options).tokenize(text) == by_fast
    assert LxmertTokenizer(VOCABULARY, **options).tokenize(text) == by_slow


def class_of(character: str) -> str | None:
    """The class that a code point belongs to by which the two differ with the default options."""
    category = unicodedata.category(character)
    if 0x2B820 <= ord(character) <= 0x2B91F:
        return "Chinese extension E"
    if category == "Mc" or character == "\u166d":
        return "changed category"
    by_category = {"Cn": "unassigned", "Mn": "newer mark", "Cf": "newer format character", "P": "newer punctuation"}
    return by_category.get(category) or by_category.get(category[0])


@pytest.fixture(scope="module")
def differing(fast: LxmertTokenizerFast, slow: LxmertTokenizer) -> set[str]:
    """Of all of Unicode, what is treated otherwise in the middle of a word; before pieces, so that no vocabulary hides it."""
    backend = fast.backend_tokenizer
    found = set()
    for character in (chr(code) for code in range(0x110000) if code not in corpus.SURROGATES):
        text = f"a{character}b"
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))]
        if words != slow._word_pieces._words(text.replace("Σ", "σ").lower()):
            found.add(character)
    return found


def test_no_code_point_differs_for_another_reason(differing: set[str]) -> None:
    classes = {class_of(character) for character in differing}
    assert classes == {name for name, (options, *_) in TEXT_DIFFERENCES.items() if not options}
    assert len([character for character in differing if class_of(character) != "unassigned"]) < 5000


def test_no_text_differs_for_another_reason(
    differing: set[str], fast: LxmertTokenizerFast, slow: LxmertTokenizer
) -> None:
    texts = corpus.strings()
    found = [text for text, a, b in zip(texts, fast(texts).input_ids, slow(texts).input_ids, strict=True) if a != b]
    assert len(found) > 1000
    assert [text for text in found if differing.isdisjoint(text)] == []
    # What is kept below 128 differs nowhere.
    assert not any(character.isascii() for character in differing)


def test_calls_that_lay_out_otherwise(fast: LxmertTokenizerFast, slow: LxmertTokenizer) -> None:
    assert fast("dog", "").input_ids == fast("dog").input_ids
    assert slow("dog", "").input_ids == [*slow("dog").input_ids, slow.sep_token_id]
    assert fast(["dog"], [""]).input_ids == slow(["dog"], [""]).input_ids
    assert fast("dog", "cat", add_special_tokens=False).token_type_ids == [0, 1]
    assert slow("dog", "cat", add_special_tokens=False).token_type_ids == [0, 0]
    cut: dict[str, Any] = {"truncation": True, "max_length": 6}
    assert fast.tokenize("dog cat hat", "bus red sign") == slow.tokenize("dog cat hat", "bus red sign")
    assert fast("dog cat hat", "bus red sign", **cut).token_type_ids == [0, 0, 0, 1, 1, 1]
    assert slow("dog cat hat", "bus red sign", **cut).token_type_ids == [0, 0, 0, 0, 1, 1]


def test_decoding_differs(fast: LxmertTokenizerFast, slow: LxmertTokenizer) -> None:
    ids = fast.encode("don't, dog.", add_special_tokens=False)
    assert fast.decode(ids) == "don ' t, dog."
    assert slow.decode(ids) == "don't, dog."
    assert fast.decode(ids, clean_up_tokenization_spaces=True) == "don't, dog."
    assert slow.decode(ids, clean_up_tokenization_spaces=False) == "don ' t , dog ."


def test_what_the_pure_one_does_not_know(slow: LxmertTokenizer) -> None:
    with pytest.raises(InputError, match="return_offsets_mapping needs LxmertTokenizerFast"):
        slow("dog", return_offsets_mapping=True)
    for method in ("tokens", "word_ids", "offsets"):
        with pytest.raises(InputError, match="needs an encoding made by LxmertTokenizerFast"):
            getattr(slow("dog"), method)()


def test_the_page_lists_them_all() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = re.findall(r"^\| ([\w ]+) \| `U\+", text, flags=re.MULTILINE)
    assert named == [name for name in TEXT_DIFFERENCES if TEXT_DIFFERENCES[name][0] == {}]
