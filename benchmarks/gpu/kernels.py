"""Counts the kernels that a call launches, by CUPTI through PyTorch's profiler: it sees those of every library in the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

COPIES = ("Memcpy", "Memset")


def count_kernels(call: Callable[[], object], device: str) -> dict[str, int] | None:
    """Returns how many kernels and copies one call launches on the device; None where no profiler sees them.

    The kernels of a CUDA graph that is replayed are counted one by one.
    """
    if device != "cuda" or not torch.profiler.kineto_available():
        return None
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        call()
        torch.cuda.synchronize()
    return counted([event for event in seen.events() or () if "CUDA" in str(event.device_type)])


def counted(events: list[Any]) -> dict[str, int] | None:
    """Returns the number of kernels and of copies among a device's events; None if there are none: the profiler saw nothing."""
    if not events:
        return None
    copies = sum(any(name in event.name for name in COPIES) for event in events)
    return {"kernels": len(events) - copies, "copies": copies}
