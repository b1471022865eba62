"""Texts → rows of equal length: checks of a call's arguments, truncation, padding, special tokens."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args

from lxmert_export.errors import InputError
from lxmert_export.tokenizer.settings import NO_LIMIT

LONGEST = 1_000_000  # tokens in a row; padding to a mistyped length would fill the memory
Padding = Literal["longest", "max_length", "do_not_pad"]
Truncation = Literal["longest_first", "only_first", "only_second", "do_not_truncate"]
Value = TypeVar("Value")
SURROGATE = re.compile("[\ud800-\udfff]")
# A text, or the words of one.
Text = str | Sequence[str]


class Source(Protocol):
    """What the fast tokenizer knows of the tokens of a text; ``tokenizers.Encoding`` has these attributes."""

    @property
    def tokens(self) -> Sequence[str]: ...  # noqa: D102  (the tokens as strings)
    @property
    def word_ids(self) -> Sequence[int | None]: ...  # noqa: D102  (of each token, the number of its word)
    @property
    def offsets(self) -> Sequence[tuple[int, int]]: ...  # noqa: D102  (of each token, start and end in characters)


@dataclass(slots=True)
class Row:
    """One example: the ids of a text and of its paired text, without special tokens, and their sources if known."""

    first: list[int]
    second: list[int] | None = None
    first_source: Source | None = None
    second_source: Source | None = None


@dataclass(frozen=True)
class Limits:
    """How rows are cut and padded; padding makes a row's length a multiple of ``multiple``.

    ``max_length`` is None only if neither truncation nor padding needs one.
    """

    truncation: Truncation
    padding: Padding
    max_length: int | None
    multiple: int


def read_limits(
    padding: object, truncation: object, max_length: int | None, multiple: int | None, model_max_length: int
) -> Limits:
    """Reads the keywords of a call, as transformers does.

    - ``max_length`` alone turns truncation on.
    - A keyword without effect gives a warning: a length that nothing uses, or truncation or padding to a length that
      neither the call nor the tokenizer has.
    - ``InputError``: a keyword is out of range, or two of them contradict each other.
    """
    for name, value in (("max_length", max_length), ("pad_to_multiple_of", multiple)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(f"{name} must be a positive integer, not {value!r}")
    if truncation is None:
        truncation = max_length is not None and padding is False
    cut = _choice("truncation", truncation, {True: "longest_first", False: "do_not_truncate"}, get_args(Truncation))
    pad = _choice("padding", padding, {True: "longest", False: "do_not_pad"}, get_args(Padding))
    if max_length is not None and cut == "do_not_truncate" and pad != "max_length":
        _warn(f"max_length={max_length}", "set truncation=True to cut to it, or padding='max_length' to pad to it")
    if multiple is not None and pad == "do_not_pad":
        _warn(f"pad_to_multiple_of={multiple}", "set padding=True")
    if max_length is not None and max_length > LONGEST:
        raise InputError(f"max_length {max_length} is more than {LONGEST:,}; no model reads so many tokens")
    if max_length is None and model_max_length < NO_LIMIT:
        max_length = model_max_length
    if max_length is None:
        for name, choice in (("truncation", cut), ("padding", pad)):
            if choice in ("longest_first", "only_first", "only_second", "max_length"):
                _warn(f"{name}={choice!r}", "give max_length, because the tokenizer has no model_max_length")
        cut, pad = "do_not_truncate", "do_not_pad" if pad == "max_length" else pad
    if cut != "do_not_truncate" and pad != "do_not_pad" and multiple and max_length and max_length % multiple:
        raise InputError(f"max_length {max_length} is not a multiple of pad_to_multiple_of {multiple}")
    return Limits(cut, pad, max_length, multiple or 1)


def read_examples(text: object, pair: object, split: bool) -> tuple[list[Text], list[Text | None], bool]:
    """Returns the first texts, the second texts (None for an example without one), and whether the call gave a batch.

    With ``split`` a text is a list of words. ``InputError``: anything else; the message says where in the batch.
    """
    if not split:
        batched = isinstance(text, list | tuple)
    else:
        batched = isinstance(text, list | tuple) and bool(text) and isinstance(text[0], list | tuple)
    if not batched:
        return [_text(text, "the text", split)], [None if pair is None else _text(pair, "text_pair", split)], False
    assert isinstance(text, list | tuple)
    if not text:
        raise InputError("the batch is empty: give at least one text")
    if pair is not None:
        if not isinstance(pair, list | tuple) or len(pair) != len(text):
            what = f"{len(pair)} texts" if isinstance(pair, list | tuple) else type(pair).__name__
            raise InputError(f"text is a batch of {len(text)}, so text_pair must be a list as long, not {what}")
        firsts = [_text(first, f"text {i}", split) for i, first in enumerate(text)]
        return firsts, [_text(second, f"text_pair {i}", split) for i, second in enumerate(pair)], True
    if all(type(example) is str for example in text) and not split:
        return list(text), [None] * len(text), True
    examples = [_example(example, f"text {i}", split) for i, example in enumerate(text)]
    return [first for first, _ in examples], [second for _, second in examples], True


def truncate(row: Row, limits: Limits, *, specials: int, first_keeps_odd: bool) -> None:
    """Cuts the ends of a row's texts, in place, until they and ``specials`` special tokens fit into ``max_length``.

    ``first_keeps_odd`` says which text keeps the odd token if both are cut: see ``_longest_first_lengths``.
    ``InputError``: the only text that may be cut is too short, or the special tokens alone do not fit.
    """
    if limits.truncation == "do_not_truncate" or limits.max_length is None:
        return
    room = limits.max_length - specials
    if room < 0:
        raise InputError(f"max_length {limits.max_length} has no room for {specials} special tokens")
    n, m = len(row.first), len(row.second or ())
    excess = n + m - room
    if excess <= 0:
        return
    if limits.truncation == "longest_first":
        n, m = _longest_first_lengths(n, m, room, first_keeps_odd=first_keeps_odd)
    else:
        is_first = limits.truncation == "only_first"
        n, m = (n - excess, m) if is_first else (n, m - excess)
        if (n if is_first else m) <= 0:
            raise InputError(
                f"truncation={limits.truncation!r} cannot remove {excess} tokens to reach max_length "
                f"{limits.max_length}: that text is too short; use 'longest_first'"
            )
    del row.first[n:]
    if row.second is not None:
        del row.second[m:]


def _longest_first_lengths(n: int, m: int, room: int, *, first_keeps_odd: bool) -> tuple[int, int]:
    """Returns the lengths of two texts after the longer one has lost its last token again and again, until both fit.

    If both are cut and the room is odd, one text keeps one token more: the first if ``first_keeps_odd``; otherwise the
    text that was longer, and the second if both were equally long.
    """
    half = room // 2
    if min(n, m) <= half:
        return (n, room - n) if n <= m else (room - m, m)
    return (room - half, half) if first_keeps_odd or n > m else (half, room - half)


def padded_lengths(lengths: Sequence[int], limits: Limits) -> list[int]:
    """Returns the length of each row with its padding; a row that is already longer keeps its length."""
    if limits.padding == "do_not_pad":
        return list(lengths)
    wanted = max(lengths) if limits.padding == "longest" else (limits.max_length or 0)
    wanted += -wanted % limits.multiple
    return [max(length, wanted) for length in lengths]


def lay_out(
    first: Sequence[Value],
    second: Sequence[Value] | None,
    around: tuple[Value, Value, Value] | None,
    pad: Value,
    length: int,
) -> list[Value]:
    """Returns [CLS] first [SEP] second [SEP], padded to ``length``; serves ids, token types, masks and offsets alike.

    ``around`` has the values for [CLS], for the first [SEP] and for the second; with None all three are left out.
    """
    row = list(first) if around is None else [around[0], *first, around[1]]
    if second is not None:
        row += second
        if around is not None:
            row.append(around[2])
    if len(row) < length:
        row += [pad] * (length - len(row))
    return row


def parts(text: Text) -> Sequence[str]:
    """Returns the words of a text that is split into words, else the text as its only part."""
    return (text,) if isinstance(text, str) else text


def check_unicode(texts: Sequence[Text]) -> None:
    """Raises ``InputError`` for a lone surrogate: half of a character, which no Unicode encoding can store."""
    for text in texts:
        for part in parts(text):
            if not part.isascii() and (found := SURROGATE.search(part)):
                raise InputError(
                    f"{part[:40]!a} has a lone surrogate at {found.start()}, so it is not Unicode text; "
                    "decode its bytes again with errors='replace'"
                )


def _warn(what: str, remedy: str) -> None:
    warnings.warn(f"{what} has no effect: {remedy}", stacklevel=4)  # at the line that called the tokenizer


def _choice(name: str, value: object, by_bool: dict[bool, Any], names: tuple[str, ...]) -> Any:
    if isinstance(value, bool):
        return by_bool[value]
    if value not in names:
        raise InputError(f"{name} must be True, False or one of {', '.join(names)}, not {value!r}")
    return value


def _example(example: object, where: str, split: bool) -> tuple[Text, Text | None]:
    """Reads one example of a batch, a text or a pair of texts; with ``split`` each text is a list of words."""
    is_pair = isinstance(example, list | tuple) and (
        not split or (bool(example) and isinstance(example[0], list | tuple))
    )
    if not is_pair:
        return _text(example, where, split), None
    assert isinstance(example, list | tuple)
    if len(example) != 2:
        raise InputError(
            f"{where} is a {type(example).__name__} of {len(example)}; give a str, or a pair of exactly two texts"
        )
    return _text(example[0], f"{where}, first", split), _text(example[1], f"{where}, second", split)


def _text(value: object, where: str, split: bool) -> Text:
    if not split:
        if not isinstance(value, str):
            raise InputError(f"{where} is {_kind(value)}, not str")
        return value
    if not isinstance(value, list | tuple):
        raise InputError(f"{where} is {_kind(value)}, not a list of words (is_split_into_words=True)")
    for i, word in enumerate(value):
        if not isinstance(word, str):
            raise InputError(f"{where}, word {i} is {_kind(word)}, not str")
    return value


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
