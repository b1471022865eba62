"""The least time that a call can take on a device: the time to move its bytes, or to compute its matrix products.

The rates of the device are measured by a large copy and a product of large matrices, not read from a table.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from lxmert_export.model.signature_module import DTYPES, SignatureModule
from lxmert_export.model.twins import recast
from lxmert_export.spec.signature import Precision, Signature

# Too large for any cache, and large enough to keep every core of the largest GPU busy.
COPIED_BYTES, MATRIX = 1 << 30, 8192
TRIALS = 12
EMBEDDING = torch.ops.aten.embedding.default


@dataclass(frozen=True)
class Rates:
    """A device's rates: bytes read and written by a copy, and floating-point operations of products by precision."""

    bytes_per_second: float
    flops_per_second: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns the rates as the results hold them."""
        return asdict(self)


@dataclass(frozen=True)
class Cost:
    """The work of a call: bytes of weights, inputs and outputs, each moved once, and operations of products."""

    bytes: int
    flops: int


def measure_rates(
    device: str,
    precisions: tuple[Precision, ...],
    *,
    wait: Callable[[], object],
    copied_bytes: int = COPIED_BYTES,
    matrix: int = MATRIX,
) -> Rates:
    """Measures the device's rates: medians of several trials, with TF32 off."""
    source = torch.zeros(copied_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copying = _seconds(lambda: target.copy_(source), wait)
    flops: dict[str, float] = {}
    for precision in precisions:
        left = torch.ones(matrix, matrix, dtype=DTYPES[precision], device=device)
        product = torch.empty_like(left)
        flops[precision] = 2 * matrix**3 / _seconds(partial(torch.mm, left, left, out=product), wait)
    return Rates(2 * copied_bytes / copying, flops)


def cost_of_call(module: nn.Module, signature: Signature, sizes: Mapping[str, int], precision: Precision) -> Cost:
    """Returns the work of a call of these sizes: only layers that outputs need, and only looked-up rows of tables."""
    dtype = DTYPES[precision]
    called = SignatureModule(recast(module, dtype, device="meta"), signature, dtype)
    inputs = [
        torch.zeros(spec.shape(sizes), dtype=getattr(torch, spec.dtype), device="meta") for spec in signature.inputs
    ]
    with torch.inference_mode():
        needed = make_fx(called)(*inputs)
        needed.graph.eliminate_dead_code()
        needed.recompile()
        with FlopCounterMode(display=False) as counter:
            outputs = needed(*inputs)
    nodes = needed.graph.nodes
    # One weight has a node for each of its uses.
    weights = {
        getattr(needed, node.target)
        for node in nodes
        if node.op == "get_attr" and any(user.target != EMBEDDING for user in node.users)
    }
    looked_up = [node.meta["val"] for node in nodes if node.target == EMBEDDING]
    moved = sum(tensor.nbytes for tensor in (*weights, *looked_up, *inputs, *outputs))
    return Cost(moved, counter.get_total_flops())


def _seconds(work: Callable[[], object], wait: Callable[[], object]) -> float:
    taken = []
    for _ in range(TRIALS):
        wait()
        began = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[2:])  # the first two wake the device
