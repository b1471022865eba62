"""Writes a checkpoint in one of the dialects. It is read back and compared bit for bit before it takes its final name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor

from lxmert_export.checkpoint.dialects import Dialect
from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.errors import CheckpointError
from lxmert_export.extras import H5PY, require
from lxmert_export.files.atomic_directory import atomic_directory
from lxmert_export.files.beside_weights import Companions
from lxmert_export.files.patient_file import patient_file
from lxmert_export.files.replacing import FINE_TUNED_FILE, HF_FILE, PRETRAINED_FILE, TENSORFLOW_FILE
from lxmert_export.files.safetensors_files import failed_writes
from lxmert_export.spec.config import CONFIG_FILE, PYTORCH_EPS, LxmertConfig
from lxmert_export.spec.signature import Task
from lxmert_export.spec.weight_names import BACKBONE, TIED_DECODER, WORD_EMBEDDING, Weight, weight_names

# The name of the weights' class in config.json. transformers has no class for NLVR2: that name is ours.
ARCHITECTURES: dict[Task, str] = {
    "model": "LxmertModel",
    "pretraining": "LxmertForPreTraining",
    "question-answering": "LxmertForQuestionAnswering",
    "nlvr2": "LxmertForNLVR2",
}


def write_checkpoint(
    tensors: Mapping[str, Tensor],
    config: LxmertConfig,
    task: Task,
    directory: str | Path,
    *,
    dialect: Dialect,
    companions: Companions | None = None,
    overwrite: bool = False,
) -> None:
    """Writes weights, ``config.json`` and ``companions`` to a new directory, with values and dtypes unchanged.

    ``tensors`` are by our names (the backbone's begin with ``lxmert.``), with at least those of the task. ``companions``: what
    lay beside the weights that the model was loaded from.

    | dialect | file |
    |---|---|
    | ``hf`` | ``model.safetensors`` |
    | ``original`` | ``BEST.pth`` for question-answering and nlvr2, ``model_LXRT.pth`` for the other tasks |
    | ``tf`` | ``tf_model.h5`` |

    Raises ``ArtifactError`` if the directory exists (with ``overwrite``: if it holds anything but a checkpoint that was written
    here), or if it cannot be written. Raises
    ``CheckpointError`` for an unknown dialect, for weights that are missing or not finite, and for what the dialect cannot
    hold: another layer_norm_eps than PyTorch's code computes with, an untied decoder, bfloat16.
    """
    if dialect not in get_args(Dialect):
        raise CheckpointError(f"unknown dialect {dialect!r}; choose from {', '.join(get_args(Dialect))}")
    if dialect != "tf" and config.layer_norm_eps != PYTORCH_EPS:
        raise CheckpointError(
            f"this model computes with layer_norm_eps {config.layer_norm_eps:g}, and PyTorch's LXMERT would compute the "
            f"{dialect} checkpoint with {PYTORCH_EPS:g}, whatever its config says: write tf, or set layer_norm_eps to "
            f"{PYTORCH_EPS:g} if that is what you mean"
        )
    rows = weight_names(config, task)
    if missing := [row.ours for row in rows if row.ours not in tensors]:
        raise CheckpointError(f"cannot write a checkpoint for task {task!r}: {missing[0]} is missing")
    if dialect == "tf":
        require(f"writing {TENSORFLOW_FILE}", H5PY)
    needed = sum(tensors[row.ours].nbytes for row in rows if row.ours != TIED_DECODER)
    with atomic_directory(Path(directory), overwrite=overwrite, needed=needed, kind="checkpoint") as temporary:
        if dialect == "hf":
            _write_hf(rows, tensors, config, task, temporary / HF_FILE)
        elif dialect == "original":
            _write_original(rows, tensors, task, temporary)
        else:
            _write_tensorflow(rows, tensors, config, task, temporary / TENSORFLOW_FILE)
        named = config.replace(extra={**config.extra, "architectures": [ARCHITECTURES[task]]})
        (temporary / CONFIG_FILE).write_bytes(named.to_json())
        if companions is not None:
            companions.write(temporary)
        try:
            _compare(tensors, rows, config, task, temporary)
        except CheckpointError as error:  # the message names the temporary directory, which the user does not know
            raise CheckpointError(str(error).replace(str(temporary), str(directory))) from error


def _write_hf(
    rows: tuple[Weight, ...], tensors: Mapping[str, Tensor], config: LxmertConfig, task: Task, path: Path
) -> None:
    # transformers stores a backbone without heads without its prefix, and leaves a tied decoder out.
    prefix = BACKBONE if task == "model" else ""
    kept = [row for row in rows if not (row.ours == TIED_DECODER and config.tie_word_embeddings)]
    named = {row.upstream.removeprefix(prefix): tensors[row.ours].contiguous() for row in kept}
    with failed_writes():
        save_file(named, path, metadata={"format": "pt"})


def _write_original(rows: tuple[Weight, ...], tensors: Mapping[str, Tensor], task: Task, directory: Path) -> None:
    fine_tuned = task in ("question-answering", "nlvr2")
    prefix = "lxrt_encoder.model.bert." if fine_tuned else "bert."
    named = OrderedDict()
    for row in rows:
        name = row.upstream.removeprefix("answer_head.") if fine_tuned else row.upstream
        name = prefix + name.removeprefix(BACKBONE) if name.startswith(BACKBONE) else name
        # A tied decoder is the same object as the word embedding, so that the file stores it once, as the published one does.
        shared = WORD_EMBEDDING if row.ours == TIED_DECODER and _is_tied(tensors) else row.ours
        named[name] = tensors[shared].detach().contiguous()
    with patient_file(directory / (FINE_TUNED_FILE if fine_tuned else PRETRAINED_FILE)) as stream:
        torch.save(named, cast(IO[bytes], stream))


def _is_tied(tensors: Mapping[str, Tensor]) -> bool:
    return tensors[TIED_DECODER].data_ptr() == tensors[WORD_EMBEDDING].data_ptr()


def _write_tensorflow(
    rows: tuple[Weight, ...], tensors: Mapping[str, Tensor], config: LxmertConfig, task: Task, path: Path
) -> None:
    from lxmert_export.checkpoint.h5 import write_h5

    if any(tensors[row.ours].dtype == torch.bfloat16 for row in rows):
        raise CheckpointError("HDF5 has no bfloat16: write the hf or original dialect, or convert to float32 first")
    if not config.tie_word_embeddings:
        raise CheckpointError(
            "the tf dialect cannot hold an untied word decoder, because TFLxmert always ties it: write hf or original"
        )
    layers: dict[str, dict[str, Tensor]] = {}
    for row in rows:
        if row.ours == TIED_DECODER:
            continue
        tensor = tensors[row.ours].t() if row.kind == "kernel" else tensors[row.ours]
        layers.setdefault(row.tensorflow.split("/")[0], {})[row.tensorflow] = tensor
    if "cls" in layers:  # TFLxmert's word head contains the embedding layer, so Keras writes that layer twice
        layers["cls"] |= {n: t for n, t in layers["lxmert"].items() if n.startswith("lxmert/embeddings/")}
    write_h5(path, layers, "tf_lxmert_model" if task == "model" else "tf_lxmert_for_pre_training")


def _compare(
    tensors: Mapping[str, Tensor], rows: tuple[Weight, ...], config: LxmertConfig, task: Task, directory: Path
) -> None:
    """Reads the checkpoint back. Raises ``CheckpointError`` if any tensor differs in dtype or value."""
    # The heads are given, so that a guess is not told once more, of a temporary directory.
    back = read_checkpoint(directory, task=task, num_attention_heads=config.num_attention_heads).tensors
    for row in rows:
        ours, theirs = tensors[row.ours], back[row.ours]
        if ours.dtype != theirs.dtype or not torch.equal(ours, theirs):
            raise CheckpointError(
                f"{directory}: {row.ours} changed between writing and reading; check the disk, try again"
            )
