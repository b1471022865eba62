"""The vocabulary and the options of a tokenizer, the same for both classes, and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypedDict

from lxmert_export.errors import CheckpointError, ConfigError

# What Hugging Face writes for "no limit". A vocab.txt alone states no length.
NO_LIMIT = int(1e30)
# In the order in which Hugging Face lists them.
SPECIAL_TOKENS = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
CONTINUATION = "##"
LONGEST_WORD = 100  # characters; a longer word becomes [UNK]


class SettingsKeywords(TypedDict, total=False):
    """The keywords that constructors and ``from_pretrained`` take; each overrides the files."""

    do_lower_case: bool
    strip_accents: bool | None
    tokenize_chinese_chars: bool
    model_max_length: int
    clean_up_tokenization_spaces: bool | None
    unk_token: str
    sep_token: str
    pad_token: str
    cls_token: str
    mask_token: str


@dataclass(frozen=True)
class TokenizerSettings:
    """The options of a tokenizer, with BERT's defaults.

    ``strip_accents=None`` follows ``do_lower_case``; ``clean_up_tokenization_spaces=None`` is the default of the class.
    ``ConfigError``: an option has a wrong type or range, or two special tokens are equal.
    Source: transformers ``BertTokenizer`` and the ``tokenizer_config.json`` it writes.
    """

    do_lower_case: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True
    model_max_length: int = NO_LIMIT
    clean_up_tokenization_spaces: bool | None = None
    unk_token: str = "[UNK]"
    sep_token: str = "[SEP]"
    pad_token: str = "[PAD]"
    cls_token: str = "[CLS]"
    mask_token: str = "[MASK]"

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_option(field.name, str(field.type), getattr(self, field.name))
        if len(set(self.special_tokens)) < len(SPECIAL_TOKENS):
            raise ConfigError(f"the special tokens {', '.join(self.special_tokens)} are not distinct")

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The five tokens, in the order of ``SPECIAL_TOKENS``."""
        return tuple(getattr(self, name) for name in SPECIAL_TOKENS)

    @property
    def strips_accents(self) -> bool:
        """Whether accents are stripped: ``strip_accents``, or ``do_lower_case`` if that is None."""
        return self.do_lower_case if self.strip_accents is None else self.strip_accents


OPTIONS = tuple(field.name for field in fields(TokenizerSettings))


def check_vocabulary(vocabulary: Mapping[str, int], settings: TokenizerSettings, source: object) -> None:
    """Checks that all special tokens are there, the ids are 0, 1, 2, … and each token fits on a line of UTF-8.

    ``CheckpointError``: one of these is not so.
    """
    if missing := [token for token in settings.special_tokens if token not in vocabulary]:
        raise CheckpointError(
            f"{source}: the vocabulary of {len(vocabulary)} tokens lacks {', '.join(missing)}; is it a BERT vocabulary?"
        )
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise CheckpointError(f"{source}: the {len(vocabulary)} tokens do not have the ids 0 to {len(vocabulary) - 1}")
    for token, index in vocabulary.items():
        # Such a token cannot be written as one line of UTF-8, and no text contains it.
        if not token or "\n" in token or "\r" in token or not _is_unicode(token):
            raise CheckpointError(
                f"{source}: token {index} is {token!r}; it must be one line of text, valid and not empty"
            )


def _is_unicode(token: str) -> bool:
    try:
        token.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _check_option(name: str, kind: str, value: object) -> None:
    right = {
        "bool": isinstance(value, bool),
        "bool | None": value is None or isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool) and value > 0,
        "str": isinstance(value, str) and value != "",
    }[kind]
    if not right:
        wanted = {"bool": "true or false", "bool | None": "true, false or null", "int": "a positive integer"}
        raise ConfigError(f"{name} must be {wanted.get(kind, 'a token')}, not {value!r}")
