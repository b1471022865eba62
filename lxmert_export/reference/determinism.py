"""Tells whether a module computes the same twice. What is random in eval mode has no reference and no noise floor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lxmert_export.errors import ConversionError
from lxmert_export.reference.torch_runner import TorchRunner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

# Share of the largest value. Two float64 runs may add in another order on several threads, which moves 1e-16 of it; what
# float32 rounds is 1e-7.
TOLERANCE = 1e-12
MOST_RUNS = 50  # two runs of dropout at 0.1 agree in 16 values 4 times in 100; 50 runs do not


def check_deterministic(module: nn.Module, signature: Signature, limits: InputLimits, inputs: Arrays) -> None:
    """Runs a module twice on one batch in float64. ``ConversionError``: its outputs differ; the message names operators.

    A module that draws random numbers is run more often: dropout may leave few values alone by chance.
    """
    with TorchRunner(module, signature, limits, "fp64") as runner, RandomOperators() as random:
        one = runner.run(inputs)
        for _ in range(MOST_RUNS if random.called else 1):
            other = runner.run(inputs)
            if differing := [name for name in one if _differ(one[name], other[name])]:
                break
    if differing:
        called = f" (it calls {', '.join(sorted(random.called))})" if random.called else ""
        raise ConversionError(
            f"{type(module).__name__} is random in eval mode: two runs on one input differ in {', '.join(differing)}{called}; "
            "pass training=self.training to functional dropout, draw no random numbers in forward, and keep no count of calls"
        )


class RandomOperators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own
    """Notes which operators draw random numbers while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's own
        self.called: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)}
        named |= kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and named.get("train") is not False:  # dropout in eval mode
            self.called.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def _differ(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    with np.errstate(invalid="ignore"):  # of outputs that are not finite, which is told elsewhere
        largest = np.abs(one).max(initial=0)
        return not np.allclose(one, other, rtol=0, atol=TOLERANCE * float(largest), equal_nan=True)
