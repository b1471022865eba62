"""What is converted: a checkpoint or a module, read and named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from lxmert_export.artifact.directory import COMPANION_FILES
from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.errors import ConversionError
from lxmert_export.model.lxmert import MODELS, LxmertModel
from lxmert_export.model.pretrained import PreTrainedLxmert
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Task

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Source:
    """What is converted: a module, its config and task, and where it came from."""

    module: nn.Module
    config: LxmertConfig
    task: Task | None
    name: str
    checkpoint: Mapping[str, Any]
    companions: tuple[Path, ...] = ()


def source_of_checkpoint(
    name_or_path: str | Path, task: Task | None, *, revision: str | None, num_attention_heads: int | None
) -> Source:
    """Reads a checkpoint into a model of its task; its tokenizer and label files come along."""
    checkpoint = read_checkpoint(name_or_path, task=task, revision=revision, num_attention_heads=num_attention_heads)
    origin = checkpoint.source
    directory = origin.paths[0].parent
    return Source(
        module=MODELS[checkpoint.task].from_checkpoint(checkpoint),
        config=checkpoint.config,
        task=checkpoint.task,
        name=origin.name,
        checkpoint={
            "dialect": origin.dialect,
            "name": origin.name,
            "sha256": origin.sha256,
            "unused_heads": list(checkpoint.unused),
        },
        companions=tuple(directory / name for name in COMPANION_FILES if (directory / name).is_file()),
    )


def source_of_module(module: nn.Module, config: LxmertConfig | None) -> Source:
    """A module in memory: one of our models, or a user's own that holds an ``LxmertModel`` somewhere."""
    backbone = next((part for part in module.modules() if isinstance(part, LxmertModel)), None)
    if backbone is None and config is None:
        raise ConversionError(f"{type(module).__name__} holds no LxmertModel; pass its config to say what ids it takes")
    return Source(
        module=module,
        config=config or backbone.config,  # type: ignore[union-attr]  # one of the two is there
        task=module.task if isinstance(module, PreTrainedLxmert) else None,
        name=type(module).__name__,
        checkpoint={"dialect": None, "name": type(module).__name__, "sha256": None, "unused_heads": []},
    )
