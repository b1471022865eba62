"""What is counted of a graph: operators, and the precisions of its matmuls and their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# Precisions by the names that files and libraries have for them.
PRECISION_NAMES = {
    "float32": "fp32", "float": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64", "double": "fp64",
}  # fmt: skip


@dataclass(frozen=True)
class GraphFacts:
    """Counts of a graph: its operators by name, its matmuls and their stored weights by precision."""

    operators: dict[str, int]
    matmuls: dict[str, int]
    matmul_weights: dict[str, int]


def count_precisions(names: Iterable[str]) -> dict[str, int]:
    """How often each precision occurs among dtype names."""
    return dict(Counter(PRECISION_NAMES.get(name.lower(), name.lower()) for name in names))
