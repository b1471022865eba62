"""Reading checkpoints into the canonical model, and writing them in any dialect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lxmert_export.extras import TORCH, require
from lxmert_export.files import hub
from lxmert_export.spec.signature import Task

if TYPE_CHECKING:
    import torch

    from lxmert_export.checkpoint.dialects import Dialect
    from lxmert_export.checkpoint.read import Checkpoint
    from lxmert_export.model.pretrained import PreTrainedLxmert


def load_checkpoint(
    name_or_path: str | Path = hub.DEMO,
    *,
    task: Task | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    num_attention_heads: int | None = None,
    fresh_heads: bool = False,
    ignore_other_parts: bool = False,
) -> PreTrainedLxmert:
    """Returns the canonical PyTorch model of a checkpoint, in eval mode.

    | parameter | meaning |
    |---|---|
    | ``name_or_path`` | a file, a directory, a hub name (``owner/name``), or ``"demo"``, the built-in checkpoint |
    | ``task`` | default: the first of pretraining, question-answering and nlvr2 whose heads the checkpoint has, else model |
    | ``dtype`` | floating-point dtype of the model; default: as stored |
    | ``revision`` | branch, tag or commit of a hub name |
    | ``num_attention_heads`` | for checkpoints without a ``config.json``; default: hidden size / 64 |
    | ``fresh_heads`` | initialise missing heads at random, instead of raising an error |
    | ``ignore_other_parts`` | leave out what else the file holds: other parts of a larger model, instead of raising an error |

    The LXMERT is found in nested dictionaries and behind any prefix (``state_dict``, ``module.``, ``_orig_mod.``, ``model.``);
    a line on the log says what was stripped.

    Errors: ``CheckpointError``: the checkpoint cannot be read, or tensors are missing, unexpected, of the wrong shape or not
    finite; all of them are named. ``MissingExtra``: PyTorch is not installed.
    """
    require("reading a checkpoint", TORCH)
    from lxmert_export.checkpoint.read import read_checkpoint
    from lxmert_export.model.lxmert import MODELS

    checkpoint = read_checkpoint(
        name_or_path,
        task=task,
        revision=revision,
        num_attention_heads=num_attention_heads,
        fresh_heads=fresh_heads,
        ignore_other_parts=ignore_other_parts,
    )
    return MODELS[checkpoint.task].from_checkpoint(checkpoint, dtype=dtype)


def save_checkpoint(
    model: PreTrainedLxmert, directory: str | Path, *, dialect: Dialect = "hf", overwrite: bool = False
) -> None:
    """Writes a model's weights and config into a directory, in one of three dialects.

    ``overwrite`` replaces a directory that this function or ``convert`` wrote, if nothing else lies in it.

    | dialect | weights are written as |
    |---|---|
    | ``hf`` | Hugging Face PyTorch (``model.safetensors``) |
    | ``original`` | airsplay/lxmert (``model_LXRT.pth``; ``BEST.pth`` with a fine-tuned head) |
    | ``tf`` | Hugging Face TensorFlow (``tf_model.h5``) |
    """
    from torch import nn

    from lxmert_export.errors import CheckpointError
    from lxmert_export.model.plain_modules import unwrapped
    from lxmert_export.model.pretrained import PreTrainedLxmert

    plain = unwrapped(model) if isinstance(model, nn.Module) else model
    if not isinstance(plain, PreTrainedLxmert):
        raise CheckpointError(
            f"{type(plain).__name__} is no model of lxmert_export: give the one inside it, or call its own save_pretrained"
        )
    plain.save_pretrained(directory, dialect=dialect, overwrite=overwrite)


def convert_checkpoint(
    name_or_path: str | Path,
    directory: str | Path,
    *,
    dialect: Dialect,
    task: Task | None = None,
    revision: str | None = None,
    num_attention_heads: int | None = None,
    ignore_other_parts: bool = False,
    overwrite: bool = False,
) -> Checkpoint:
    """Writes a checkpoint in another dialect, bit for bit; returns what was read.

    ``overwrite`` replaces what this function or ``save_checkpoint`` wrote, if nothing else lies in it, and never the source.
    ``CheckpointError``: the same weights would compute something else there, because TensorFlow's LXMERT obeys the
    layer_norm_eps of ``config.json`` and PyTorch's ignores it; the message names both results.
    """
    require("reading a checkpoint", TORCH)
    from lxmert_export.checkpoint.read import read_checkpoint
    from lxmert_export.errors import CheckpointError
    from lxmert_export.files.atomic_directory import refuse_existing, refuse_source
    from lxmert_export.model.lxmert import MODELS
    from lxmert_export.spec.config import PYTORCH_EPS

    refuse_source(name_or_path, Path(directory))
    refuse_existing(Path(directory), overwrite=overwrite, kind="checkpoint")
    checkpoint = read_checkpoint(
        name_or_path,
        task=task,
        revision=revision,
        num_attention_heads=num_attention_heads,
        ignore_other_parts=ignore_other_parts,
    )
    for file in checkpoint.source.paths:  # a file of the source may be a link into the output
        refuse_source(file, Path(directory))
    if dialect == "tf" and checkpoint.ignored_eps is not None:
        raise CheckpointError(
            f"{name_or_path}: its config.json says layer_norm_eps {checkpoint.ignored_eps:g}: PyTorch's LXMERT ignores it and "
            f"computes with {PYTORCH_EPS:g}, and TensorFlow's would compute with {checkpoint.ignored_eps:g}: set it to "
            f"{PYTORCH_EPS:g} in config.json to keep what PyTorch computes"
        )
    model = MODELS[checkpoint.task].from_checkpoint(checkpoint)
    model.save_pretrained(directory, dialect=dialect, overwrite=overwrite)
    return checkpoint
