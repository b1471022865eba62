"""Computes with our model everything that the golden files recorded, and scores the difference in units of float32 noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lxmert_export.api import load_checkpoint
from lxmert_export.outputs import ModelOutput
from lxmert_export.pretrained import PreTrainedLxmert
from parity_tests.golden_files import CHECKPOINTS, model_inputs, recorded

# The original's own rounding is one float32 floor, ours none (we compare in float64). Measured over all golden tensors: at
# most 1.2 floors; the least of the planted faults, tanh GELU, moves some tensor by 116.
LARGEST_SCORE = 5.0
LEAST_FLOOR = 4 * 2.0**-23  # of the reference's RMS, as in the gate
# A yardstick must not stretch: were our float32 path itself at fault, its floor would hide the fault. Measured: at most 2.9.
LARGEST_FLOOR = 12 * 2.0**-23  # of the reference's RMS
OBJECT_FIELDS = {"obj": "object_logits", "attr": "attribute_logits", "feat": "feature_regression"}


def load_in_pytorch(checkpoint: Path, dtype: torch.dtype) -> PreTrainedLxmert:
    return load_checkpoint(checkpoint).to(dtype)


def scores(
    name: str,
    plant: Callable[[Any], None] = lambda model: None,
    load: Callable[[Path, torch.dtype], Any] = load_in_pytorch,
) -> dict[str, float]:
    """For every recorded tensor beside a checkpoint: RMS of (recorded − ours in float64) over the float32 floor.

    ``load`` gives a model that is called as those in PyTorch are, ``plant`` puts a fault into it.
    """
    checkpoint = CHECKPOINTS[name]
    inputs, outputs = recorded(checkpoint.parent)
    computed = {}
    for dtype in (torch.float64, torch.float32):
        model = load(checkpoint, dtype)
        if name.startswith("pretraining"):
            model.config = model.config.replace(visual_loss_normalizer=1 / 0.15)  # transformers rounds it to 6.67
        plant(model)
        with torch.no_grad():
            computed[dtype] = compute(model, inputs, dtype)
    missing = set(outputs) - set(computed[torch.float64])
    assert not missing, f"recorded but not compared: {missing}"
    return {
        key: score(tensor, computed[torch.float64][key], computed[torch.float32][key])
        for key, tensor in outputs.items()
    }


def score(found: Tensor, exact: Tensor, rounded: Tensor) -> float:
    """The error of ``found`` in float32 floors, given our float64 and our float32 result; infinite where that is no yardstick."""
    size, noise = rms(exact), rms(rounded - exact)
    if found.shape != exact.shape or not noise <= LARGEST_FLOOR * size:
        return float("inf")
    error = rms(found - exact)
    return error / max(noise, LEAST_FLOOR * size) if error else 0.0


def rms(tensor: Tensor) -> float:
    """Root mean square."""
    return float(tensor.detach().double().square().mean().sqrt())


def compute(model: Any, inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor that a golden file of this model's task may hold, by the name that it has there."""
    arguments = model_inputs(inputs, dtype)
    if model.task == "question-answering":
        pooled = model.lxmert(**arguments).pooled_output
        return {"logits": model(**arguments).question_answering_score, "pooled_output": pooled}
    if model.task == "nlvr2":
        pooled = model.lxmert(**_one_picture_each(arguments)).pooled_output
        return {"logits": model(**arguments).logits, "pooled_output": pooled}
    assert model.task == "pretraining"
    return _pretraining(model, arguments, inputs, dtype)


def _one_picture_each(arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each sentence beside its first picture, then beside its second: [batch, 2, …] → [2 x batch, …]."""
    return {
        name: tensor.flatten(0, 1) if name.startswith("visual") else tensor.repeat_interleave(2, dim=0)
        for name, tensor in arguments.items()
    }


def _pretraining(
    model: Any, arguments: dict[str, Tensor], inputs: dict[str, Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    labels: dict[str, Any] = {
        "labels": inputs["masked_lm_labels"],
        "matched_label": inputs["matched_label"],
        "ans": inputs["ans"],
        "obj_labels": {
            "obj": (inputs["obj_labels.obj"], inputs["obj_conf.obj"].to(dtype)),
            "attr": (inputs["obj_labels.attr"], inputs["obj_conf.attr"].to(dtype)),
            "feat": (arguments["visual_feats"], inputs["obj_conf.feat"].to(dtype)),
        },
    }
    output = model(**arguments, **labels, output_object_heads=True, output_hidden_states=True, output_attentions=True)
    found = dict(_flat(model.lxmert(**arguments)))  # fused attention; with the attentions, below, it is explicit
    found |= dict(_flat(output))
    found |= {f"obj_scores.{target}": output[name] for target, name in OBJECT_FIELDS.items()}
    found |= {"total_loss": output.loss[None], "pt_loss": output.loss[None]}
    found["losses"] = torch.stack([model(**arguments, **term).loss for term in _single_terms(labels)])[None]
    if "partial_visual_attention_mask" in inputs:
        mask = inputs["partial_visual_attention_mask"].to(dtype)
        masked = model.lxmert(**arguments, visual_attention_mask=mask)
        found |= {f"partial_mask.{name}": value for name, value in _flat(masked)}
    return found


def _single_terms(labels: dict[str, Any]) -> list[dict[str, Any]]:
    """Labels of each of the six terms alone, as the original stacks them: words, match, objects (three targets), answers."""
    objects: list[dict[str, Any]] = [
        {  # an object whose label is of no confidence counts for nothing
            other: (given, confidence if other == target else torch.zeros_like(confidence))
            for other, (given, confidence) in labels["obj_labels"].items()
        }
        for target in OBJECT_FIELDS
    ]
    return [
        {"labels": labels["labels"]},
        {"matched_label": labels["matched_label"]},
        *({"obj_labels": alone} for alone in objects),
        {"ans": labels["ans"]},
    ]


def _flat(output: ModelOutput) -> list[tuple[str, Tensor]]:
    flat = []
    for name, value in output.items():
        flat += [(f"{name}.{n}", v) for n, v in enumerate(value)] if isinstance(value, tuple) else [(name, value)]
    return flat
