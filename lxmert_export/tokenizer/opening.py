"""Loads the tokenizer of a name or path, in Rust if the package ``tokenizers`` is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lxmert_export.tokenizer.pretrained import PreTrainedLxmertTokenizer


def load_tokenizer(name_or_path: str | Path, *, revision: str | None = None) -> PreTrainedLxmertTokenizer:
    """Loads the tokenizer of a checkpoint or artifact directory, of a vocab.txt or tokenizer.json, or of a hub name.

    Returns ``LxmertTokenizerFast`` if the package ``tokenizers`` is installed, else ``LxmertTokenizer``;
    docs/tokenizers.md says where they differ. ``CheckpointError``: no tokenizer is there, or its files are damaged.
    """
    if find_spec("tokenizers") is not None:
        from lxmert_export.tokenizer.fast import LxmertTokenizerFast

        return LxmertTokenizerFast.from_pretrained(name_or_path, revision=revision)
    from lxmert_export.tokenizer.pure import LxmertTokenizer

    return LxmertTokenizer.from_pretrained(name_or_path, revision=revision)
