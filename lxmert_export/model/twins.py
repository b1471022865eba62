"""Twins of a module: copies that compute the same with weights in another precision, or with no weights at all."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from lxmert_export.model.lxmert import LayerNorm, LxmertModel

ModuleT = TypeVar("ModuleT", bound=nn.Module)
UNEVEN = 2**0.5  # a factor that leaves no weight exact in the lower precision


def recast(module: ModuleT, dtype: torch.dtype, *, device: str = "cpu") -> ModuleT:
    """Returns a copy in eval mode whose floating-point weights are cast to ``dtype``; the module itself is unchanged.

    - The parameters of LayerNorm, a float32 island, stay float32 or wider.
    - Weights that need no cast are shared, not copied. Buffers are copied: a forward pass may write to them.
      ``device="meta"`` gives a twin with shapes and no weights.
    - Every LXMERT inside computes attention step by step instead of by PyTorch's fused function, so that each precision
      runs exactly the operations that are exported, islands included.
    """
    twins: dict[int, object] = {}
    for part in module.modules():
        for tensor in _own_tensors(part):
            # setdefault: a weight that two modules share gets one twin, cast as in the first of them.
            twins.setdefault(id(tensor), _twin(tensor, _dtype_within(part, dtype), device))
    return _explicit_attention(copy.deepcopy(module, twins))


def with_rounded_weights(module: ModuleT, dtype: torch.dtype) -> ModuleT:
    """Returns a copy whose weights were rounded to ``dtype`` and cast back: a model that only stores ``dtype``.

    Weights are multiplied by ``UNEVEN`` before they are rounded, and divided by it after, so that even weights that are
    exact in ``dtype`` are rounded. A converter rounds those, too, because it folds LayerNorm gains into weights first.
    """
    twins: dict[int, object] = {}
    for part in module.modules():
        for tensor in _own_tensors(part):
            if tensor.is_floating_point():
                rounded = (tensor.detach() * UNEVEN).to(dtype).to(tensor.dtype) / UNEVEN
                twins.setdefault(id(tensor), _twin(nn.Parameter(rounded), tensor.dtype, "cpu"))
    return _explicit_attention(copy.deepcopy(module, twins))


def recast_while_used(module: ModuleT, dtype: torch.dtype) -> ModuleT:
    """As ``recast``, but without a second copy of all weights: each part casts its own while it is called.

    Each call takes one more pass over the weights. A full-size model in float64 needs 1.7 GB less.
    """
    shared = {id(tensor): tensor for part in module.modules() for tensor in _own_tensors(part)}
    twin = _explicit_attention(copy.deepcopy(module, dict(shared)))
    for part in twin.modules():
        # deepcopy gave the twin its own dictionaries: tensors swapped in them do not change the module.
        if part._parameters or part._buffers:
            part.register_forward_pre_hook(_CastOwnWeights(dtype))
            part.register_forward_hook(_restore_own_weights, always_call=True)
    return twin


class _CastOwnWeights:
    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, part: nn.Module, inputs: object) -> None:
        part.__dict__["_weights_at_rest"] = (dict(part._parameters), dict(part._buffers))
        for own in (part._parameters, part._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    own[name] = _twin(tensor, _dtype_within(part, self.dtype), "cpu")  # type: ignore[assignment]


def _restore_own_weights(part: nn.Module, inputs: object, output: object) -> None:
    parameters, buffers = part.__dict__.pop("_weights_at_rest")
    part._parameters.update(parameters)
    part._buffers.update(buffers)


def _own_tensors(part: nn.Module) -> tuple[Tensor, ...]:
    return (*part.parameters(recurse=False), *part.buffers(recurse=False))


def _dtype_within(part: nn.Module, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a part's weights: LayerNorm, a float32 island, has at least float32."""
    return torch.promote_types(dtype, torch.float32) if isinstance(part, LayerNorm) else dtype


def _explicit_attention(twin: ModuleT) -> ModuleT:
    for part in twin.modules():
        if isinstance(part, LxmertModel):
            part.config = part.config.replace(output_attentions=True)
    return twin.eval()


def _twin(tensor: Tensor, dtype: torch.dtype, device: str) -> Tensor:
    data = tensor.detach()
    cast = data.to(device=device, dtype=dtype if data.is_floating_point() else None)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(cast, requires_grad=False)
    return cast.clone() if cast.data_ptr() == data.data_ptr() and not cast.is_meta else cast
