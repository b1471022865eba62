"""The tokenizer in pure Python, for devices without a wheel of ``tokenizers``."""

from __future__ import annotations

from collections.abc import Sequence

from lxmert_export.tokenizer.batching import Row, Text, check_unicode, parts
from lxmert_export.tokenizer.pretrained import Habits, PreTrainedLxmertTokenizer
from lxmert_export.tokenizer.settings import CONTINUATION, TokenizerSettings
from lxmert_export.tokenizer.word_pieces import WordPieces


class LxmertTokenizer(PreTrainedLxmertTokenizer):
    """BERT's WordPiece in pure Python; gives the ids of transformers' slow ``LxmertTokenizer`` (4.57.6).

    ``vocab_file`` is a vocab.txt. Keywords are the options of ``tokenizer_config.json``: ``do_lower_case``,
    ``strip_accents``, ``tokenize_chinese_chars``, ``model_max_length``, ``clean_up_tokenization_spaces``, and the five
    special tokens (``unk_token``, …). ``CheckpointError``: the vocabulary cannot be read or is not BERT's.
    ``ConfigError``: an option has a wrong type or range.
    """

    _habits = Habits(
        is_fast=False,
        empty_pair_counts=True,
        second_type_without_special_tokens=0,
        first_keeps_odd=True,
        cleans_up=True,
    )

    def _prepare(self, vocabulary: dict[str, int], settings: TokenizerSettings) -> None:
        self._word_pieces = WordPieces(vocabulary, settings)

    def _rows(self, texts: Sequence[Text], split: bool) -> list[Row]:
        check_unicode(texts)
        tokenize, to_ids = self._word_pieces.tokenize, self.convert_tokens_to_ids
        return [Row(to_ids([token for part in parts(text) for token in tokenize(part)])) for text in texts]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Joins tokens with spaces; joins word continuations (``##``) without a space."""
        return " ".join(tokens).replace(f" {CONTINUATION}", "").strip()
