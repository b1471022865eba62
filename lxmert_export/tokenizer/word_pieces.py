"""The algorithm in pure Python: text → tokens, as transformers' slow BERT tokenizer (4.57.6) makes them.

Character categories come from ``unicodedata``, so which code points are unassigned depends on the version of Python.
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping

from lxmert_export.tokenizer.settings import CONTINUATION, LONGEST_WORD, TokenizerSettings

# The blocks that the original BERT calls Chinese: each of their characters is a word.
CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
REPLACEMENT = 0xFFFD
CACHED_WORDS = 50_000  # words whose pieces are kept, because questions repeat words


class WordPieces:
    """Splits text into tokens of a vocabulary; special tokens in the text stay whole."""

    def __init__(self, vocabulary: Mapping[str, int], settings: TokenizerSettings) -> None:
        self._vocabulary = vocabulary
        self._settings = settings
        self._special = frozenset(settings.special_tokens)
        longest_first = sorted(settings.special_tokens, key=len, reverse=True)
        self._special_pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._cleaning = _Cleaning(chinese=settings.tokenize_chinese_chars)
        self._accents, self._punctuation = _Accents(), _Punctuation()
        self._pieces: dict[str, list[str]] = {}

    def tokenize(self, text: str) -> list[str]:
        """Returns the tokens of a text, without adding [CLS] and [SEP]."""
        if self._settings.do_lower_case:
            parts = self._special_pattern.split(text)
            # Every second part is a special token. Σ always becomes σ: lower() would make ς at the end of a word.
            text = "".join(part if i % 2 else part.replace("Σ", "σ").lower() for i, part in enumerate(parts))
        tokens: list[str] = []
        for i, part in enumerate(self._special_pattern.split(text)):
            if i % 2:
                tokens.append(part)
            else:
                for word in self._words(part):
                    tokens += self._word_pieces(word)
        return tokens

    def _words(self, text: str) -> list[str]:
        """Cleans a text, lowers it and strips accents if so set, and splits it; each punctuation mark is a word."""
        words = []
        for word in unicodedata.normalize("NFC", text.translate(self._cleaning)).split():
            if word not in self._special:
                word = word.lower() if self._settings.do_lower_case else word
                if self._settings.strips_accents:
                    word = unicodedata.normalize("NFD", word).translate(self._accents)
            # Cleaning and stripping can create a special token: "[MA\0SK]".
            words += [word] if word in self._special else word.translate(self._punctuation).split()
        return words

    def _word_pieces(self, word: str) -> list[str]:
        pieces = self._pieces.get(word)
        if pieces is None:
            if len(self._pieces) >= CACHED_WORDS:
                self._pieces.clear()
            pieces = self._pieces[word] = self._longest_matches(word)
        return pieces

    def _longest_matches(self, word: str) -> list[str]:
        """Returns the longest token that the word begins with, then the longest that continues it, …; else [UNK]."""
        pieces: list[str] = []
        start = 0
        while start < len(word) <= LONGEST_WORD:
            prefix = CONTINUATION if start else ""
            for end in range(len(word), start, -1):
                if (piece := prefix + word[start:end]) in self._vocabulary:
                    break
            else:
                return [self._settings.unk_token]
            pieces.append(piece)
            start = end
        return pieces or [self._settings.unk_token]


class _Characters(dict[int, str | None], ABC):
    """A table for ``str.translate`` that gets each character when it first occurs; None removes a character."""

    def __missing__(self, code: int) -> str | None:
        self[code] = replacement = self.replacement(chr(code), code)
        return replacement

    @abstractmethod
    def replacement(self, character: str, code: int) -> str | None:
        """Returns what replaces a character; None removes it."""


class _Cleaning(_Characters):
    """Removes control characters, and puts spaces around Chinese characters; white space stays for ``str.split``."""

    def __init__(self, *, chinese: bool) -> None:
        super().__init__()
        self._chinese = chinese

    def replacement(self, character: str, code: int) -> str | None:
        is_control = unicodedata.category(character).startswith("C") and character not in "\t\n\r"
        if is_control or code == REPLACEMENT:  # unassigned code points count as control characters here
            return None
        if self._chinese and any(first <= code <= last for first, last in CHINESE):
            return f" {character} "
        return character


class _Accents(_Characters):
    """Removes combining marks that take no width."""

    def replacement(self, character: str, code: int) -> str | None:
        return None if unicodedata.category(character) == "Mn" else character


class _Punctuation(_Characters):
    """Puts spaces around punctuation; in ASCII, every sign that is not a letter or digit counts as punctuation."""

    def replacement(self, character: str, code: int) -> str | None:
        ascii_sign = "!" <= character <= "~" and not character.isalnum()
        return f" {character} " if ascii_sign or unicodedata.category(character).startswith("P") else character
