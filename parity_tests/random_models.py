"""Small random checkpoints and inputs for tests: lively, so that a fault cannot hide under rounding noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lxmert_export.config import LxmertConfig
from lxmert_export.model import MODELS
from lxmert_export.signature import Task
from lxmert_export.weight_names import BACKBONE, TIED_DECODER, WORD_EMBEDDING, weight_names

SMALL = LxmertConfig(
    vocab_size=150,
    hidden_size=32,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=32,
    l_layers=2,
    x_layers=2,
    r_layers=1,
    num_qa_labels=7,
    num_object_labels=9,
    num_attr_labels=5,
    visual_feat_dim=16,
)
INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids", "visual_feats", "visual_pos", "visual_attention_mask")
TINY = SMALL.replace(l_layers=1, x_layers=1, r_layers=1)


def lively_state(config: LxmertConfig, task: Task, seed: int = 0) -> dict[str, Tensor]:
    """Weights by our names: kernels of std 1.2/sqrt(fan-in), LayerNorm gains 1 ± 0.2, biases of std 0.3."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for row in weight_names(config, task):
        normal = torch.randn(row.shape, generator=generator)
        if row.kind == "kernel":
            state[row.ours] = normal * 1.2 / row.shape[1] ** 0.5
        else:
            state[row.ours] = normal * (0.2 if row.kind == "gain" else 0.3) + (row.kind == "gain")
    if TIED_DECODER in state and config.tie_word_embeddings:
        state[TIED_DECODER] = state[WORD_EMBEDDING]
    return state


def lively_model(task: Task, config: LxmertConfig = SMALL, seed: int = 0) -> Any:
    """A model of a task with lively weights, in eval mode; of the class that MODELS names, which mypy cannot tell."""
    prefix = BACKBONE if task == "model" else ""
    model = MODELS[task](config)
    model.load_state_dict({n.removeprefix(prefix): t for n, t in lively_state(config, task, seed).items()})
    return model.eval()


def lively_inputs(
    config: LxmertConfig = SMALL, *, pairs: bool = False, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """A batch of 3 with 7 words and 5 objects, masks ragged on both sides, mixed token types; ``dtype`` and int64."""
    generator = torch.Generator().manual_seed(seed)
    rows, text, objects = 3, 7, 5
    visual = (rows, 2, objects) if pairs else (rows, objects)
    seen_objects = torch.arange(objects) < torch.tensor([5, 2, 3]).reshape(3, *[1] * (len(visual) - 1))
    drawn = {
        "input_ids": torch.randint(1, config.vocab_size, (rows, text), generator=generator),
        "attention_mask": (torch.arange(text) < torch.tensor([[7], [4], [2]])).long(),
        "token_type_ids": torch.randint(0, config.type_vocab_size, (rows, text), generator=generator),
        "visual_feats": torch.randn((*visual, config.visual_feat_dim), generator=generator),
        "visual_pos": torch.rand((*visual, config.visual_pos_dim), generator=generator),
        "visual_attention_mask": seen_objects.expand(visual).float(),
    }
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in drawn.items()}


def inputs_for(task: Task, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """``lively_inputs`` for a small model of a task."""
    return lively_inputs(pairs=task == "nlvr2", dtype=dtype)


def lively_labels(
    task: Task = "pretraining", config: LxmertConfig = SMALL, *, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Every label that a task takes, for ``lively_inputs``; some of each kind are ignored, but of the match."""
    generator = torch.Generator().manual_seed(3)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    if task == "model":
        return {}
    if task != "pretraining":
        return {"labels": draw(2 if task == "nlvr2" else config.num_qa_labels, 3).index_fill(0, torch.tensor(1), -100)}
    words = draw(config.vocab_size, 3, 7)
    words[:, ::2] = -100
    objects, attributes = draw(config.num_object_labels, 3, 5), draw(config.num_attr_labels, 3, 5)
    objects[0, 1] = attributes[2, 3] = -100
    confidence = torch.rand(3, 5, generator=generator).to(dtype)
    features = torch.randn(3, 5, config.visual_feat_dim, generator=generator).to(dtype)
    return {
        "labels": words,
        "matched_label": draw(2, 3),
        "ans": torch.tensor([1, -100, 4]),
        "obj_labels": {
            "obj": (objects, confidence),
            "attr": (attributes, confidence.flip(0)),
            "feat": (features, confidence.roll(1, 1)),
        },
    }
