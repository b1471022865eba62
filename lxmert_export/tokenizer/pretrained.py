"""What both tokenizers share: the methods that Hugging Face users know, loading and saving."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from operator import index as as_integer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypedDict, overload

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

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

# Where decode removes spaces, in this order. Source: transformers' clean_up_tokenization.
SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class Habits(NamedTuple):
    """How transformers' fast and slow tokenizers differ around the pieces; each of our classes follows its counterpart.

    - ``empty_pair_counts``: in a call for one example, ``text_pair=""`` counts as a second text.
    - ``second_type_without_special_tokens``: the token type of a second text if [CLS] and [SEP] are left out.
    - ``first_keeps_odd``: if both texts of a pair are cut and the room is odd, the first keeps one token more.
    - ``cleans_up``: ``decode`` removes the spaces before punctuation by default.
    """

    is_fast: bool
    empty_pair_counts: bool
    second_type_without_special_tokens: int
    first_keeps_odd: bool
    cleans_up: bool


class CallKeywords(TypedDict, total=False):
    """The keywords that other methods pass on to a call."""

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
    """The base of both tokenizers: texts in, ``BatchEncoding`` out. Padding and truncation are on the right."""

    _habits: ClassVar[Habits]
    model_input_names: ClassVar[list[str]] = ["input_ids", "token_type_ids", "attention_mask"]
    # Properties without setters, so that assigning to them fails; a plain attribute would be set and then ignored.
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
        """Builds what turns text into ids."""

    @abstractmethod
    def _rows(self, texts: Sequence[Text], split: bool) -> list[Row]:
        """Returns the ids of each text, without special tokens; with ``split`` a text is a list of words."""

    @abstractmethod
    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Joins tokens into one string."""

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, revision: str | None = None, **settings: Unpack[SettingsKeywords]
    ) -> Self:
        """Loads the tokenizer of a directory, a vocab.txt or tokenizer.json, a hub name or ``demo``.

        Keywords override the options in the files. ``CheckpointError``: files are missing or damaged, an option is
        invalid, or the files ask for something that a BERT tokenizer does not do.
        """
        tokenizer = cls.__new__(cls)
        vocabulary, read = read_tokenizer(name_or_path, revision=revision, keywords=settings)
        tokenizer._begin(vocabulary, read, name_or_path)
        return tokenizer

    def save_pretrained(self, directory: str | Path) -> tuple[str, ...]:
        """Writes vocab.txt, tokenizer.json, tokenizer_config.json and special_tokens_map.json; other files stay.

        Returns their paths. ``CheckpointError``: a file cannot be written; the old files are then restored.
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
        """Turns one text, a pair, or a batch of either into ids, token types and masks.

        A batch is a list of texts, a list of pairs, or two lists of texts.

        - ``padding``: True or "longest"; "max_length"; False or "do_not_pad".
        - ``truncation``: True or "longest_first"; "only_first"; "only_second"; False or "do_not_truncate". None
          truncates if ``max_length`` is given and ``padding`` is False.
        - ``return_tensors``: None for lists, "np" or "pt" for int64 [batch, text].

        ``InputError``: an input is no text or not Unicode, or keywords contradict each other.
        ``MissingExtra``: "pt" without PyTorch.
        """
        if return_tensors is not None:
            check_tensor_kind(return_tensors)
        if return_offsets_mapping and not self._habits.is_fast:
            raise InputError("return_offsets_mapping needs LxmertTokenizerFast")
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
        """Returns the ``input_ids`` of a call with the same arguments."""
        return self(text, text_pair, **keywords)["input_ids"]

    def tokenize(self, text: str, pair: str | None = None, *, add_special_tokens: bool = False) -> list[str]:
        """Returns the tokens of a text, or of a pair of texts, as strings."""
        ids: list[int] = self.encode(text, pair, add_special_tokens=add_special_tokens)
        return self.convert_ids_to_tokens(ids)

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> str:
        """Returns the text of an id, or of a list, array or tensor of ids.

        ``clean_up_tokenization_spaces=None`` takes the value in the tokenizer's files, or the default of the class if
        they have none. ``InputError``: an id is outside the vocabulary, or lists are nested.
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
        """Returns the text of each list of ids, as ``decode`` does for one."""
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
        """Returns the id of a token, or of each token of a list; an unknown token has the id of [UNK]."""
        ids, unknown = self._vocabulary, self.unk_token_id
        return ids.get(tokens, unknown) if isinstance(tokens, str) else [ids.get(token, unknown) for token in tokens]

    @overload
    def convert_ids_to_tokens(self, ids: int, skip_special_tokens: bool = False) -> str: ...
    @overload
    def convert_ids_to_tokens(self, ids: Sequence[int], skip_special_tokens: bool = False) -> list[str]: ...
    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> str | list[str]:
        """Returns the token of an id, or of each id of a list, array or tensor.

        ``InputError``: an id is outside the vocabulary, or lists are nested.
        """
        ids = _plain(ids)
        if isinstance(ids, int):
            return self._token(ids)
        skipped = frozenset(self.all_special_ids if skip_special_tokens else ())
        return [self._token(index) for index in ids if index not in skipped]

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Returns [CLS] A [SEP], or [CLS] A [SEP] B [SEP], as ids."""
        around = (self.cls_token_id, self.sep_token_id, self.sep_token_id)
        return lay_out(token_ids_0, token_ids_1, around, self.pad_token_id, 0)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Returns the number of special tokens that a call puts around a text, or around a pair."""
        return 3 if pair else 2

    def get_vocab(self) -> dict[str, int]:
        """Returns a copy of the vocabulary, token: id."""
        return dict(self._vocabulary)

    def __len__(self) -> int:
        return len(self._vocabulary)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} tokens, {self.settings})"

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special tokens included."""
        return len(self._vocabulary)

    @property
    def is_fast(self) -> bool:
        """Whether this tokenizer runs in Rust; only such a tokenizer knows words and offsets."""
        return self._habits.is_fast

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The five special tokens by role: ``unk_token``, ``sep_token``, …"""
        return dict(zip(SPECIAL_TOKENS, self.settings.special_tokens, strict=True))

    @property
    def all_special_tokens(self) -> list[str]:
        """The five special tokens."""
        return list(self.settings.special_tokens)

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of the five special tokens."""
        return self.convert_tokens_to_ids(self.all_special_tokens)

    def _cut_rows(
        self, firsts: Sequence[Text], seconds: Sequence[Text | None], limits: Limits, *, split: bool, special: bool
    ) -> list[Row]:
        """Returns a row for each example, with its second text, truncated."""
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
        """Returns the fields of all rows, as lists of lists."""
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
        """Returns 0 for [CLS], the first text and its [SEP], 1 for the second text and its [SEP], 0 for padding."""
        if row.second is None:
            return [0] * length
        kind = 1 if special else self._habits.second_type_without_special_tokens
        return lay_out([0] * len(row.first), [kind] * len(row.second), (0, 0, kind) if special else None, 0, length)

    def _token(self, index: int) -> str:
        if not 0 <= index < len(self._tokens_by_id):
            raise InputError(f"token id {index} is outside the vocabulary of {len(self._tokens_by_id)} tokens")
        return self._tokens_by_id[index]


def _plain(ids: Any) -> int | list[int]:
    """Turns an id, or a list, array or tensor of ids, into integers. ``InputError``: anything else."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    try:
        return [as_integer(index) for index in ids] if isinstance(ids, Iterable) else as_integer(ids)
    except TypeError as error:
        raise InputError(
            f"token ids must be an integer or a list of them ({error}); batch_decode takes lists"
        ) from error


def _cleaned_up(text: str) -> str:
    for spaced in SPACED:
        text = text.replace(spaced, spaced.strip())
    return text
