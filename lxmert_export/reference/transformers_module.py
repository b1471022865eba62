"""The LXMERT of the transformers library with the weights of a canonical model, if that library is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from torch import nn

from lxmert_export.errors import ConversionError
from lxmert_export.spec.config import PYTORCH_EPS, LxmertConfig
from lxmert_export.spec.signature import Task
from lxmert_export.spec.weight_names import BACKBONE, weight_names

CLASSES = {
    "model": "LxmertModel",
    "pretraining": "LxmertForPreTraining",
    "question-answering": "LxmertForQuestionAnswering",
}
# transformers masks with the dtype's smallest number. In a row whose keys are all masked, it averages them uniformly; the
# original (-10000) still weighs them by their scores.
DIFFERENT_FAMILY = "masked-row"


def transformers_module(module: nn.Module, config: LxmertConfig, task: Task | None) -> nn.Module:
    """Returns transformers' model of a task with the weights of ``module``.

    ``ConversionError``: transformers is not installed, has no model of this task, or ignores a value of the config.
    """
    name = CLASSES[check_transformers(config, task)]
    import transformers

    left_out = ("num_hidden_layers", "layer_norm_eps", "model_type")
    values = {name: value for name, value in config.to_dict().items() if name not in left_out}
    theirs: Any = getattr(transformers, name)(transformers.LxmertConfig(**values)).eval()
    theirs.load_state_dict(
        {other: module.state_dict()[name] for name, other in _names(config, task).items()}, strict=True
    )
    return theirs  # type: ignore[no-any-return]  # transformers ships no types


def check_transformers(config: LxmertConfig, task: Task | None) -> Task:
    """Returns the task. ``ConversionError``: transformers is not installed, or has no model that computes the same."""
    if find_spec("transformers") is None:
        raise ConversionError("the transformers library is not installed: pip install transformers")
    if task is None or task not in CLASSES:
        raise ConversionError(
            f"the transformers library has no model of {f'task {task}' if task else 'a module of your own'}"
        )
    if config.layer_norm_eps != PYTORCH_EPS:
        raise ConversionError(
            f"the transformers library ignores layer_norm_eps {config.layer_norm_eps:g} and computes with {PYTORCH_EPS:g}"
        )
    return task


def _names(config: LxmertConfig, task: Any) -> dict[str, str]:
    """Our name → transformers' name, for the state of a task's model."""
    prefix = BACKBONE if task == "model" else ""
    return {row.ours.removeprefix(prefix): row.upstream.removeprefix(prefix) for row in weight_names(config, task)}
