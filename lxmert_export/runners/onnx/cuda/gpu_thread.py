"""The one thread of a process that uses the GPU through onnxruntime.

onnxruntime keeps a captured CUDA graph for the thread that captured it, and while one is captured, any other thread that uses the
GPU breaks it (CUDA error 900). Source: onnxruntime/core/providers/cuda/cuda_execution_provider.h.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
_here = threading.local()
ResultT = TypeVar("ResultT")


def on_gpu_thread(work: Callable[P, ResultT], *arguments: P.args, **options: P.kwargs) -> ResultT:
    """Runs a function in that thread, after all that were given to it before, and returns its result or raises its error.

    In that thread itself it is run at once.
    """
    if getattr(_here, "is_gpu_thread", False):
        return work(*arguments, **options)
    return _thread(os.getpid()).submit(work, *arguments, **options).result()


@cache
def _thread(process: int) -> ThreadPoolExecutor:
    """The thread of a process: a forked one has its own."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="lxmert-export-gpu", initializer=_begin)


def _begin() -> None:
    _here.is_gpu_thread = True
