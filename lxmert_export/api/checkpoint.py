"""Checkpoints in Python: read into the canonical model, and written in any dialect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lxmert_export.extras import TORCH, require
from lxmert_export.files import hub
from lxmert_export.spec.signature import Task

if TYPE_CHECKING:
    import torch

    from lxmert_export.checkpoint.dialects import Dialect
    from lxmert_export.model.pretrained import PreTrainedLxmert


def load_checkpoint(
    name_or_path: str | Path = hub.DEMO,
    *,
    task: Task | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    num_attention_heads: int | None = None,
    fresh_heads: bool = False,
) -> PreTrainedLxmert:
    """The canonical PyTorch model of a checkpoint, in eval mode; ``task`` defaults to the fullest head that it holds.

    ``CheckpointError``: whatever does not fit, all of it named at once. ``MissingExtra``: PyTorch is not installed.
    """
    require("reading a checkpoint", TORCH)
    from lxmert_export.checkpoint.read import read_checkpoint
    from lxmert_export.model.lxmert import MODELS

    checkpoint = read_checkpoint(
        name_or_path, task=task, revision=revision, num_attention_heads=num_attention_heads, fresh_heads=fresh_heads
    )
    return MODELS[checkpoint.task].from_checkpoint(checkpoint, dtype=dtype)


def save_checkpoint(
    model: PreTrainedLxmert, directory: str | Path, *, dialect: Dialect = "hf", overwrite: bool = False
) -> None:
    """Writes a model's weights and config into a directory: ``hf``, ``original`` or ``tf``."""
    model.save_pretrained(directory, dialect=dialect, overwrite=overwrite)
