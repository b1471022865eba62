"""The five pre-training losses of LXMERT (Tan & Bansal 2019, section 3.1), as Hugging Face computes them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lxmert_export.errors import InputError
from lxmert_export.spec.config import LxmertConfig

# Positions with this label count for nothing. The original code uses -1; convert labels, not models.
IGNORE_INDEX = -100


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the labels that are not ignored; NaN where all are, as in PyTorch.

    ``logits`` [..., classes], ``labels`` [...] int64 → scalar of at least float32.
    """
    return F.cross_entropy(_wide(logits).reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORE_INDEX)


def visual_loss(
    scores: Mapping[str, Tensor], obj_labels: Mapping[str, tuple[Tensor, Tensor]], config: LxmertConfig
) -> Tensor:
    """The sum over the object head's targets, each weighted per object and scaled by ``visual_loss_normalizer``.

    ``scores[target]`` [batch, objects, width]; ``obj_labels[target]`` = (labels, confidence [batch, objects]), where labels
    are class ids [batch, objects] for ``obj`` and ``attr``, features [batch, objects, width] for ``feat``. The mean is over
    all objects, ignored ones included. ``InputError``: a switched-on target without labels.
    Source: ``LxmertForPreTraining.forward`` of transformers; the factor 6.67 is 1/0.15 there rounded.
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
    """At least float32: a sum of losses near 24 has a step of 1/64 in fp16, and of 1/8 in bf16."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
