"""Runs a PyTorch module with the inputs and outputs of a signature, for the reference and the floors of every precision."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lxmert_export.errors import ConversionError, LxmertExportError
from lxmert_export.model.signature_module import DTYPES, SignatureModule
from lxmert_export.model.twins import recast, recast_while_used
from lxmert_export.model.users_code import why_it_failed
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

# Threads by the size of the network, the same on every machine. A small network's matmuls end before a second thread has
# woken up. More threads than cores are slower, and most machines have two.
SMALL, THREADS_IF_SMALL, THREADS = 10_000_000, 1, 2  # parameters
TURN = threading.Lock()


class TorchRunner(Runner):
    """Runs a module on the CPU in one precision. Outputs keep the dtype in which they were computed (bf16 becomes float32)."""

    def __init__(self, module: nn.Module, signature: Signature, limits: InputLimits, precision: str) -> None:
        super().__init__(f"torch {precision}", signature, limits)
        dtype, self._of = DTYPES[precision], type(module).__name__
        parameters = sum(parameter.numel() for parameter in module.parameters())
        # A second copy of a full-size model in float64 would double the gate's memory; the casts of a small one take most of
        # its time. Buffers that a forward pass changes would stay changed in a copy.
        whole = precision != "fp64" or (parameters < SMALL and next(module.buffers(), None) is None)
        twin = recast(module, dtype) if whole else recast_while_used(module, dtype)
        self._module: nn.Module = SignatureModule(twin, signature, dtype).eval()
        self._threads = THREADS_IF_SMALL if parameters < SMALL else THREADS

    def compute(self, inputs: Arrays) -> Arrays:
        """Returns the outputs. ``ConversionError``: the code of the module fails; the message names its line."""
        tensors = (torch.from_numpy(inputs[spec.name]) for spec in self.signature.inputs)
        try:
            with torch.inference_mode(), same_threads(self._threads):
                outputs = self._module(*tensors)
        except (LxmertExportError, MemoryError):
            raise
        except Exception as error:  # whatever a user's code raises
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            raise ConversionError(
                f"{self._of} fails on inputs of its signature: {why_it_failed(error)}; the inputs were {shapes}"
            ) from error
        names = (spec.name for spec in self.signature.outputs)
        return {name: to_array(output) for name, output in zip(names, outputs, strict=True)}

    def release(self) -> None:
        self._module = nn.Identity()


@contextmanager
def same_threads(number: int) -> Iterator[None]:
    """Computes with this number of threads, however many the machine has: another number adds in another order.

    The number is the whole process's, so that runners in several threads take turns.
    """
    with TURN:
        before = torch.get_num_threads()
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def to_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Returns a tensor as a numpy array. bfloat16, which numpy lacks, becomes float32, which holds all its values."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
