"""The tokenizer of a name or path, in Rust where that can be had."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lxmert_export.tokenizer.pretrained import PreTrainedLxmertTokenizer


def load_tokenizer(name_or_path: str | Path, *, revision: str | None = None) -> PreTrainedLxmertTokenizer:
    """The tokenizer of a directory (a checkpoint's or an artifact's), of its file, or of a hub name.

    ``LxmertTokenizerFast`` where the package ``tokenizers`` is installed, else ``LxmertTokenizer``; docs/tokenizers.md says
    where they differ. ``CheckpointError``: there is none, or it is damaged.
    """
    if find_spec("tokenizers") is not None:
        from lxmert_export.tokenizer.fast import LxmertTokenizerFast

        return LxmertTokenizerFast.from_pretrained(name_or_path, revision=revision)
    from lxmert_export.tokenizer.pure import LxmertTokenizer

    return LxmertTokenizer.from_pretrained(name_or_path, revision=revision)
