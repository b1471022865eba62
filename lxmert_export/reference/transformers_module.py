"""The transformers library's own LXMERT with the weights of a canonical model, where that library is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from torch import nn

from lxmert_export.errors import ConversionError
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.weight_names import BACKBONE, weight_names

CLASSES = {
    "model": "LxmertModel",
    "pretraining": "LxmertForPreTraining",
    "question-answering": "LxmertForQuestionAnswering",
}
LAYER_NORM_EPS = 1e-12  # written into its code
# It masks with the dtype's least number: a row whose every key is masked averages uniformly, where the original attends.
DIFFERENT_FAMILY = "masked-row"


def transformers_module(module: nn.Module, config: LxmertConfig, task: str) -> nn.Module:
    """transformers' model of a task, holding the weights of ours. ``ConversionError``: not installed, or it has no such model."""
    if find_spec("transformers") is None:
        raise ConversionError("the transformers library is not installed: pip install transformers")
    if task not in CLASSES:
        raise ConversionError(f"the transformers library has no model of task {task}")
    if config.layer_norm_eps != LAYER_NORM_EPS:
        raise ConversionError(f"the transformers library ignores layer_norm_eps {config.layer_norm_eps:g}")
    import transformers

    left_out = ("num_hidden_layers", "layer_norm_eps", "model_type")
    values = {name: value for name, value in config.to_dict().items() if name not in left_out}
    theirs: Any = getattr(transformers, CLASSES[task])(transformers.LxmertConfig(**values)).eval()
    theirs.load_state_dict(
        {other: module.state_dict()[name] for name, other in _names(config, task).items()}, strict=True
    )
    return theirs  # type: ignore[no-any-return]  # transformers ships no types


def _names(config: LxmertConfig, task: Any) -> dict[str, str]:
    """Our name → theirs, for the state of a task's model."""
    prefix = BACKBONE if task == "model" else ""
    return {row.ours.removeprefix(prefix): row.upstream.removeprefix(prefix) for row in weight_names(config, task)}
