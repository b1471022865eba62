"""The tokenizer in Rust: the ``tokenizers`` library with transformers' recipe for BERT and LXMERT."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lxmert_export.errors import LxmertExportError
from lxmert_export.tokenizer.batching import Row, Text, check_unicode
from lxmert_export.tokenizer.pretrained import Habits, PreTrainedLxmertTokenizer
from lxmert_export.tokenizer.settings import TokenizerSettings
from lxmert_export.tokenizer.tokenizer_json import to_tokenizer_json

try:
    from tokenizers import Tokenizer
except ImportError as error:
    # tokenizers is a core dependency, so there is no extra to name.
    raise LxmertExportError(
        "LxmertTokenizerFast needs the package tokenizers: pip install tokenizers, or use LxmertTokenizer (pure Python)"
    ) from error


class LxmertTokenizerFast(PreTrainedLxmertTokenizer):
    """BERT's WordPiece in Rust; gives the ids of transformers' ``LxmertTokenizerFast`` (5.23 and 4.57.6).

    ``vocab_file`` is a vocab.txt. Keywords are the options of ``tokenizer_config.json``: ``do_lower_case``,
    ``strip_accents``, ``tokenize_chinese_chars``, ``model_max_length``, ``clean_up_tokenization_spaces``, and the five
    special tokens (``unk_token``, …). Needs the package ``tokenizers``. ``CheckpointError``: the vocabulary cannot be
    read or is not BERT's. ``ConfigError``: an option has a wrong type or range.
    """

    _habits = Habits(
        is_fast=True,
        empty_pair_counts=False,
        second_type_without_special_tokens=1,
        first_keeps_odd=False,
        cleans_up=False,
    )

    def _prepare(self, vocabulary: dict[str, int], settings: TokenizerSettings) -> None:
        self._tokenizer = Tokenizer.from_str(json.dumps(to_tokenizer_json(vocabulary, settings)))

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The ``tokenizers.Tokenizer``; it has no padding and no truncation, because each call does its own."""
        return self._tokenizer

    def _rows(self, texts: Sequence[Text], split: bool) -> list[Row]:
        try:
            encodings = self._tokenizer.encode_batch(texts, is_pretokenized=split, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):  # all texts are strings, so one of them is not valid Unicode
            check_unicode(texts)
            raise
        return [Row(encoding.ids, first_source=encoding) for encoding in encodings]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Joins tokens with spaces; joins word continuations (``##``) and some punctuation without a space."""
        text: str = self._tokenizer.decoder.decode(list(tokens))
        return text
