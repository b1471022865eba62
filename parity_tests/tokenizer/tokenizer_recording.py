"""What record_tokenizer.py recorded, and the calls it made: read by the tests, with numpy alone."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from parity_tests.tokenizer import tokenizer_corpus as corpus

FIXTURES = Path(__file__).parent.parent / "fixtures" / "tokenizer"
VOCABULARY = FIXTURES / "vocab.txt"
RECORDING = FIXTURES / "slow_4.57.6.npz"

# Options other than the default, each on every tenth string.
OPTIONS: tuple[dict[str, Any], ...] = (
    {"do_lower_case": False},
    {"do_lower_case": False, "strip_accents": True},
    {"strip_accents": False},
    {"tokenize_chinese_chars": False},
    {"do_lower_case": False, "tokenize_chinese_chars": False, "strip_accents": False},
)
STRATEGIES = ("longest_first", "only_first", "only_second")
# Keywords of whole calls, each on the same ten texts.
CALLS: tuple[dict[str, Any], ...] = tuple(
    {"padding": padding, "truncation": truncation, "max_length": length, "pad_to_multiple_of": multiple, **more}
    for padding, truncation, length, multiple, more in itertools.product(
        (False, True, "max_length"),
        (None, False, True),
        (6, 12),
        (None, 3),
        ({}, {"add_special_tokens": False}),
    )
)

DECODINGS: tuple[dict[str, Any], ...] = (
    {},
    {"skip_special_tokens": True},
    {"clean_up_tokenization_spaces": False},
    {"clean_up_tokenization_spaces": True, "skip_special_tokens": True},
)


@dataclass(frozen=True)
class Recording:
    """The arrays, and what was told beside them: whole calls, decoded texts, the corpus' fingerprint."""

    arrays: dict[str, np.ndarray]
    told: dict[str, Any]

    def rows(self, name: str) -> list[list[int]]:
        ends = np.cumsum(self.arrays[f"{name}.lengths"], dtype=np.int64)
        flat = self.arrays[f"{name}.ids"].tolist()
        return [flat[start:end] for start, end in itertools.pairwise((0, *ends.tolist()))]

    def changed_characters(self, category: Callable[[str], str] = unicodedata.category) -> set[str]:
        """What this Python puts in another category than the one that recorded: characters assigned since.

        The slow algorithm drops what is unassigned, so it is not the same function on a Python with another Unicode.
        """
        recorded = zip(self.arrays["characters"].tolist(), self.arrays["categories"].tolist(), strict=True)
        return {chr(code) for code, known in recorded if category(chr(code)) != known.decode()}


@cache
def recording() -> Recording:
    with np.load(RECORDING) as file:
        arrays = dict(file)
    return Recording(arrays, json.loads(arrays.pop("told").tobytes()))


def call_texts(strings: Sequence[str]) -> list[str]:
    """What the whole calls are given: short and long, an empty one among them."""
    return ["", "dog", "what color is the cat?", *strings[40:47]]


def pairs_to_truncate() -> list[tuple[tuple[str, str], int]]:
    """Pairs of all lengths, each with the length to cut them to: 4, 5, … 12."""
    return [(pair, 4 + number % 9) for number, pair in enumerate(corpus.pairs(900))]


def texts_to_decode(strings: Sequence[str]) -> list[str]:
    """Texts whose punctuation decode treats in its own way, and others."""
    said = ("don't do it.", "he's here, isn't he?", "I'm 'quoted' !", "we've [MASK] they're", ". , ? !", "##s a ##s")
    return [*said, *strings[:400:4]]


def mismatches(ours: Iterable[Any], theirs: Iterable[Any], texts: Iterable[Any]) -> list[tuple[Any, Any, Any]]:
    """(text, ours, theirs) where they differ."""
    return [(text, a, b) for a, b, text in zip(ours, theirs, texts, strict=True) if a != b]
