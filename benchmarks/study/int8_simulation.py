"""Simulates what int8 itself costs a network, without a converter: the canonical model in float64, matmuls in int8.

An int8 file that fails may be wrong, or int8 may be too coarse for its network: deep random networks amplify rounding.
If this simulation fails by the same rule, int8 is too coarse.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

LARGEST = 127
# TFLite's converter leaves smaller weights in float32.
LEAST_QUANTIZED = 1024


def in_int8(module: nn.Module) -> nn.Module:
    """Returns a copy with linear layers in TFLite's dynamic-range int8: one scale per output, and per row of inputs."""
    simulated = copy.deepcopy(module).double()
    for layer in simulated.modules():
        if isinstance(layer, nn.Linear | nn.Embedding) and layer.weight.numel() >= LEAST_QUANTIZED:
            layer.weight = nn.Parameter(rounded(layer.weight), requires_grad=False)
            if isinstance(layer, nn.Linear):
                layer.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    return simulated


def rounded(values: Tensor) -> Tensor:
    """Rounds to int8's 255 steps, which in each row of the last axis reach to the row's largest value."""
    step = values.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny) / LARGEST
    return (values / step).round() * step
