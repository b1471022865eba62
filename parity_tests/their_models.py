"""transformers' LXMERT classes, with the weights of ours or ours with theirs."""

from __future__ import annotations

from typing import Any, Literal

import torch
import transformers

from lxmert_export.config import LxmertConfig
from lxmert_export.signature import Task
from lxmert_export.weight_names import BACKBONE, weight_names
from parity_tests.random_models import SMALL, lively_model

THEIRS: dict[Task, Any] = {
    "model": transformers.LxmertModel,
    "pretraining": transformers.LxmertForPreTraining,
    "question-answering": transformers.LxmertForQuestionAnswering,
}
WeightsFrom = Literal["ours", "theirs"]


def their_model(task: Task, config: LxmertConfig) -> Any:
    left_out = ("num_hidden_layers", "layer_norm_eps", "model_type")
    values = {name: value for name, value in config.to_dict().items() if name not in left_out}
    return THEIRS[task](transformers.LxmertConfig(**values)).eval()


def names(task: Task, config: LxmertConfig = SMALL) -> dict[str, str]:
    """Our name → theirs, for the state of a task's model."""
    prefix = BACKBONE if task == "model" else ""
    return {row.ours.removeprefix(prefix): row.upstream.removeprefix(prefix) for row in weight_names(config, task)}


def both(
    task: Task, dtype: torch.dtype = torch.float64, config: LxmertConfig = SMALL, weights: WeightsFrom = "ours"
) -> tuple[Any, Any]:
    """Our model and theirs, with the same lively weights, that were made in one and renamed for the other."""
    ours, theirs = lively_model(task, config), their_model(task, config)
    if weights == "ours":
        state = ours.state_dict()
        theirs.load_state_dict({other: state[name] for name, other in names(task, config).items()}, strict=True)
    else:
        enliven(theirs)
        state = theirs.state_dict()
        ours.load_state_dict({name: state[other] for name, other in names(task, config).items()}, strict=True)
    return ours.to(dtype), theirs.to(dtype)


def enliven(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(11)
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.25
        if name.endswith("ayerNorm.weight") or name.endswith("layer_norm.weight"):
            parameter.data += 1
