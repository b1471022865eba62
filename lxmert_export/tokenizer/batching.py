"""Texts → rows of equal length: what a call may be given, truncation, padding, the special tokens around a text."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args

from lxmert_export.errors import InputError
from lxmert_export.tokenizer.settings import NO_LIMIT

LONGEST = 1_000_000  # tokens of a row; padding to a slip of the finger would take all memory
Padding = Literal["longest", "max_length", "do_not_pad"]
Truncation = Literal["longest_first", "only_first", "only_second", "do_not_truncate"]
Value = TypeVar("Value")
SURROGATE = re.compile("[\ud800-\udfff]")
# A text, or the words of one.
Text = str | Sequence[str]


class Source(Protocol):
    """Where the ids of a text come from; a ``tokenizers.Encoding`` is one."""

    @property
    def tokens(self) -> Sequence[str]: ...  # noqa: D102  (the tokens as strings)
    @property
    def word_ids(self) -> Sequence[int | None]: ...  # noqa: D102  (the number of the word that each is part of)
    @property
    def offsets(self) -> Sequence[tuple[int, int]]: ...  # noqa: D102  (its first character, and the one after its last)


@dataclass(slots=True)
class Row:
    """One example: the ids of a text and of the one paired with it, without special tokens; and their sources, if known."""

    first: list[int]
    second: list[int] | None = None
    first_source: Source | None = None
    second_source: Source | None = None


@dataclass(frozen=True)
class Limits:
    """How long rows may be, and how long they shall be; ``max_length`` None where neither needs one."""

    truncation: Truncation
    padding: Padding
    max_length: int | None
    multiple: int


def read_limits(
    padding: object, truncation: object, max_length: int | None, multiple: int | None, model_max_length: int
) -> Limits:
    """What the keywords of a call come to, as in transformers; ``InputError`` where they are out of range or contradict.

    A ``max_length`` alone means truncation. What has no effect is told by a warning: a length where nothing uses one, or
    truncation and padding where neither the call nor the tokenizer has a length.
    """
    for name, value in (("max_length", max_length), ("pad_to_multiple_of", multiple)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(f"{name} must be a positive integer, not {value!r}")
    if truncation is None:
        truncation = max_length is not None and padding is False
    cut = _choice("truncation", truncation, {True: "longest_first", False: "do_not_truncate"}, get_args(Truncation))
    pad = _choice("padding", padding, {True: "longest", False: "do_not_pad"}, get_args(Padding))
    if max_length is not None and cut == "do_not_truncate" and pad != "max_length":
        _warn(f"max_length={max_length}", "truncation=True cuts to it, padding='max_length' pads to it")
    if multiple is not None and pad == "do_not_pad":
        _warn(f"pad_to_multiple_of={multiple}", "padding=True pads")
    if max_length is not None and max_length > LONGEST:
        raise InputError(f"max_length {max_length} is more than {LONGEST:,}; no model reads so many tokens")
    if max_length is None and model_max_length < NO_LIMIT:
        max_length = model_max_length
    if max_length is None:
        for name, choice in (("truncation", cut), ("padding", pad)):
            if choice in ("longest_first", "only_first", "only_second", "max_length"):
                _warn(f"{name}={choice!r}", "give max_length, for the tokenizer has no model_max_length")
        cut, pad = "do_not_truncate", "do_not_pad" if pad == "max_length" else pad
    if cut != "do_not_truncate" and pad != "do_not_pad" and multiple and max_length and max_length % multiple:
        raise InputError(f"max_length {max_length} is not a multiple of pad_to_multiple_of {multiple}")
    return Limits(cut, pad, max_length, multiple or 1)


def read_examples(text: object, pair: object, split: bool) -> tuple[list[Text], list[Text | None], bool]:
    """The first texts, the second ones (None where there is none), and whether it is a batch.

    ``InputError`` for what is neither text nor words, telling where it stands.
    """
    if not split:
        batched = isinstance(text, list | tuple)
    else:
        batched = isinstance(text, list | tuple) and bool(text) and isinstance(text[0], list | tuple)
    if not batched:
        return [_text(text, "the text", split)], [None if pair is None else _text(pair, "text_pair", split)], False
    assert isinstance(text, list | tuple)
    if not text:
        raise InputError("the batch is empty: there is no text in it")
    if pair is not None:
        if not isinstance(pair, list | tuple) or len(pair) != len(text):
            what = f"{len(pair)} texts" if isinstance(pair, list | tuple) else type(pair).__name__
            raise InputError(f"text is a batch of {len(text)}, so text_pair must be a list as long, not {what}")
        firsts = [_text(one, f"text {i}", split) for i, one in enumerate(text)]
        return firsts, [_text(one, f"text_pair {i}", split) for i, one in enumerate(pair)], True
    if all(type(one) is str for one in text) and not split:
        return list(text), [None] * len(text), True
    examples = [_example(one, f"text {i}", split) for i, one in enumerate(text)]
    return [first for first, _ in examples], [second for _, second in examples], True


def truncate(row: Row, limits: Limits, *, specials: int, first_keeps_odd: bool) -> None:
    """Cuts a row to ``max_length``, ``specials`` included, at the end of its texts.

    ``InputError`` where the one text that may be cut is too short, or the special tokens alone are too many.
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
        n, m = _longest_cut_first(n, m, room, first_keeps_odd=first_keeps_odd)
    else:
        is_first = limits.truncation == "only_first"
        n, m = (n - excess, m) if is_first else (n, m - excess)
        if (n if is_first else m) <= 0:
            raise InputError(
                f"truncation={limits.truncation!r} cannot take {excess} tokens away to reach max_length "
                f"{limits.max_length}: that text is too short; use 'longest_first'"
            )
    del row.first[n:]
    if row.second is not None:
        del row.second[m:]


def _longest_cut_first(n: int, m: int, room: int, *, first_keeps_odd: bool) -> tuple[int, int]:
    """What is left of two texts when the longer one loses its last token, until both fit.

    Where both are cut and the room is odd, the first keeps one more, or the one that was longer, the second if none was.
    """
    half = room // 2
    if min(n, m) <= half:
        return (n, room - n) if n <= m else (room - m, m)
    return (room - half, half) if first_keeps_odd or n > m else (half, room - half)


def padded_lengths(lengths: Sequence[int], limits: Limits) -> list[int]:
    """The length of each row with its padding; a row that is longer already stays as it is."""
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
    """[CLS] first [SEP] second [SEP] and padding up to ``length``; ``around`` has the values for the special tokens.

    Whatever belongs to tokens is laid out by it: ids, types, masks, offsets. The last separator has the third value.
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
    """The words of a text that is split already, else the text."""
    return (text,) if isinstance(text, str) else text


def check_unicode(texts: Sequence[Text]) -> None:
    """``InputError`` for a lone surrogate: half of a character, which no encoding of Unicode can hold."""
    for text in texts:
        for part in parts(text):
            if not part.isascii() and (found := SURROGATE.search(part)):
                raise InputError(
                    f"{part[:40]!a} holds a lone surrogate at {found.start()}, which is not Unicode text; "
                    "decode the bytes that it came from anew (errors='replace')"
                )


def _warn(what: str, remedy: str) -> None:
    warnings.warn(f"{what} has no effect: {remedy}", stacklevel=4)  # at the line that called the tokenizer


def _choice(name: str, value: object, by_bool: dict[bool, Any], names: tuple[str, ...]) -> Any:
    if isinstance(value, bool):
        return by_bool[value]
    if value not in names:
        raise InputError(f"{name} must be True, False or one of {', '.join(names)}, not {value!r}")
    return value


def _example(one: object, where: str, split: bool) -> tuple[Text, Text | None]:
    """A text, or a pair of texts; of words, a list of them or a pair of lists."""
    is_pair = isinstance(one, list | tuple) and (not split or (bool(one) and isinstance(one[0], list | tuple)))
    if not is_pair:
        return _text(one, where, split), None
    assert isinstance(one, list | tuple)
    if len(one) != 2:
        raise InputError(f"{where} is a {type(one).__name__} of {len(one)}; a text is a str, a pair has two of them")
    return _text(one[0], f"{where}, first", split), _text(one[1], f"{where}, second", split)


def _text(one: object, where: str, split: bool) -> Text:
    if not split:
        if not isinstance(one, str):
            raise InputError(f"{where} is {_kind(one)}, not str")
        return one
    if not isinstance(one, list | tuple):
        raise InputError(f"{where} is {_kind(one)}, not a list of words (is_split_into_words=True)")
    for i, word in enumerate(one):
        if not isinstance(word, str):
            raise InputError(f"{where}, word {i} is {_kind(word)}, not str")
    return one


def _kind(one: object) -> str:
    return "None" if one is None else type(one).__name__
