"""The five pre-training losses of LXMERT (Tan & Bansal 2019, section 3.1), as Hugging Face computes them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lxmert_export.errors import InputError
from lxmert_export.spec.config import LxmertConfig

# Positions with this label do not count. The original code uses -1 instead: convert such labels.
IGNORE_INDEX = -100


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean cross entropy over the labels that are not ignored; NaN if all are ignored, as in PyTorch.

    ``logits`` [..., classes], ``labels`` [...] int64 → scalar of at least float32.
    """
    return F.cross_entropy(_wide(logits).reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORE_INDEX)


def visual_loss(
    scores: Mapping[str, Tensor], obj_labels: Mapping[str, tuple[Tensor, Tensor]], config: LxmertConfig
) -> Tensor:
    """Returns the sum of the losses of the object head's targets, scaled by ``visual_loss_normalizer``.

    - ``scores[target]``: [batch, objects, width].
    - ``obj_labels[target]``: labels and confidence. Labels are class ids [batch, objects] for ``obj`` and ``attr``, and
      features [batch, objects, width] for ``feat``. Confidence [batch, objects] weights the loss of each object.

    The mean of a target is over all objects, ignored ones included. ``InputError``: a target has no labels.
    Source: ``LxmertForPreTraining.forward`` of transformers; its factor of 6.67 is 1/0.15, rounded.
    """
    if missing := [target for target in scores if target not in obj_labels]:
        raise InputError(
            f"obj_labels lacks {', '.join(missing)}: give (labels, confidence) or switch visual_*_loss off"
        )
    weighted = (
        (_loss_per_object(target, _wide(logits), obj_labels[target][0]) * obj_labels[target][1]).mean()
        for target, logits in scores.items()
    )
    return sum((loss * config.visual_loss_normalizer for loss in weighted), start=torch.tensor(0.0))


def _loss_per_object(target: str, scores: Tensor, labels: Tensor) -> Tensor:
    """[batch, objects, width] → [batch, objects]: smooth L1 for features, cross entropy for class ids."""
    if target == "feat":
        return F.smooth_l1_loss(scores, labels, reduction="none").mean(dim=-1)
    return F.cross_entropy(scores.transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none")


def _wide(scores: Tensor) -> Tensor:
    """Casts to at least float32: a sum of losses near 24 has steps of 1/64 in fp16, and of 1/8 in bf16."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
