"""Our tensors → a directory in one of the dialects, read back and compared bit for bit before it takes its name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import save_file
from torch import Tensor

from lxmert_export.checkpoint.dialects import Dialect
from lxmert_export.checkpoint.files import TENSORFLOW_FILE
from lxmert_export.checkpoint.read import read_checkpoint
from lxmert_export.errors import CheckpointError
from lxmert_export.extras import H5PY, require
from lxmert_export.files.atomic_directory import atomic_directory
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.signature import Task
from lxmert_export.spec.weight_names import BACKBONE, TIED_DECODER, WORD_EMBEDDING, Weight, weight_names

# What config.json calls the class that the weights belong to. transformers has none for NLVR2: the name is ours.
ARCHITECTURES: dict[Task, str] = {
    "model": "LxmertModel",
    "pretraining": "LxmertForPreTraining",
    "question-answering": "LxmertForQuestionAnswering",
    "nlvr2": "LxmertForNLVR2",
}
PRETRAINED_FILE, FINE_TUNED_FILE = "model_LXRT.pth", "BEST.pth"
HF_FILE = "model.safetensors"


def write_checkpoint(
    tensors: Mapping[str, Tensor],
    config: LxmertConfig,
    task: Task,
    directory: str | Path,
    *,
    dialect: Dialect,
    overwrite: bool = False,
) -> None:
    """Writes weights (by our names, the backbone's with ``lxmert.``) and ``config.json``; values and dtypes as they are.

    ``hf``: model.safetensors. ``original``: model_LXRT.pth or, with a fine-tuned head, BEST.pth. ``tf``: tf_model.h5.
    ``ArtifactError``: the directory exists or cannot be written. ``CheckpointError``: an unknown dialect, or weights that are not
    finite.
    """
    if dialect not in get_args(Dialect):
        raise CheckpointError(f"unknown dialect {dialect!r}; choose from {', '.join(get_args(Dialect))}")
    rows = weight_names(config, task)
    if missing := [row.ours for row in rows if row.ours not in tensors]:
        raise CheckpointError(f"cannot write a checkpoint for task {task!r}: {missing[0]} is missing")
    if dialect == "tf":
        require(f"writing {TENSORFLOW_FILE}", H5PY)
    with atomic_directory(Path(directory), overwrite=overwrite) as temporary:
        if dialect == "hf":
            _write_hf(rows, tensors, config, task, temporary / HF_FILE)
        elif dialect == "original":
            _write_original(rows, tensors, task, temporary)
        else:
            _write_tensorflow(rows, tensors, config, task, temporary / TENSORFLOW_FILE)
        config.replace(extra={**config.extra, "architectures": [ARCHITECTURES[task]]}).save_pretrained(temporary)
        try:
            _compare(tensors, rows, task, temporary)
        except CheckpointError as error:  # it names the directory that is being filled, which nobody else will see
            raise CheckpointError(str(error).replace(str(temporary), str(directory))) from error


def _write_hf(
    rows: tuple[Weight, ...], tensors: Mapping[str, Tensor], config: LxmertConfig, task: Task, path: Path
) -> None:
    # transformers keeps the backbone alone without its prefix, and leaves a tied decoder out.
    prefix = BACKBONE if task == "model" else ""
    kept = [row for row in rows if not (row.ours == TIED_DECODER and config.tie_word_embeddings)]
    named = {row.upstream.removeprefix(prefix): tensors[row.ours].contiguous() for row in kept}
    save_file(named, path, metadata={"format": "pt"})


def _write_original(rows: tuple[Weight, ...], tensors: Mapping[str, Tensor], task: Task, directory: Path) -> None:
    fine_tuned = task in ("question-answering", "nlvr2")
    prefix = "lxrt_encoder.model.bert." if fine_tuned else "bert."
    named = OrderedDict()
    for row in rows:
        name = row.upstream.removeprefix("answer_head.") if fine_tuned else row.upstream
        name = prefix + name.removeprefix(BACKBONE) if name.startswith(BACKBONE) else name
        # One object for both, so that a tied decoder shares its storage in the file, as in the published one.
        shared = WORD_EMBEDDING if row.ours == TIED_DECODER and _is_tied(tensors) else row.ours
        named[name] = tensors[shared].detach().contiguous()
    torch.save(named, directory / (FINE_TUNED_FILE if fine_tuned else PRETRAINED_FILE))


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
            "TFLxmert always ties the word decoder: an untied one cannot be written in the tf dialect"
        )
    layers: dict[str, dict[str, Tensor]] = {}
    for row in rows:
        if row.ours == TIED_DECODER:
            continue
        tensor = tensors[row.ours].t() if row.kind == "kernel" else tensors[row.ours]
        layers.setdefault(row.tensorflow.split("/")[0], {})[row.tensorflow] = tensor
    if "cls" in layers:  # TFLxmert's word head holds the embedding layer, and so Keras writes it again
        layers["cls"] |= {n: t for n, t in layers["lxmert"].items() if n.startswith("lxmert/embeddings/")}
    write_h5(path, layers, "tf_lxmert_model" if task == "model" else "tf_lxmert_for_pre_training")


def _compare(tensors: Mapping[str, Tensor], rows: tuple[Weight, ...], task: Task, directory: Path) -> None:
    """Reads back what was written. ``CheckpointError``: not the same to the bit."""
    back = read_checkpoint(directory, task=task).tensors
    for row in rows:
        ours, theirs = tensors[row.ours], back[row.ours]
        if ours.dtype != theirs.dtype or not torch.equal(ours, theirs):
            raise CheckpointError(f"{directory}: {row.ours} came back changed; check the disk and try again")
