"""The recorded inputs and outputs of the original programs, as tests read them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from lxmert_export.losses import IGNORE_INDEX

GOLDEN = Path(__file__).parent / "fixtures" / "golden"
ORIGINALS = ("pretraining", "pretraining_dataparallel", "vqa", "nlvr2")
TRANSFORMERS = GOLDEN / "transformers_4.57.6"
INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids", "visual_feats", "visual_pos")


def original(name: str) -> Path:
    return GOLDEN / "original" / name


# Every checkpoint beside which outputs were recorded; the two of transformers hold the same weights.
CHECKPOINTS = {
    "pretraining": original("pretraining") / "model_LXRT.pth",
    "pretraining_dataparallel": original("pretraining_dataparallel") / "model_LXRT.pth",
    "vqa": original("vqa") / "BEST.pth",
    "nlvr2": original("nlvr2") / "BEST.pth",
    "transformers_4.57.6_bin": TRANSFORMERS / "pytorch_model.bin",
    "transformers_4.57.6_h5": TRANSFORMERS / "tf_model.h5",
}


def recorded(directory: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs (labels included, ignored ones made -100) and outputs."""
    inputs, outputs = (load_file(directory / f"{side}.safetensors") for side in ("inputs", "outputs"))
    for name in ("ans", "masked_lm_labels", "matched_label", "obj_labels.attr", "obj_labels.obj"):
        if name in inputs:
            inputs[name] = inputs[name].masked_fill(inputs[name] == -1, IGNORE_INDEX)
    return inputs, outputs


def model_inputs(inputs: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What the models take, without labels."""
    return {n: inputs[n].to(dtype) if inputs[n].is_floating_point() else inputs[n] for n in INPUT_NAMES}
