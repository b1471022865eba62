"""``tokenizer.json``: the file of the ``tokenizers`` library, which holds vocabulary, options and recipe together.

The recipe is the normalizer, pre-tokenizer, model, post-processor and decoder. This module writes the recipe that
transformers has for BERT and LXMERT. A file with any other recipe is refused: the model was trained on other tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lxmert_export.errors import CheckpointError
from lxmert_export.tokenizer.settings import CONTINUATION, LONGEST_WORD, TokenizerSettings

PLAIN_TOKEN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
# Option of BertNormalizer → our option.
NORMALIZER_OPTIONS = {
    "lowercase": "do_lower_case",
    "strip_accents": "strip_accents",
    "handle_chinese_chars": "tokenize_chinese_chars",
}


def to_tokenizer_json(vocabulary: Mapping[str, int], settings: TokenizerSettings) -> dict[str, Any]:
    """Returns the content of tokenizer.json; as JSON, ``tokenizers.Tokenizer.from_str`` takes it."""
    by_id = sorted(settings.special_tokens, key=lambda token: vocabulary[token])
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocabulary[token], "content": token, **PLAIN_TOKEN} for token in by_id],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": settings.tokenize_chinese_chars,
            "strip_accents": settings.strip_accents,
            "lowercase": settings.do_lower_case,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _template(vocabulary, settings.cls_token, settings.sep_token),
        "decoder": {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": settings.unk_token,
            "continuing_subword_prefix": CONTINUATION,
            "max_input_chars_per_word": LONGEST_WORD,
            "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])),
        },
    }


def from_tokenizer_json(content: Mapping[str, Any], path: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """Returns the vocabulary and the options of a tokenizer.json. ``CheckpointError``: it is not BERT's recipe.

    Padding and truncation in the file are ignored: a call left them there, and here each call states its own.
    """
    model = _part(content, "model", path)
    # Files older than tokenizers 0.14 do not name the type of their model.
    if model.get("type", "WordPiece") != "WordPiece" or "merges" in model:
        raise CheckpointError(
            f"{path}: holds a {model.get('type', 'BPE')} model; LXMERT's tokenizer is a WordPiece model"
        )
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not all(type(index) is int for index in vocabulary.values()):
        raise CheckpointError(f"{path}: its model has no vocabulary (token: id)")
    normalizer = _part(content, "normalizer", path)
    stated: dict[str, Any] = {ours: normalizer[name] for name, ours in NORMALIZER_OPTIONS.items() if name in normalizer}
    if "unk_token" in model:
        stated["unk_token"] = model["unk_token"]
    for what, found, wanted in (
        ("its prefix for word continuations", model.get("continuing_subword_prefix", CONTINUATION), CONTINUATION),
        ("its limit of characters per word", model.get("max_input_chars_per_word", LONGEST_WORD), LONGEST_WORD),
        ("its normalizer", normalizer.get("type"), "BertNormalizer"),
        ("its normalizer's clean_text", normalizer.get("clean_text", True), True),
        ("its pre-tokenizer", _part(content, "pre_tokenizer", path).get("type"), "BertPreTokenizer"),
    ):
        if found != wanted:
            raise CheckpointError(f"{path}: {what} is {found!r}, not {wanted!r}: this is another model's tokenizer")
    return vocabulary, stated


def check_recipe(
    content: Mapping[str, Any], vocabulary: Mapping[str, int], settings: TokenizerSettings, path: Path
) -> None:
    """Raises ``CheckpointError`` if the file's added tokens or its template do not match the settings."""
    added = content.get("added_tokens") or []
    if not isinstance(added, list):
        raise CheckpointError(f"{path}: added_tokens is not a list")
    for token in added:
        check_added_token(token, token.get("id") if isinstance(token, dict) else None, vocabulary, settings, path)
    cls, sep = settings.cls_token, settings.sep_token
    older = {"type": "BertProcessing", "sep": [sep, vocabulary[sep]], "cls": [cls, vocabulary[cls]]}
    if content.get("post_processor") not in (None, older, _template(vocabulary, cls, sep)):
        raise CheckpointError(
            f"{path}: its post-processor does not make {cls} A {sep} B {sep}: this is another model's tokenizer"
        )


def check_added_token(
    token: object, index: object, vocabulary: Mapping[str, int], settings: TokenizerSettings, path: Path
) -> None:
    """Raises ``CheckpointError`` unless an added token is a special token with the vocabulary's id and BERT's flags."""
    content = token.get("content") if isinstance(token, dict) else token
    if content not in settings.special_tokens:
        raise CheckpointError(f"{path}: adds the token {content!r}; only the five special tokens are supported")
    if index != vocabulary[str(content)]:
        raise CheckpointError(
            f"{path}: {content} has the id {index} here and {vocabulary[str(content)]} in the vocabulary"
        )
    odd = {
        name
        for name in PLAIN_TOKEN
        if isinstance(token, dict) and token.get(name, PLAIN_TOKEN[name]) != PLAIN_TOKEN[name]
    }
    if odd:
        raise CheckpointError(
            f"{path}: {content} has {', '.join(sorted(odd))} set differently from BERT's, which is not supported"
        )


def _part(content: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    part = content.get(name)
    if not isinstance(part, dict):
        raise CheckpointError(f"{path}: it has no {name}, so it is not a BERT tokenizer")
    return part


def _template(vocabulary: Mapping[str, int], cls: str, sep: str) -> dict[str, Any]:
    def special(token: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": kind}}

    first = [special(cls, 0), {"Sequence": {"id": "A", "type_id": 0}}, special(sep, 0)]
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, {"Sequence": {"id": "B", "type_id": 1}}, special(sep, 1)],
        "special_tokens": {
            token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]} for token in sorted((cls, sep))
        },
    }
