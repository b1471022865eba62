"""The canonical model in half and double precision: its dtypes, its float32 islands, its recast twins."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lxmert_export.model.twins import recast, recast_while_used
from lxmert_export.spec.signature import TASKS, Task
from parity_tests.fixtures.random_models import inputs_for, lively_model

F64 = torch.float64


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, nn.Module.double], ids=lambda f: f.__name__)
@pytest.mark.parametrize("task", TASKS)
def test_every_precision_runs(task: Task, cast: object) -> None:
    model = cast(lively_model(task))  # type: ignore[operator]
    dtype = next(model.parameters()).dtype
    reference = lively_model(task).double()(**inputs_for(task, F64))
    output = model(**inputs_for(task, dtype))
    for name, value in output.items():
        assert value.dtype == dtype
        error = (value.double() - reference[name]).abs().max()
        assert error < 20 * torch.finfo(dtype).eps * reference[name].abs().max()


class OperandTypes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the dtype of the first operand of every operator that runs, by the operator's name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: dict[str, set[torch.dtype]] = defaultdict(set)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], Tensor):
            self.seen[func.overloadpacket.__name__].add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, F64], ids=str)
def test_float32_islands_and_nothing_wider(dtype: torch.dtype) -> None:
    """LayerNorm, softmax and GELU run in at least float32, every matrix product in the model's own dtype."""
    model, inputs = recast(lively_model("pretraining"), dtype), inputs_for("pretraining", dtype)
    unmasked = {name: value for name, value in inputs.items() if not name.endswith("mask")}
    with torch.no_grad(), OperandTypes() as operands:
        model(**inputs, output_attentions=True)
        model(**unmasked, output_attentions=True)  # no float32 bias that would widen the scores by itself
    for island in ("_softmax", "native_layer_norm", "gelu"):
        assert operands.seen[island] == {torch.promote_types(dtype, torch.float32)}
    products = {name for name in operands.seen if name in ("mm", "addmm", "bmm", "baddbmm")}
    assert len(products) >= 2
    assert {kind for name in products for kind in operands.seen[name]} == {dtype}


def test_recast_keeps_layer_norms_wide_and_weights_tied() -> None:
    model = lively_model("pretraining")
    twin = recast(model, torch.float16)
    assert twin.lxmert.embeddings.layer_norm.weight.dtype == torch.float32
    assert twin.lxmert.pooler.weight.dtype == torch.float16
    assert twin.masked_language_head.decoder.weight is twin.lxmert.embeddings.word.weight
    assert model.lxmert.pooler.weight.dtype == torch.float32
    assert recast(model, torch.float32).lxmert.pooler.weight.data_ptr() == model.lxmert.pooler.weight.data_ptr()
    assert {p.device.type for p in recast(model, torch.float32, device="meta").parameters()} == {"meta"}


@pytest.mark.parametrize("task", TASKS)
def test_recast_while_used_computes_as_recast(task: Task) -> None:
    model, inputs = lively_model(task), inputs_for(task, F64)
    before = copy.deepcopy(model.state_dict())
    wanted, got = recast(model, F64)(**inputs), recast_while_used(model, F64)(**inputs)
    for name, value in wanted.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, got[name]) and value.dtype == F64
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
