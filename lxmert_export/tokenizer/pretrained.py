"""What both tokenizers share: the calls that Hugging Face users know, loading and saving."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from operator import index as as_integer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypedDict, Unpack, overload

from lxmert_export.errors import InputError
from lxmert_export.tokenizer.batch_encoding import BatchEncoding, Layout, check_tensor_kind
from lxmert_export.tokenizer.batching import (
    Limits,
    Row,
    Text,
    lay_out,
    padded_lengths,
    read_examples,
    read_limits,
    truncate,
)
from lxmert_export.tokenizer.files import FIXED_OPTIONS, read_tokenizer, read_vocabulary, write_tokenizer
from lxmert_export.tokenizer.settings import SPECIAL_TOKENS, SettingsKeywords, TokenizerSettings, check_vocabulary

# What decode joins to the word before it, in this order. Source: transformers' clean_up_tokenization.
SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class Habits(NamedTuple):
    """Where transformers' fast and slow tokenizers differ in what a call does with the same pieces: each class keeps its own.

    ``empty_pair_counts``: a single ``text_pair=""`` is a second text; ``second_type_without_special_tokens``: its token type
    where [CLS] and [SEP] are left out; ``first_keeps_odd``: where both texts of a pair are cut, the odd token is the first's;
    ``cleans_up``: ``decode`` removes the spaces before punctuation unless told otherwise.
    """

    is_fast: bool
    empty_pair_counts: bool
    second_type_without_special_tokens: int
    first_keeps_odd: bool
    cleans_up: bool


class CallKeywords(TypedDict, total=False):
    """The keywords of a call, for the methods that pass them on."""

    add_special_tokens: bool
    padding: bool | str
    truncation: bool | str | None
    max_length: int | None
    is_split_into_words: bool
    pad_to_multiple_of: int | None
    return_tensors: str | None


def _setting(name: str) -> property:
    return property(lambda self: getattr(self.settings, name))


def _token_id(name: str) -> property:
    return property(lambda self: self._vocabulary[getattr(self.settings, name)])


class PreTrainedLxmertTokenizer(ABC):
    """The base of both tokenizers: texts in, ``BatchEncoding`` out; texts are padded and truncated on the right."""

    _habits: ClassVar[Habits]
    model_input_names: ClassVar[list[str]] = ["input_ids", "token_type_ids", "attention_mask"]
    # Without setters: to assign one is an error, where a plain attribute would be set and then ignored.
    padding_side = property(lambda self: FIXED_OPTIONS["padding_side"])
    truncation_side = property(lambda self: FIXED_OPTIONS["truncation_side"])
    do_lower_case = _setting("do_lower_case")
    strip_accents = _setting("strip_accents")
    tokenize_chinese_chars = _setting("tokenize_chinese_chars")
    model_max_length = _setting("model_max_length")
    unk_token, unk_token_id = _setting("unk_token"), _token_id("unk_token")
    sep_token, sep_token_id = _setting("sep_token"), _token_id("sep_token")
    pad_token, pad_token_id = _setting("pad_token"), _token_id("pad_token")
    cls_token, cls_token_id = _setting("cls_token"), _token_id("cls_token")
    mask_token, mask_token_id = _setting("mask_token"), _token_id("mask_token")

    def __init__(self, vocab_file: str | Path, **settings: Unpack[SettingsKeywords]) -> None:
        path = Path(vocab_file)
        self._begin(read_vocabulary(path), TokenizerSettings(**settings), path)

    def _begin(self, vocabulary: dict[str, int], settings: TokenizerSettings, source: object) -> None:
        check_vocabulary(vocabulary, settings, source)
        self.settings = settings
        self._vocabulary = vocabulary
        self._tokens_by_id = sorted(vocabulary, key=lambda token: vocabulary[token])
        self._prepare(vocabulary, settings)

    @abstractmethod
    def _prepare(self, vocabulary: dict[str, int], settings: TokenizerSettings) -> None:
        """Makes whatever turns text into ids."""

    @abstractmethod
    def _rows(self, texts: Sequence[Text], split: bool) -> list[Row]:
        """The ids of each text, without special tokens; ``split`` says that each is a list of words."""

    @abstractmethod
    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """One string of tokens."""

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, revision: str | None = None, **settings: Unpack[SettingsKeywords]
    ) -> Self:
        """Loads a directory, a vocab.txt or tokenizer.json, a hub name or ``demo``; keywords win over what the files say.

        ``CheckpointError``: whatever is missing or damaged, or asks for what a BERT tokenizer does not do.
        """
        tokenizer = cls.__new__(cls)
        vocabulary, read = read_tokenizer(name_or_path, revision=revision, keywords=settings)
        tokenizer._begin(vocabulary, read, name_or_path)
        return tokenizer

    def save_pretrained(self, directory: str | Path) -> tuple[str, ...]:
        """Writes vocab.txt, tokenizer.json, tokenizer_config.json and special_tokens_map.json, beside what else is there.

        Returns their paths. ``CheckpointError`` if one cannot be written; the old files are then as they were.
        """
        return write_tokenizer(directory, self._vocabulary, self.settings)

    def __call__(
        self,
        text: Text | Sequence[Any],
        text_pair: Text | Sequence[Any] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
    ) -> BatchEncoding:
        """One text, a pair, or a batch of either (a list of texts, of pairs, or two lists) → ids, token types and masks.

        ``padding``: True or "longest", "max_length", False or "do_not_pad"; ``truncation``: True or "longest_first",
        "only_first", "only_second", False or "do_not_truncate"; ``return_tensors``: None, "np", "pt". ``InputError``: no
        text, not Unicode, or keywords that contradict each other; ``MissingExtra``: "pt" without PyTorch.
        """
        if return_tensors is not None:
            check_tensor_kind(return_tensors)
        if return_offsets_mapping and not self._habits.is_fast:
            raise InputError("return_offsets_mapping is known to LxmertTokenizerFast only")
        limits = read_limits(padding, truncation, max_length, pad_to_multiple_of, self.settings.model_max_length)
        firsts, seconds, batched = read_examples(text, text_pair, is_split_into_words)
        if not batched and not seconds[0] and not self._habits.empty_pair_counts:
            seconds = [None]
        rows = self._cut_rows(firsts, seconds, limits, split=is_split_into_words, special=add_special_tokens)
        batch = self._batch(
            rows,
            limits,
            special=add_special_tokens,
            wanted={
                "token_type_ids": return_token_type_ids is not False,
                "attention_mask": return_attention_mask is not False,
                "special_tokens_mask": return_special_tokens_mask,
                "offset_mapping": return_offsets_mapping,
            },
        )
        if not batched and return_tensors is None:
            batch.update({name: values[0] for name, values in batch.items()})
        if return_length:
            batch["length"] = list(batch._layout.lengths)
        return batch.convert_to_tensors(return_tensors)

    def encode(
        self,
        text: Text | Sequence[Any],
        text_pair: Text | Sequence[Any] | None = None,
        **keywords: Unpack[CallKeywords],
    ) -> Any:
        """The ``input_ids`` of a call."""
        return self(text, text_pair, **keywords)["input_ids"]

    def tokenize(self, text: str, pair: str | None = None, *, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text as strings."""
        ids: list[int] = self.encode(text, pair, add_special_tokens=add_special_tokens)
        return self.convert_ids_to_tokens(ids)

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> str:
        """The text of an id, or of a list, array or tensor of them.

        ``clean_up_tokenization_spaces`` None is what the tokenizer's files say, else the habit of the class.
        """
        ids = _plain(token_ids)
        listed = [ids] if isinstance(ids, int) else ids
        text = self.convert_tokens_to_string(
            self.convert_ids_to_tokens(listed, skip_special_tokens=skip_special_tokens)
        )
        asked = (clean_up_tokenization_spaces, self.settings.clean_up_tokenization_spaces, self._habits.cleans_up)
        return _cleaned_up(text) if next(choice for choice in asked if choice is not None) else text

    def batch_decode(
        self,
        sequences: Iterable[Any],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """The text of each list of ids."""
        return [
            self.decode(
                ids,
                skip_special_tokens=skip_special_tokens,
                clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            )
            for ids in sequences
        ]

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...
    @overload
    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]: ...
    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | list[int]:
        """The id of a token, or of each of a list; that of the unknown token for what is not in the vocabulary."""
        ids, unknown = self._vocabulary, self.unk_token_id
        return ids.get(tokens, unknown) if isinstance(tokens, str) else [ids.get(token, unknown) for token in tokens]

    @overload
    def convert_ids_to_tokens(self, ids: int, skip_special_tokens: bool = False) -> str: ...
    @overload
    def convert_ids_to_tokens(self, ids: Sequence[int], skip_special_tokens: bool = False) -> list[str]: ...
    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> str | list[str]:
        """The token of an id, or of each of a list, array or tensor; ``InputError`` for an id outside the vocabulary."""
        ids = _plain(ids)
        if isinstance(ids, int):
            return self._token(ids)
        skipped = frozenset(self.all_special_ids if skip_special_tokens else ())
        return [self._token(index) for index in ids if index not in skipped]

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """[CLS] A [SEP], or [CLS] A [SEP] B [SEP]."""
        around = (self.cls_token_id, self.sep_token_id, self.sep_token_id)
        return lay_out(token_ids_0, token_ids_1, around, self.pad_token_id, 0)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a call puts around a text, or a pair."""
        return 3 if pair else 2

    def get_vocab(self) -> dict[str, int]:
        """Token: id, a copy."""
        return dict(self._vocabulary)

    def __len__(self) -> int:
        return len(self._vocabulary)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} tokens, {self.settings})"

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, the special ones included."""
        return len(self._vocabulary)

    @property
    def is_fast(self) -> bool:
        """Whether it runs in Rust, and knows words and offsets."""
        return self._habits.is_fast

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The five special tokens by what they are for."""
        return dict(zip(SPECIAL_TOKENS, self.settings.special_tokens, strict=True))

    @property
    def all_special_tokens(self) -> list[str]:
        """The five special tokens."""
        return list(self.settings.special_tokens)

    @property
    def all_special_ids(self) -> list[int]:
        """Their ids."""
        return self.convert_tokens_to_ids(self.all_special_tokens)

    def _cut_rows(
        self, firsts: Sequence[Text], seconds: Sequence[Text | None], limits: Limits, *, split: bool, special: bool
    ) -> list[Row]:
        """A row for each example, second texts included, cut to length."""
        rows = self._rows(firsts, split)
        paired = [(row, text) for row, text in zip(rows, seconds, strict=True) if text is not None]
        others = self._rows([text for _, text in paired], split) if paired else []
        for (row, _), other in zip(paired, others, strict=True):
            row.second, row.second_source = other.first, other.first_source
        for row in rows:
            around = self.num_special_tokens_to_add(row.second is not None) if special else 0
            truncate(row, limits, specials=around, first_keeps_odd=self._habits.first_keeps_odd)
        return rows

    def _batch(self, rows: list[Row], limits: Limits, *, special: bool, wanted: dict[str, bool]) -> BatchEncoding:
        """The fields of all rows, as lists of lists."""
        cls, sep, pad = self.cls_token_id, self.sep_token_id, self.pad_token_id
        around, ones = ((cls, sep, sep), (1, 1, 1)) if special else (None, None)
        bare = [len(row.first) + len(row.second or ()) for row in rows]
        kept = [
            n + self.num_special_tokens_to_add(r.second is not None) * special for n, r in zip(bare, rows, strict=True)
        ]
        lengths = padded_lengths(kept, limits)
        fields: dict[str, list[Any]] = {
            "input_ids": [lay_out(r.first, r.second, around, pad, n) for r, n in zip(rows, lengths, strict=True)]
        }
        if wanted["token_type_ids"]:
            fields["token_type_ids"] = [self._types(r, special, n) for r, n in zip(rows, lengths, strict=True)]
        if wanted["attention_mask"]:
            fields["attention_mask"] = [[1] * k + [0] * (n - k) for k, n in zip(kept, lengths, strict=True)]
        if wanted["special_tokens_mask"]:
            fields["special_tokens_mask"] = [
                lay_out([0] * len(r.first), None if r.second is None else [0] * len(r.second), ones, 1, n)
                for r, n in zip(rows, lengths, strict=True)
            ]
        layout = Layout(
            rows, lengths, special, *(getattr(self.settings, name) for name in ("cls_token", "sep_token", "pad_token"))
        )
        batch = BatchEncoding(fields, layout)
        if wanted["offset_mapping"]:
            batch["offset_mapping"] = [batch.offsets(i) for i in range(len(rows))]
        return batch

    def _types(self, row: Row, special: bool, length: int) -> list[int]:
        """0 for the first text and what belongs to it, 1 for the second, 0 for padding."""
        if row.second is None:
            return [0] * length
        kind = 1 if special else self._habits.second_type_without_special_tokens
        return lay_out([0] * len(row.first), [kind] * len(row.second), (0, 0, kind) if special else None, 0, length)

    def _token(self, index: int) -> str:
        if not 0 <= index < len(self._tokens_by_id):
            raise InputError(f"token id {index} is outside the vocabulary of {len(self._tokens_by_id)} tokens")
        return self._tokens_by_id[index]


def _plain(ids: Any) -> int | list[int]:
    """Integers of whatever holds them; ``InputError`` for anything else, lists of lists too."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    try:
        return [as_integer(one) for one in ids] if isinstance(ids, Iterable) else as_integer(ids)
    except TypeError as error:
        raise InputError(f"token ids are an integer or one list of them ({error}); batch_decode takes lists") from error


def _cleaned_up(text: str) -> str:
    for spaced in SPACED:
        text = text.replace(spaced, spaced.strip())
    return text
