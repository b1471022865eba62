"""Writes an ONNX graph, and its weights to a file beside it."""

from __future__ import annotations

import errno
from inspect import signature
from pathlib import Path
from typing import Any

import onnx_ir as ir

# From 1.1 on onnx_ir writes several weights at once unless told; before, it had no such options and wrote one at a time.
ONE_AT_A_TIME: dict[str, Any] = {
    option: 1 for option in ("max_workers", "max_in_flight_bytes") if option in signature(ir.save).parameters
}


def save_streamed(model: ir.Model, path: Path, data: str) -> None:
    """Writes the graph to ``path`` and the weights to the file ``data`` beside it; one weight is in memory at a time.

    ``OSError``: they cannot be written.
    """
    try:
        ir.save(model, path, external_data=data, **ONE_AT_A_TIME)
    except OSError as error:
        if error.errno is not None:
            raise
        # numpy says how much it wrote, and not why no more.
        raise OSError(errno.EIO, f"its disk took only a part of it ({error}); is there space left?") from error
