"""Reads the tokenizer files that transformers writes, strictly, and writes all four of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lxmert_export.errors import CheckpointError, ConfigError
from lxmert_export.files.appearing_together import directory_made
from lxmert_export.files.atomic_files import replace_files
from lxmert_export.files.beside_weights import VOCABULARY_FILES
from lxmert_export.files.hub import locate_tokenizer
from lxmert_export.files.json_files import read_bytes, read_json
from lxmert_export.files.lfs_pointers import not_copied
from lxmert_export.files.limits import LARGEST_COMPANION, MOST_WORDS
from lxmert_export.tokenizer.settings import OPTIONS, SPECIAL_TOKENS, TokenizerSettings, check_vocabulary
from lxmert_export.tokenizer.tokenizer_json import (
    PLAIN_TOKEN,
    check_added_token,
    check_recipe,
    from_tokenizer_json,
    to_tokenizer_json,
)

VOCABULARY_FILE, TOKENIZER_FILE = VOCABULARY_FILES
CONFIG_FILE, SPECIAL_TOKENS_FILE = "tokenizer_config.json", "special_tokens_map.json"
ADDED_TOKENS_FILE = "added_tokens.json"  # transformers' slow tokenizers wrote it when tokens were added to a vocabulary
TOKENIZER_CLASS = "LxmertTokenizer"
# Values of tokenizer_class that mean this same tokenizer; transformers 5 writes BertTokenizer.
SAME_CLASSES = (
    TOKENIZER_CLASS,
    "LxmertTokenizerFast",
    "BertTokenizer",
    "BertTokenizerFast",
    "PreTrainedTokenizerFast",
    "TokenizersBackend",
)
# Other options of a tokenizer_config.json, each with the only value that is supported.
FIXED_OPTIONS: dict[str, Any] = {"padding_side": "right", "truncation_side": "right", "do_basic_tokenize": True}
EMPTY_OPTIONS = ("never_split", "additional_special_tokens", "extra_special_tokens")


def read_tokenizer(
    name_or_path: str | Path, *, revision: str | None = None, keywords: Mapping[str, Any]
) -> tuple[dict[str, int], TokenizerSettings]:
    """Reads the vocabulary (token: id) and the options of a directory, a vocab.txt or tokenizer.json, or a hub name.

    Options come from the folder of the vocabulary. If several places state an option, the first of these counts:
    ``keywords``, tokenizer_config.json, special_tokens_map.json, tokenizer.json.
    ``CheckpointError``: files are missing, damaged or contradict each other, or are not those of a BERT tokenizer.
    """
    place = locate_tokenizer(name_or_path, revision=revision)
    text_file, json_file = _vocabulary_files(place)
    vocabulary = None if text_file is None else read_vocabulary(text_file)
    recipe: dict[str, Any] = {}
    stated: dict[str, Any] = {}
    if json_file is not None:
        recipe = _read_object(json_file)
        same, stated = from_tokenizer_json(recipe, json_file)
        if vocabulary is not None and vocabulary != same:
            raise CheckpointError(f"{json_file}: {_difference(vocabulary, same)}; remove the file that is wrong")
        vocabulary = same
    source = json_file or text_file
    assert vocabulary is not None and source is not None
    beside = {name: _read_if_there(source.parent / name) for name in (SPECIAL_TOKENS_FILE, CONFIG_FILE)}
    for name, content in beside.items():
        stated |= _stated_options(content, source.parent / name)
    try:
        settings = TokenizerSettings(**{**stated, **keywords})
    except ConfigError as error:
        raise CheckpointError(f"{source.parent}: {error}") from error
    check_vocabulary(vocabulary, settings, source)
    if json_file is not None:
        check_recipe(recipe, vocabulary, settings, json_file)
    _check_added_tokens(beside[CONFIG_FILE], vocabulary, settings, source.parent)
    return vocabulary, settings


def read_vocabulary(path: Path) -> dict[str, int]:
    """Reads a vocab.txt as token: line number, counted from zero.

    ``CheckpointError``: the file is empty or not UTF-8, or has a byte order mark, or blank, repeated or Windows lines.
    """
    try:
        content = read_bytes(path, largest=LARGEST_COMPANION)
        if (words := content.count(b"\n")) > MOST_WORDS:
            raise ValueError(f"has {words} lines, more than the {MOST_WORDS} that a vocabulary may have")
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path}: is not a vocabulary in UTF-8: byte {error.start} is {error.object[error.start]:#x}"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if problem := not_copied(content):
        raise CheckpointError(f"{path}: {problem}")
    if lines[-1] == "":  # the file ends with a line break
        lines.pop()
    if lines[0].startswith("\ufeff"):
        raise CheckpointError(
            f"{path}: begins with a byte order mark, which would be part of its first token; remove it"
        )
    vocabulary: dict[str, int] = {}
    for number, token in enumerate(lines):
        if "\r" in token:
            raise CheckpointError(
                f"{path}: line {number + 1} has a carriage return (Windows line ends?); save it with Unix line ends"
            )
        if not token.strip():
            raise CheckpointError(f"{path}: line {number + 1} is blank, and would count as a token; remove it")
        if (first := vocabulary.setdefault(token, number)) != number:
            raise CheckpointError(f"{path}: lines {first + 1} and {number + 1} are the same token, {token!r}; keep one")
    return vocabulary


def write_tokenizer(
    directory: str | Path, vocabulary: Mapping[str, int], settings: TokenizerSettings
) -> tuple[str, ...]:
    """Writes all four files into a directory and returns their paths; other files there are left alone.

    Each file appears whole or not at all. ``CheckpointError``: a file cannot be written; the old files are restored.
    """
    place = Path(directory)
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    special = {name: getattr(settings, name) for name in SPECIAL_TOKENS}
    files = {
        VOCABULARY_FILE: "".join(f"{token}\n" for token in tokens),
        TOKENIZER_FILE: _json(to_tokenizer_json(vocabulary, settings)),
        CONFIG_FILE: _json(_tokenizer_config(vocabulary, settings)),
        SPECIAL_TOKENS_FILE: _json(special),
    }
    try:
        with directory_made(place):
            replace_files(place, {name: text.encode() for name, text in files.items()})
    except OSError as error:
        raise CheckpointError(f"{place}: cannot be written: {error.strerror or error}; nothing was changed") from error
    return tuple(str(place / name) for name in files)


def _vocabulary_files(place: Path) -> tuple[Path | None, Path | None]:
    """Finds vocab.txt and tokenizer.json; a path to a .txt or .json file selects that file alone."""
    if place.is_file() and place.suffix == ".txt":
        return place, None
    if place.is_file() and place.suffix == ".json":
        return None, place
    directory = place if place.is_dir() else place.parent
    text_file, json_file = (directory / name if (directory / name).is_file() else None for name in VOCABULARY_FILES)
    if text_file is None and json_file is None:
        raise CheckpointError(f"{place}: there is no tokenizer here (no {' or '.join(VOCABULARY_FILES)})")
    return text_file, json_file


def _stated_options(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Reads our options from one of the smaller files. ``CheckpointError``: it asks for something unsupported."""
    kind = content.get("tokenizer_class")
    if kind not in (None, *SAME_CLASSES):
        raise CheckpointError(f"{path}: tokenizer_class is {kind!r}, not {TOKENIZER_CLASS!r} or another of BERT's")
    for name, wanted in FIXED_OPTIONS.items():
        if content.get(name, wanted) != wanted:
            raise CheckpointError(f"{path}: {name} is {content[name]!r}; only {wanted!r} is supported")
    for name in EMPTY_OPTIONS:
        if content.get(name):
            raise CheckpointError(
                f"{path}: {name} is {content[name]!r}, but only the five special tokens are supported"
            )
    stated = {name: content[name] for name in OPTIONS if name in content}
    for name in SPECIAL_TOKENS:
        if isinstance(value := stated.get(name), dict):  # an AddedToken
            if odd := [flag for flag in ("lstrip", "rstrip", "single_word") if value.get(flag)]:
                raise CheckpointError(f"{path}: {name} has {', '.join(odd)} set, which is not supported")
            stated[name] = value.get("content")
    length = stated.get("model_max_length")
    if isinstance(length, float) and length.is_integer():  # 1e30, as some programs write it
        stated["model_max_length"] = int(length)
    return stated


def _check_added_tokens(
    config: Mapping[str, Any], vocabulary: Mapping[str, int], settings: TokenizerSettings, directory: Path
) -> None:
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise CheckpointError(f"{directory / CONFIG_FILE}: added_tokens_decoder is not a JSON object")
    for index, token in decoder.items():
        number = int(index) if index.isdecimal() else index
        check_added_token(token, number, vocabulary, settings, directory / CONFIG_FILE)
    for token, index in _read_if_there(directory / ADDED_TOKENS_FILE).items():
        check_added_token(token, index, vocabulary, settings, directory / ADDED_TOKENS_FILE)


def _tokenizer_config(vocabulary: Mapping[str, int], settings: TokenizerSettings) -> dict[str, Any]:
    options = {name: value for name, value in asdict(settings).items() if name != "clean_up_tokenization_spaces"}
    if settings.clean_up_tokenization_spaces is not None:
        options["clean_up_tokenization_spaces"] = settings.clean_up_tokenization_spaces
    by_id = sorted(settings.special_tokens, key=lambda token: vocabulary[token])
    added = {str(vocabulary[token]): {"content": token, **PLAIN_TOKEN} for token in by_id}
    return {"added_tokens_decoder": added, **options, **FIXED_OPTIONS, "tokenizer_class": TOKENIZER_CLASS}


def _read_if_there(path: Path) -> dict[str, Any]:
    return _read_object(path) if path.is_file() else {}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path, largest=LARGEST_COMPANION)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, not {type(content).__name__}")
    return content


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _difference(text: Mapping[str, int], other: Mapping[str, int]) -> str:
    if len(text) != len(other):
        return f"its vocabulary has {len(other)} tokens, {VOCABULARY_FILE} beside it has {len(text)}"
    token = next(token for token, index in text.items() if other.get(token) != index)
    return f"its vocabulary gives {token!r} the id {other.get(token)}, {VOCABULARY_FILE} beside it gives {text[token]}"
