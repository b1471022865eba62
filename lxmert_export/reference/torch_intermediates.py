"""The canonical model's own intermediates: what flows at each point, caught by hooks while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lxmert_export.model.lxmert import at_least_float32
from lxmert_export.parity.points import Point
from lxmert_export.reference.torch_runner import TorchRunner, to_array
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

MASK_PLACE = 2  # among the arguments of an attention


class TorchIntermediates(TorchRunner):
    """Runs a module in one precision and gives, by the points' names, what flows there instead of its outputs."""

    def __init__(
        self, module: nn.Module, signature: Signature, limits: InputLimits, precision: str, points: Sequence[Point]
    ) -> None:
        super().__init__(module, signature, limits, precision)
        self._calls: Counter[Point] = Counter()
        self._found: Arrays = {}
        model = self._module.get_submodule("model")
        for point in points:
            self._watch(model, point)

    def compute(self, inputs: Arrays) -> Arrays:
        self._calls.clear()
        self._found = {}
        super().compute(inputs)
        return self._found

    def _watch(self, model: nn.Module, point: Point) -> None:
        """Hooks onto a module where a point's tensor comes out of it, or goes into it."""
        if point.family == "normalisation":
            model.get_submodule(point.module).register_forward_pre_hook(
                lambda part, arguments: self._keep(point, _normalised(part, arguments[0]))
            )
        elif point.read_by is None:
            pick = PICKS.get(point.family, _itself)
            path = f"{point.module}.pooler".lstrip(".") if point.family == "tanh" else point.module
            model.get_submodule(path).register_forward_hook(
                lambda part, arguments, output: self._keep(point, pick(output))
            )
        elif point.family == "mask":
            # Which side's mask it is says the module that reads it: each is its reader's first and only one.
            model.get_submodule(point.read_by).register_forward_pre_hook(
                lambda part, arguments: self._keep(point, arguments[MASK_PLACE], call=1)
            )
        else:
            model.get_submodule(point.read_by).register_forward_pre_hook(
                lambda part, arguments: self._keep(point, arguments[0])
            )

    def _keep(self, point: Point, tensor: Tensor, *, call: int | None = None) -> None:
        self._calls[point] += 1
        if self._calls[point] == (call or point.call):
            self._found[point.name] = to_array(tensor)


def _normalised(norm: Any, hidden: Tensor) -> Tensor:
    """What a LayerNorm computes before its gain and its shift."""
    return F.layer_norm(at_least_float32(hidden), norm.normalized_shape, eps=norm.eps)


def _itself(output: Any) -> Any:
    return output


# What of a module's output the point is, where it is not all of it.
PICKS: dict[str, Callable[[Any], Any]] = {"softmax": lambda output: output[1], "tanh": torch.tanh}
