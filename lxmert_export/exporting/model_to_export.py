"""The model that an export converts, read from a checkpoint or taken from memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.errors import ConversionError
from lxmert_export.exporting.options import ExportOptions
from lxmert_export.files.beside_weights import Companions
from lxmert_export.model.lxmert import MODELS, LxmertModel
from lxmert_export.model.plain_modules import unwrapped, why_not_plain
from lxmert_export.model.pretrained import PreTrainedLxmert
from lxmert_export.option_names import option
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Task


@dataclass(frozen=True)
class ModelToExport:
    """A module, its config and task, and where it came from.

    ``task`` is None for a user's own module. ``checkpoint`` is as in the manifest.
    ``companions`` are the tokenizer and label files that lay beside the weights.
    """

    module: nn.Module
    config: LxmertConfig
    task: Task | None
    name: str
    checkpoint: Mapping[str, Any]
    companions: Companions


def read_model(checkpoint: str | Path | nn.Module, options: ExportOptions) -> ModelToExport:
    """Reads the model to export: a checkpoint on disk, a hub name or a module in memory.

    Raises ``ConversionError`` for options that do not apply, such as a revision of a module in memory, and ``CheckpointError``
    for a faulty checkpoint.
    """
    if isinstance(checkpoint, str | Path):
        _refuse(options, ("config",), f"{checkpoint} is a checkpoint, which has its own config")
        return model_of_checkpoint(
            checkpoint,
            options.task,
            revision=options.revision,
            num_attention_heads=options.num_attention_heads,
            ignore_other_parts=options.ignore_other_parts,
        )
    _refuse(
        options,
        ("revision", "num_attention_heads", "ignore_other_parts"),
        "only for a checkpoint, not for a module in memory",
    )
    model = model_of_module(checkpoint, options.config)
    # Other targets than ONNX are not traced: their converters copy each weight by its name.
    if reason := why_not_plain(model.module, by_name=not options.row.own_modules):
        raise ConversionError(f"{model.name}: {reason}")
    if options.task not in (None, model.task):
        raise ConversionError(
            f"task {options.task}: the task of {model.name} is {model.task or 'none'}; leave {option('task')} out"
        )
    return model


def model_of_checkpoint(
    name_or_path: str | Path,
    task: Task | None,
    *,
    revision: str | None = None,
    num_attention_heads: int | None = None,
    ignore_other_parts: bool = False,
) -> ModelToExport:
    """Reads a checkpoint as a model of ``task`` (by default of its fullest head), with its tokenizer and label files."""
    checkpoint = read_checkpoint(
        name_or_path,
        task=task,
        revision=revision,
        num_attention_heads=num_attention_heads,
        ignore_other_parts=ignore_other_parts,
    )
    origin = checkpoint.source
    return ModelToExport(
        module=MODELS[checkpoint.task].from_checkpoint(checkpoint),
        config=checkpoint.config,
        task=checkpoint.task,
        name=origin.name,
        checkpoint={
            "dialect": origin.dialect,
            "name": origin.name,
            "files": [path.name for path in origin.paths],
            "sha256": origin.sha256,
            "unused_heads": list(checkpoint.unused),
            **({"stripped": origin.stripped} if origin.stripped else {}),
            **({"other_parts": list(origin.other_parts)} if origin.other_parts else {}),
            **({"guessed_attention_heads": checkpoint.config.num_attention_heads} if checkpoint.guessed_heads else {}),
            **({"ignored_layer_norm_eps": checkpoint.ignored_eps} if checkpoint.ignored_eps else {}),
        },
        companions=checkpoint.companions,
    )


def model_of_module(module: nn.Module, config: LxmertConfig | None = None) -> ModelToExport:
    """Describes a module in memory: one of our models, or a user's own module; ``torch.compile`` and the like are taken off.

    Raises ``ConversionError`` if it is no PyTorch module, or contains no ``LxmertModel`` and ``config`` is None.
    """
    if not isinstance(module, nn.Module):
        raise ConversionError(_why_no_module(module))
    module = unwrapped(module)
    backbone = next((part for part in module.modules() if isinstance(part, LxmertModel)), None)
    if backbone is None and config is None:
        raise ConversionError(_why_no_lxmert(module))
    return ModelToExport(
        module=module,
        config=config or backbone.config,  # type: ignore[union-attr]  # not None if config is
        task=module.task if isinstance(module, PreTrainedLxmert) else None,
        name=type(module).__name__,
        checkpoint={"dialect": None, "name": type(module).__name__, "sha256": None, "unused_heads": []},
        companions=_companions_of(module),
    )


def _why_no_module(given: object) -> str:
    name = type(given).__name__
    if any(base.__module__.split(".")[0] == "keras" for base in type(given).__mro__):
        return f"{name} is a Keras model: save it with save_pretrained(DIRECTORY), and give that directory"
    return f"{name} is no checkpoint: give a path, a name on the hub, or a PyTorch module"


def _why_no_lxmert(module: nn.Module) -> str:
    name = type(module).__name__
    if type(module).__module__.split(".")[0] == "transformers":
        return f"{name} is a model of the transformers library: save it with save_pretrained(DIRECTORY), and give that directory"
    return f"{name} holds no LxmertModel of lxmert_export; pass its config, which says which ids it takes"


def _companions_of(module: nn.Module) -> Companions:
    """What lay beside the weights that one of our models in the module was loaded from."""
    loaded = (part.companions for part in module.modules() if isinstance(part, PreTrainedLxmert))
    return next((companions for companions in loaded if companions.files), Companions())


def _refuse(options: ExportOptions, names: tuple[str, ...], reason: str) -> None:
    if given := [name for name in names if getattr(options, name) not in (None, False)]:
        raise ConversionError(f"{', '.join(map(option, given))}: {reason}; leave it out")
