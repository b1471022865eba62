"""Checkpoints with outlier dimensions as trained BERTs have them, made larger than fp16 likes without changing the function.

Trained encoders grow a few hidden dimensions whose LayerNorm gains are many times the others' (Kovaleva et al. 2021, "BERT
Busters: Outlier Dimensions that Disrupt Transformers"; Dettmers et al. 2022, "LLM.int8()"). ``outlier_model`` has such.
The rescalings here multiply what flows between two layers by a power of two, and divide the weights that read it by the same:
exact in binary arithmetic while nothing overflows or becomes subnormal. LayerNorm's eps alone does not scale along, which
changes outputs by some 1e-12 of themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lxmert_export.config import LxmertConfig
from lxmert_export.model import Attention, EncoderLayer, FeedForward, LayerNorm, LxmertModel
from lxmert_export.signature import Task
from parity_tests.planted_faults import parts
from parity_tests.random_models import SMALL, lively_model

OUTLIER_DIMENSIONS = (3, 17)
OUTLIER_GAIN = 24.0


def outlier_model(task: Task, config: LxmertConfig = SMALL, seed: int = 0) -> Any:
    """A lively model with two hidden dimensions in which every encoder LayerNorm's gain and shift are 24 times as large.

    Queries and keys read these as much less, as trained ones do: attention that rounding alone decides would hide all else.
    """
    model = lively_model(task, config, seed)
    outliers = list(OUTLIER_DIMENSIONS)
    for norm in _encoder_norms(model):
        for tensor in (norm.weight, norm.bias):
            tensor.data[outliers] *= OUTLIER_GAIN
    for attention in parts(model, Attention):
        for linear in (attention.query, attention.key):
            linear.weight.data[:, outliers] /= OUTLIER_GAIN
    return model


def rescale_residual_stream(model: nn.Module, factor: float) -> None:
    """Everything between the embeddings and the heads' first layers grows by ``factor``, which every LayerNorm takes out again.

    Each norm's output grows; queries, keys and what enters GELU do not, and values, projections and residuals grow along.
    """
    backbone = parts(model, LxmertModel)[0]
    for norm in _encoder_norms(model):
        _scale(norm, factor)
    for attention in parts(model, Attention):
        for linear in (attention.query, attention.key):
            _scale_inputs(linear, 1 / factor)
        # Values read a stream that is larger already: their weights stay, and their shift grows.
        for linear in (attention.value, attention.output):
            _replace(linear, "bias", linear.bias.detach() * factor)
    for feed_forward in parts(model, FeedForward):
        _scale_inputs(feed_forward.expand, 1 / factor)
        _scale(feed_forward.contract, factor)
    _scale_inputs(backbone.pooler, 1 / factor)
    for name, head in model.named_modules():
        if name in ("masked_language_head.transform.dense", "object_head.transform.dense"):
            _scale_inputs(head, 1 / factor)


def rescale_values(attention: Attention, factor: float) -> None:
    """Values grow by ``factor``, and the projection that reads their mixture shrinks: attention mixes them linearly."""
    _scale(attention.value, factor)
    _scale_inputs(attention.output, 1 / factor)


def rescale_queries(attention: Attention, factor: float) -> None:
    """Queries grow by ``factor`` and keys shrink: their products stay."""
    _scale(attention.query, factor)
    _scale(attention.key, 1 / factor)


def encoder_layer(model: nn.Module, place: int = 0) -> Any:
    """One of the model's single-modality layers."""
    return parts(model, EncoderLayer)[place]


def _encoder_norms(model: nn.Module) -> list[LayerNorm]:
    """The norms that write into the residual stream: the backbone's, none of the heads'."""
    return parts(parts(model, LxmertModel)[0], LayerNorm)


def _scale(part: Any, factor: float) -> None:
    """The outputs of a linear layer or of a LayerNorm, by its weight and its bias."""
    for name in ("weight", "bias"):
        _replace(part, name, getattr(part, name).detach() * factor)


def _scale_inputs(linear: Any, factor: float) -> None:
    _replace(linear, "weight", linear.weight.detach() * factor)


def _replace(part: Any, name: str, tensor: Tensor) -> None:
    setattr(part, name, nn.Parameter(tensor.contiguous(), requires_grad=False))


def same_function(one: nn.Module, other: nn.Module, inputs: dict[str, Tensor]) -> float:
    """The largest difference of two models' outputs in float64, relative to each output's largest magnitude."""
    outputs = []
    for model in (one, other):
        with torch.inference_mode():
            outputs.append(model.double()(**inputs))
        model.float()
    return max(
        float((outputs[1][name] - tensor).abs().max() / tensor.abs().max())
        for name, tensor in outputs[0].items()
        if isinstance(tensor, Tensor)
    )
