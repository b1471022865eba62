"""The machine's own rate of float32 matrix products: what a contestant's counted operations are held against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature, TensorSpec

NAME = "matmul"
# Rows and columns: large enough for a library's best rate, and about as long as one of LXMERT's calls.
SIZE = 1536
OPERATIONS = 2 * SIZE**3  # multiplications and additions of one product
_SQUARE = (SIZE, SIZE)
SIGNATURE = Signature(
    NAME,
    (TensorSpec("left", "float32", _SQUARE), TensorSpec("right", "float32", _SQUARE)),
    (TensorSpec("product", "float32", _SQUARE),),
    own_module=True,
)


@dataclass(frozen=True)
class OpensMatmul:
    """Opens numpy's float32 matrix product; its BLAS takes the number of threads from the environment."""

    def __call__(self, threads: int) -> Runner:
        """Returns the runner."""
        return _Matmul(NAME, SIGNATURE, InputLimits(1, 1, 1))


class _Matmul(Runner):
    def compute(self, inputs: Arrays) -> Arrays:
        return {"product": np.matmul(inputs["left"], inputs["right"])}


def matmul_inputs() -> Arrays:
    """Two random matrices."""
    generator = np.random.default_rng(0)
    return {spec.name: generator.standard_normal(_SQUARE, np.float32) for spec in SIGNATURE.inputs}
