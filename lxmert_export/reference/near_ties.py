"""Finds where a module's integers, such as the ids of the best answers, are near a tie: there rounding may choose others.

The scores behind an id may not be outputs, so a tie is seen by its effect: the module is run in float64 with every operator's
result moved a little, further than rounding would, once in each of two opposite directions. An integer that changes is near a
tie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from lxmert_export.judging.artifact import record_runner
from lxmert_export.parity.recording import Recording
from lxmert_export.parity.scores import EPS
from lxmert_export.progress import Progress
from lxmert_export.reference.torch_runner import TorchRunner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.sample_inputs import SampleInputs
from lxmert_export.spec.signature import Signature

Ties = dict[tuple[str, str], tuple[NDArray[np.bool_], ...]]
# Rounding moves a result by 0.2 eps (RMS over mantissas), so 4 eps are about twenty noise floors. An artifact passes with 8.
MOVED_BY = 4.0
# In opposite directions, a score that moves in proportion crosses a close one in one of the two. A tie within a hundredth of the
# movement is missed by one pair in a hundred, and by four pairs in a hundred million.
PAIRS = 4


def near_ties(
    module: nn.Module,
    signature: Signature,
    limits: InputLimits,
    samples: SampleInputs,
    reference: Recording,
    precision: str,
    progress: Progress,
) -> Ties:
    """Returns, for each family and output of integers, where the reference is near a tie for a precision."""
    signature = replace(signature, outputs=tuple(spec for spec in signature.outputs if not spec.is_float))
    if not signature.outputs:
        return {}
    names = {spec.name for spec in signature.outputs}
    ties = {
        key: [np.zeros(chunk.shape, dtype=bool) for chunk in chunks]
        for key, chunks in reference.items()
        if key[1] in names
    }
    for step, seed in _steps(precision):
        moved = record_runner(
            lambda step=step, seed=seed: MovedRunner(module, signature, limits, step, seed),  # type: ignore[misc]
            samples, signature, progress,
        )  # fmt: skip
        for key, chunks in ties.items():
            for tied, got, wanted in zip(chunks, moved[key], reference[key], strict=True):
                tied |= got != wanted
    return {key: tuple(chunks) for key, chunks in ties.items()}


def _steps(precision: str) -> Iterator[tuple[float, int]]:
    for seed in range(PAIRS):
        for direction in (1, -1):
            yield direction * MOVED_BY * EPS[precision], seed


class MovedRunner(TorchRunner):
    """Runs a module in float64, but every operator's result moves by ± ``step`` of itself, and inputs by ``step`` of their RMS.

    The signs depend on ``seed`` alone, so that the opposite step moves in the opposite direction.
    """

    def __init__(self, module: nn.Module, signature: Signature, limits: InputLimits, step: float, seed: int) -> None:
        super().__init__(module, signature, limits, "fp64")
        self._step, self._seed = step, seed

    def compute(self, inputs: Arrays) -> Arrays:
        with MovedResults(self._step, self._seed) as moved:
            return super().compute({name: _moved_input(array, name, moved) for name, array in inputs.items()})


def _moved_input(array: NDArray[np.generic], name: str, moved: MovedResults) -> NDArray[np.generic]:
    if array.dtype.kind != "f" or name.endswith("attention_mask"):
        return array
    wide = array.astype(np.float64)
    size = np.sqrt(np.square(wide).mean())  # of all, so that zeros move too: equal objects are a tie
    return np.asarray(wide + size * moved.steps(wide.shape).numpy())


class MovedResults(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own
    """While it is active, each operator's float64 results are multiplied by 1 ± ``step``, as rounding would, but further."""

    def __init__(self, step: float, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's own
        self._step, self._generator = step, torch.Generator().manual_seed(seed)
        self._least, self._spread = 1 - step, (1 + step) - (1 - step)
        self._computes: dict[Any, bool] = {}

    def steps(self, shape: Sequence[int]) -> Tensor:
        """Returns ``step`` with random signs."""
        return (self._coins(shape) * 2 - 1) * self._step

    def _coins(self, shape: Sequence[int]) -> Tensor:
        return torch.randint(0, 2, tuple(shape), generator=self._generator, dtype=torch.float64)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        computes = self._computes.get(func)
        if computes is None:  # a view computes nothing
            computes = all(returned.alias_info is None for returned in func._schema.returns)
            self._computes[func] = computes
        if not computes:
            return result
        return self._moved(result) if isinstance(result, Tensor) else tree_map(self._moved, result)

    def _moved(self, result: Any) -> Any:
        if not isinstance(result, Tensor) or result.dtype != torch.float64:
            return result
        # In place, for there are as many as operators. Both sums are exact: 1 + step where a coin shows 1, else 1 - step.
        return result * self._coins(result.shape).mul_(self._spread).add_(self._least)
