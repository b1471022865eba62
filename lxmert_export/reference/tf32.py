"""Runs a PyTorch module as a GPU's tensor cores do in TF32: what is multiplied in a matrix product is rounded to 10 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lxmert_export.reference.torch_runner import TorchRunner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

TF32 = "tf32"
DROPPED_BITS = 13  # of float32's 23 bits behind the leading one, TF32 keeps 10
aten = torch.ops.aten
# The places of the two factors among the arguments of each product.
FACTORS: Mapping[Any, tuple[int, int]] = {
    aten.mm: (0, 1), aten.bmm: (0, 1), aten.addmm: (1, 2), aten.baddbmm: (1, 2), aten.mv: (0, 1), aten.addmv: (1, 2),
    aten.dot: (0, 1), aten.convolution: (0, 1),
}  # fmt: skip
FUSED_ATTENTION = (
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_fused_attention_overrideable,
)


def runner_of(module: nn.Module, signature: Signature, limits: InputLimits, precision: str) -> TorchRunner:
    """Returns a runner of a module in a precision; ``tf32`` is float32 with rounded factors."""
    return (Tf32Runner if precision == TF32 else TorchRunner)(module, signature, limits, precision)


class Tf32Runner(TorchRunner):
    """Runs a module on the CPU in float32, with the factors of its matrix products rounded to what TF32 holds."""

    def __init__(self, module: nn.Module, signature: Signature, limits: InputLimits, precision: str = TF32) -> None:
        super().__init__(module, signature, limits, "fp32")
        self.name = f"torch {precision}"

    def compute(self, inputs: Arrays) -> Arrays:
        with RoundedProducts():
            return super().compute(inputs)


class RoundedProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own
    """While it is active, float32 matrix products and convolutions read rounded factors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's own

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if (places := FACTORS.get(func.overloadpacket)) is not None:
            rounded = [rounded_to_tf32(value) if place in places else value for place, value in enumerate(args)]
            return func(*rounded, **options)
        with self:  # such as linear and einsum, which consist of products
            if func.overloadpacket in FUSED_ATTENTION:
                return aten._scaled_dot_product_attention_math(*args[:3], **options)
            if (result := func.decompose(*args, **options)) is not NotImplemented:
                return result
        return func(*args, **options)


def rounded_to_tf32(tensor: Tensor) -> Tensor:
    """Returns a float32 tensor, rounded to the nearest numbers that TF32 holds (ties to even); others as they are."""
    if tensor.dtype != torch.float32:
        return tensor
    bits = tensor.contiguous().view(torch.int32)
    last = (bits >> DROPPED_BITS) & 1
    half = (1 << (DROPPED_BITS - 1)) - 1
    rounded = ((bits + half + last) >> DROPPED_BITS << DROPPED_BITS).view(torch.float32)
    return torch.where(tensor.isfinite(), rounded, tensor)
