"""Which columns of an int8 file's weights can saturate in kernels that add two products in 16 bits (x86 without VNNI)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

# 255 · 128 < 2¹⁵ ≤ 255 · 129: an unsigned activation times the sum of two neighbouring weights.
LARGEST_PAIR = 128
# The largest magnitude of a stored weight, by ``int8_range``. With 63, no pair of weights saturates.
WEIGHT_RANGES = {"8bit": 127, "7bit": 63}


@dataclass(frozen=True)
class Saturation:
    """``columns``: of how many columns of each matmul's weight a pair can saturate, by the matmul's node; ``all_columns``."""

    columns: dict[str, int]
    all_columns: int

    @property
    def count(self) -> int:
        """The number of columns that can saturate."""
        return sum(self.columns.values())


def saturation_of(path: Path) -> Saturation:
    """Reads the int8 weights of an ONNX file."""
    graph = onnx.load(path).graph
    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    whole = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    columns, everything = {}, 0
    for node in graph.node:
        if node.op_type == "MatMul" and (name := whole.get(node.input[1], "")) in stored:
            can = can_saturate(onnx.numpy_helper.to_array(stored[name]))
            columns[node.name], everything = int(can.sum()), everything + len(can)
    return Saturation(columns, everything)


def can_saturate(weight: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Returns for each column of a weight [in, out] whether two neighbouring rows can saturate."""
    wide = weight.astype(np.int16)
    if len(wide) % 2:
        wide = np.concatenate([wide, np.zeros_like(wide[:1])])
    # Of two weights with different signs, the products have, too, and their sum is no larger than either.
    return np.asarray((np.abs(wide[::2] + wide[1::2]) > LARGEST_PAIR).any(axis=0))
