"""Finds where a module leaves fp16's range: hooks catch what every part of it computes while it runs in float32."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lxmert_export.reference.torch_runner import TorchRunner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

LARGEST_HALF = torch.finfo(torch.float16).max


def first_overflow(
    module: nn.Module, signature: Signature, limits: InputLimits, batches: Iterable[Arrays]
) -> tuple[str, float] | None:
    """Returns the path of the part that leaves fp16's range first, and its largest magnitude; None if none does.

    Parts are submodules that hold no others: what an attention computes between its projections is not seen.
    """
    with _Watched(module, signature, limits, "fp32") as runner:
        for batch in batches:
            runner.run(batch)
    return next(((path, size) for path, size in runner.largest.items() if not size <= LARGEST_HALF), None)


class _Watched(TorchRunner):
    """``largest``: the largest magnitude that each part has computed, by its path, in the order of execution."""

    def __init__(self, module: nn.Module, signature: Signature, limits: InputLimits, precision: str) -> None:
        super().__init__(module, signature, limits, precision)
        self.largest: dict[str, float] = {}
        for path, part in self._module.get_submodule("model").named_modules():
            if not list(part.children()):
                part.register_forward_hook(partial(self._keep, path))

    def _keep(self, path: str, part: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            self.largest[path] = max(self.largest.get(path, 0.0), float(output.abs().max()))
