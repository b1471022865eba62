"""Keras twins of the tests' PyTorch models, and calls that take PyTorch's arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from converters.tensorflow_model.model import MODELS
from converters.tensorflow_model.pretrained import PreTrainedTFLxmert
from lxmert_export.config import LxmertConfig
from lxmert_export.outputs import ModelOutput
from lxmert_export.pretrained import PreTrainedLxmert
from lxmert_export.weight_names import BACKBONE

Arrays = dict[str, NDArray[np.floating]]


def twin_of(model: PreTrainedLxmert, dtype: str = "float64") -> PreTrainedTFLxmert:
    """The Keras model with a PyTorch model's config and weights."""
    twin = MODELS[model.task](model.config, dtype=dtype)
    prefix = BACKBONE if model.task == "model" else ""
    twin.assign_weights({prefix + name: tensor for name, tensor in model.state_dict().items()})
    return twin


class CalledAsInPytorch:
    """A Keras model that takes and gives PyTorch's tensors, so that what was written for PyTorch's can ask it."""

    def __init__(self, model: PreTrainedTFLxmert) -> None:
        self.model = model
        self.task = model.task

    def __call__(self, **given: Any) -> ModelOutput:
        output = self.model(**as_numpy(given))
        return self.model.output_class(**{name: _as_torch(value) for name, value in output.items()})

    @property
    def config(self) -> LxmertConfig:
        return self.model.config

    @config.setter
    def config(self, config: LxmertConfig) -> None:
        self.model.config = config

    @property
    def lxmert(self) -> CalledAsInPytorch:
        return CalledAsInPytorch(self.model.lxmert)


def _as_torch(value: Any) -> Any:
    return tuple(map(_as_torch, value)) if isinstance(value, tuple) else torch.from_numpy(np.array(value))


def as_numpy(value: Any) -> Any:
    """PyTorch's tensors as numpy arrays, within dictionaries and tuples."""
    if isinstance(value, dict):
        return {name: as_numpy(entry) for name, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(as_numpy(entry) for entry in value)
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


def flat(output: Any) -> Arrays:
    """Every tensor of an output class, PyTorch's or ours, entries of tuples as ``name.3``."""
    arrays = {}
    for name, value in output.items():
        entries = {f"{name}.{n}": entry for n, entry in enumerate(value)} if isinstance(value, tuple) else {name: value}
        for place, entry in entries.items():
            arrays[place] = entry.detach().numpy() if isinstance(entry, torch.Tensor) else np.asarray(entry)
    return arrays
