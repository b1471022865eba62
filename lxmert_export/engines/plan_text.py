"""Reads in which type a TensorRT-RTX engine multiplies matrices, from the text that its file holds.

The plan of TensorRT-RTX 1.7 describes its kernels and tensors as lines of text, for each of its GPUs. NVIDIA does not document
it, so what cannot be read says nothing: this is a second opinion beside what TensorRT parsed, taken from the file itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

# A tensor: tensor={ … name="…" … type=half }; a product that is compiled with what follows it:
# runtime_fusion={ name=… input_args={ "factor" "factor" … } … backbone=gemm }
TENSOR = re.compile(rb'tensor=\{[^\n}]*(?:\{[^\n}]*\}[^\n}]*)*?name="([^"\n]*)"[^\n]*? type=(\w+)')
PRODUCT = re.compile(rb"runtime_fusion=\{[^\n]*?input_args=\{ ([^\n}]*)\}[^\n]*backbone=gemm")
NAME = re.compile(rb'"([^"^]*)')
PRECISIONS = {b"half": "fp16", b"float": "fp32", b"bf16": "bf16", b"bfloat16": "bf16", b"int8": "int8"}
FACTORS = 2


def products_of(plan: bytes) -> dict[str, int]:
    """Returns how many products a plan holds, by the precision of their factors; empty if the text is not as known.

    A product of which no factor has a known type is left out. Attention has kernels of its own, whose types are not told.
    """
    types = {name: PRECISIONS[kind] for name, kind in TENSOR.findall(plan) if kind in PRECISIONS}
    counts: Counter[str] = Counter()
    for arguments in PRODUCT.findall(plan):
        factors = {types[name] for name in NAME.findall(arguments)[: 2 * FACTORS : 2] if name in types}
        if len(factors) == 1:
            counts.update(factors)
    return dict(sorted(counts.items()))


def mismatch(plan: Mapping[str, int], parsed: Mapping[str, int]) -> str | None:
    """Returns in words that a plan multiplies in a precision that the parsed network does not have; None if it does not."""
    odd = {precision: count for precision, count in plan.items() if precision not in parsed}
    if not odd:
        return None
    listed = ", ".join(f"{count} in {precision}" for precision, count in odd.items())
    return f"the engine's file tells of products {listed}, and TensorRT parsed {', '.join(parsed)} alone: verify it on its GPU"
