"""What shortens tracing changes nothing: the same file, the same refusals, and PyTorch as it was.

That skipping decomposition and promotion keeps the function is what every gate shows; the file is another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import converters.to_onnx
from converters.onnx import quick_tracing
from converters.onnx.quick_tracing import RESULTS, known_shapes
from converters.to_onnx import convert_to_onnx
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import task_signature
from parity_tests.fixtures.random_models import TINY, lively_model
from parity_tests.fixtures.traces import SharedTraces

SIGNATURE = task_signature(TINY, "nlvr2", hidden_states=True)
LIMITS = InputLimits.of(TINY)


def test_the_file_is_the_same(shared_traces: SharedTraces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision has the most casts; nlvr2 the most arithmetic on sizes."""
    monkeypatch.setattr(converters.to_onnx, "trace", shared_traces.trace)
    files = []
    for name in ("quick", "whole"):
        (tmp_path / name).mkdir()
        model = lively_model("nlvr2", TINY)
        files.append(
            [path.read_bytes() for path in convert_to_onnx(model, SIGNATURE, LIMITS, tmp_path / name, precision="fp16")]
        )
        monkeypatch.setattr(converters.to_onnx, "known_shapes", nullcontext)
        monkeypatch.setattr(quick_tracing, "_few_translations", nullcontext)
    assert files[0] == files[1]


def test_each_shortcut_is_taken(shared_traces: SharedTraces, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyTorch that names its parts otherwise would be slow without a word."""
    told: dict[Any, int] = {}

    def counted(kind: Any, shape: Callable[..., Any]) -> Callable[..., Any]:
        def found(*arguments: Any, **options: Any) -> Any:
            result = shape(*arguments, **options)
            told[kind] = told.get(kind, 0) + (result is not None)
            return result

        return found

    read: list[set[str]] = []
    few = quick_tracing._few_translations
    monkeypatch.setattr(quick_tracing, "RESULTS", {kind: counted(kind, shape) for kind, shape in RESULTS.items()})
    monkeypatch.setattr(quick_tracing, "_few_translations", lambda names: read.append(names) or few(names))
    before = {kind: dict(kind.py_kernels) for kind in RESULTS}
    signature = task_signature(TINY, "model")
    graph = shared_traces.trace(lively_model("model", TINY), signature, LIMITS, "fp32", 18)
    assert len(list(graph.graph)) > 100
    assert all(told[kind] >= 8 for kind in RESULTS)
    assert len(read) == 1 and "aten::linear" in read[0] and len(read[0]) < 30
    assert {kind: dict(kind.py_kernels) for kind in RESULTS} == before


def test_another_thread_waits_until_a_conversion_has_ended(
    shared_traces: SharedTraces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a graph is translated, and tables of the whole process are others."""
    few, free = quick_tracing._few_translations, []

    def try_to_begin() -> None:
        free.append(quick_tracing.ONE_AT_A_TIME.acquire(blocking=False))

    def tried(names: set[str]) -> Any:
        other = threading.Thread(target=try_to_begin)
        other.start()
        other.join()
        return few(names)

    monkeypatch.setattr(quick_tracing, "_few_translations", tried)
    shared_traces.trace(lively_model("model", TINY), task_signature(TINY, "model"), LIMITS, "fp32", 18)
    try_to_begin()
    quick_tracing.ONE_AT_A_TIME.release()
    assert free == [False, True]


class Odd(nn.Module):
    """Matmuls that broadcast, a vector, LayerNorm over two axes: and common ones between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.LayerNorm((3, 6)), nn.Linear(6, 2, bias=False)
        self.register_buffer("mixing", torch.ones(5, 6, 6))

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        hidden = self.norm(self.first(rows))  # rows, 3, 6
        mixed = hidden.unsqueeze(1) @ self.mixing  # rows, 5, 3, 6
        return self.last(mixed), mixed[0, 0, 0] @ self.mixing[0], mixed @ mixed.transpose(-1, -2)


def test_odd_shapes_are_those_of_pytorch() -> None:
    def traced() -> list[str]:
        rows = torch.export.Dim("rows", min=1, max=100)
        program = torch.export.export(Odd(), (torch.ones(7, 3, 4),), dynamic_shapes=({0: rows},), strict=False)
        values = [node.meta.get("val") for node in program.graph.nodes]
        return [f"{value.shape} {value.stride()} {value.dtype}" for value in values if isinstance(value, Tensor)]

    with known_shapes():
        quick = traced()
        assert torch.equal(torch.matmul(torch.ones(2, 3), torch.ones(3, 4)), torch.full((2, 4), 3.0))  # real: computed
    assert quick == traced() and len(quick) > 10


@pytest.mark.parametrize("module", [nn.Linear(5, 2), nn.LayerNorm(5)])
def test_what_does_not_fit_is_refused_as_by_pytorch(module: nn.Module) -> None:
    with known_shapes(), pytest.raises((RuntimeError, ValueError)):
        torch.export.export(module, (torch.ones(7, 4),), strict=False)
