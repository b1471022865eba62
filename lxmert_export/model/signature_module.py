"""Modules that follow a signature: inputs by position, a tuple of outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lxmert_export.errors import ConversionError
from lxmert_export.model.lxmert import as_dtype
from lxmert_export.spec.signature import Signature, TensorSpec

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class SignatureModule(nn.Module):
    """A module that takes inputs by position and returns a tuple of outputs, both in the order of a signature.

    Floating-point inputs are cast to ``dtype``; with ``cast_outputs``, each output to the dtype of its own spec. Masks are
    not cast: only the additive bias is made from them, and that is a float32 island. ``ConversionError``: the module
    returns integers where the signature says floating-point numbers, or the reverse.
    """

    def __init__(
        self, model: nn.Module, signature: Signature, dtype: torch.dtype, *, cast_outputs: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.dtype, self.cast_outputs = dtype, cast_outputs
        self.input_names = tuple(spec.name for spec in signature.inputs)
        self.outputs = signature.outputs
        self.requests = signature.requests

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        cast = {
            name: as_dtype(value, self.dtype)
            if value.is_floating_point() and not name.endswith("attention_mask")
            else value
            for name, value in zip(self.input_names, inputs, strict=True)
        }
        outputs = named_outputs(self.model(**cast, **self.requests), tuple(spec.name for spec in self.outputs))
        for spec in self.outputs:
            _check_kind(outputs[spec.name], spec)
        if not self.cast_outputs:
            return tuple(outputs.values())
        return tuple(as_dtype(outputs[spec.name], getattr(torch, spec.dtype)) for spec in self.outputs)


def _check_kind(output: Tensor, spec: TensorSpec) -> None:
    if output.is_floating_point() != spec.is_float:
        returned = "floating-point" if output.is_floating_point() else str(output.dtype).removeprefix("torch.")
        raise ConversionError(
            f"output {spec.name} is {returned}, but its signature says {spec.dtype}: one of them holds integers; "
            "give its TensorSpec the dtype that the module returns"
        )


def named_outputs(result: Any, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Picks the named outputs from a module's result: by name from a mapping or output class, by order from a tuple.

    ``name.3`` is the fourth entry of the field ``name``. ``ConversionError``: an output is missing.
    """
    if isinstance(result, Tensor):
        result = (result,)
    if isinstance(result, tuple | list):
        if len(result) < len(names):
            raise ConversionError(f"the module returns {len(result)} outputs; the signature names {len(names)}")
        return dict(zip(names, result, strict=False))
    found = {}
    for name in names:
        field, _, entry = name.partition(".")
        if field not in result:
            raise ConversionError(f"the module does not return {field!r}; it returns {', '.join(result.keys())}")
        found[name] = result[field][int(entry)] if entry else result[field]
    return found


def module_state(module: nn.Module) -> Mapping[str, Tensor]:
    """Returns every parameter and buffer by name; a shared one is under each of its names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
