"""The networks of the study, and how a checkpoint of each is drawn: exported once, given other weights for every trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from lxmert_export.config import LxmertConfig
from lxmert_export.model import MODELS
from lxmert_export.signature import Signature, Task, task_signature
from lxmert_export.weight_names import BACKBONE, TIED_DECODER, WORD_EMBEDDING, weight_names

State = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """One network and what is exported of it; ``trials`` correct checkpoints of it are judged."""

    name: str
    config: LxmertConfig
    task: Task
    trials: int
    states: bool = False  # with hidden states and attentions
    object_heads: bool = False

    @cached_property
    def signature(self) -> Signature:
        """32-bit ids, which every target takes; TFLite needs nlvr2's batch fixed."""
        fixed = {"batch": 64} if self.task == "nlvr2" else None
        return task_signature(
            self.config, self.task, integer_dtype="int32", fixed=fixed, hidden_states=self.states, attentions=self.states,
            object_heads=self.object_heads,
        )  # fmt: skip

    def module(self, state: Mapping[str, Tensor]) -> nn.Module:
        """The PyTorch model of these weights, in eval mode."""
        module = MODELS[self.task](self.config).eval().requires_grad_(False)
        load(module, state)
        return module


def load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts a checkpoint, by its full names, into a module of its architecture."""
    prefix = BACKBONE if getattr(module, "task", None) == "model" else ""
    module.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in state.items()})


def drawn_state(architecture: Architecture, seed: int) -> State:
    """A random checkpoint, of a distribution that is drawn too.

    Kernels of std 1 to 2 over sqrt(fan-in), tables and biases of std 0.1 to 0.5, LayerNorm gains 1 ± 0.05 to 0.3.
    """
    generator = torch.Generator().manual_seed(seed)
    kernel, other, gain = torch.rand(3, generator=generator).tolist()
    std = {"kernel": 1 + kernel, "gain": 0.05 + 0.25 * gain}
    state = {}
    for row in weight_names(architecture.config, architecture.task):
        normal = torch.randn(row.shape, generator=generator) * std.get(row.kind, 0.1 + 0.4 * other)
        state[row.ours] = normal / row.shape[1] ** 0.5 if row.kind == "kernel" else normal + (row.kind == "gain")
    return tied(state, architecture.config)


def tied(state: State, config: LxmertConfig) -> State:
    """With the word decoder's weight that of the embedding, where the config says so."""
    if TIED_DECODER in state and config.tie_word_embeddings:
        state[TIED_DECODER] = state[WORD_EMBEDDING]
    return state


# Sixteen answers: two batches of a family then hold values enough for a floor.
SMALL = LxmertConfig(
    vocab_size=150, hidden_size=32, num_attention_heads=4, intermediate_size=64, max_position_embeddings=32,
    l_layers=2, x_layers=2, r_layers=1, num_qa_labels=16, num_object_labels=9, num_attr_labels=5, visual_feat_dim=16,
)  # fmt: skip
# Not narrower: TFLite's int8 leaves weights of fewer than 1024 values as they are.
SHALLOW = SMALL.replace(num_attention_heads=2, intermediate_size=48, l_layers=1, x_layers=1)
WIDE = SMALL.replace(
    hidden_size=48, num_attention_heads=3, intermediate_size=144, visual_feat_dim=64, visual_pos_dim=6,
    type_vocab_size=3,
)  # fmt: skip
DEEP = SHALLOW.replace(l_layers=4, x_layers=3, r_layers=3)

# Shallow ones are quick, so that there are many trials; the others show that depth and width change nothing.
ARCHITECTURES = (
    Architecture("shallow answers", SHALLOW, "question-answering", 1000),
    Architecture("shallow backbone", SHALLOW, "model", 1000),
    Architecture("shallow pre-training", SHALLOW.replace(layer_norm_eps=1e-5), "pretraining", 150, object_heads=True),
    Architecture("shallow NLVR2", SHALLOW, "nlvr2", 100),
    Architecture("small answers", SMALL, "question-answering", 300),
    Architecture("wide backbone", WIDE, "model", 250),
    Architecture("deep answers", DEEP, "question-answering", 100),
    Architecture("answers with states and attentions", SHALLOW, "question-answering", 150, states=True),
)
