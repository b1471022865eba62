"""The canonical model's intermediates: hooks catch the tensor at each point while the model runs."""

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

MASK_PLACE = 2  # the position of the mask among the arguments of an attention


class TorchIntermediates(TorchRunner):
    """Runs a module in one precision. Returns the tensors at the points, by the points' names, instead of its outputs."""

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
        """Adds a hook to the module that a point's tensor comes out of, or goes into."""
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
            # Here `point.call` numbers the two masks. Each is read by another module, in that module's first call.
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
    """The result of a LayerNorm before its gain and its shift."""
    return F.layer_norm(at_least_float32(hidden), norm.normalized_shape, eps=norm.eps)


def _itself(output: Any) -> Any:
    return output


# How a point's tensor is made from its module's output, for families whose tensor is not the output itself.
PICKS: dict[str, Callable[[Any], Any]] = {"softmax": lambda output: output[1], "tanh": torch.tanh}
