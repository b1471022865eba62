"""Counts the kernels that one call of an ONNX file launches on onnxruntime's CUDA provider, without a GPU.

Small networks are launch-bound on a GPU: a call costs as much as its kernels are many. The count is read off the operators of
the written file, by what onnxruntime's sources say of each. It is a lower bound: a library may need several kernels for one
product (cuBLAS splits a long sum, for example). Nodes that read only constants cost nothing: a session computes them once, when
it is opened. Sources are files of onnxruntime below `onnxruntime/core/providers/cuda` (``core:``) or
`onnxruntime/contrib_ops/cuda` (``contrib:``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

# Operators that compute sizes on the CPU, or copy between the devices: with one of them a call is no CUDA graph.
ON_CPU = frozenset({"Shape", "Size", "Range", "MemcpyToHost", "MemcpyFromHost"})
# Operators that only name their input anew.
FREE = frozenset({"Constant", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
MICROSOFT = "com.microsoft"
Shape = Sequence[int | None]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Launches:
    """The kernels that an operator launches: a number, or a function of a node and the shapes; ``source``: where that is read."""

    count: int | Callable[[onnx.NodeProto, Shapes], int]
    source: str

    def of(self, node: onnx.NodeProto, shapes: Shapes) -> int:
        """Returns the number for one node."""
        return self.count if isinstance(self.count, int) else self.count(node, shapes)


@dataclass(frozen=True)
class LaunchCount:
    """What was counted in a graph.

    ``total``: the kernels of one call. ``by_operator``: the same, by operator. ``on_cpu``: nodes that compute on the CPU or copy,
    by operator; they are not among the kernels.
    """

    total: int = 0
    by_operator: dict[str, int] = field(default_factory=dict)
    on_cpu: dict[str, int] = field(default_factory=dict)


def count_launches(model: onnx.ModelProto) -> LaunchCount:
    """Counts a graph whose values have shapes where they are known. An attention of unknown sizes counts as the dearest."""
    graph = model.graph
    shapes = {value.name: _sizes(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    constant = {tensor.name for tensor in graph.initializer}
    by_operator: Counter[str] = Counter()
    on_cpu: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in ON_CPU:
            on_cpu[node.op_type] += 1
        elif all(name in constant for name in node.input if name):
            constant.update(node.output)
        elif node.op_type not in FREE:
            by_operator[node.op_type] += OPERATORS.get((node.domain, node.op_type), ONE).of(node, shapes)
    counted = dict(by_operator.most_common())
    return LaunchCount(sum(counted.values()), counted, dict(on_cpu.most_common()))


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    """The product, and a second one that writes a bias of one row into every row of the result first."""
    return 2 if len(node.input) > 2 and node.input[2] else 1


def _attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    """One kernel computes it, and one looks for rows without a key. It takes 3 axes; 4 are transposed before and after.

    Otherwise scores, softmax and product, on 4 axes; 3 are transposed before (query, key, value) and after.
    """
    query, key = (list(shapes.get(name, ())) for name in node.input[:2])
    heads, has_mask = _attribute(node, "q_num_heads"), len(node.input) > 3 and bool(node.input[3])
    head = query[-1] // heads if query and query[-1] is not None and heads else query[-1] if query else None
    length = key[-2] if key else None
    if _divides(8, head) and (not has_mask or _divides(4, length)):
        return 1 + has_mask + (2 if len(query) == 4 else 0)
    return 3 if len(query) == 4 else 7


def _packed_attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    """One kernel adds the bias and separates query, key and value; one computes the rest if the sizes fit, in 16 bits.

    Otherwise scores, softmax, product, and the transposition of the result.
    """
    return 2 if fits_one_kernel(shapes.get(node.input[0], ())) else 5


def fits_one_kernel(packed: Sequence[object]) -> bool:
    """Whether a packed product [batch, tokens, heads, 3, size of a head] in 16 bits is of sizes that the fused kernel takes."""
    return len(packed) == 5 and _divides(8, packed[1]) and _divides(8, packed[4])


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), 0)


def _divides(number: int, size: object) -> bool:
    return isinstance(size, int) and size > 0 and size % number == 0


ONE = Launches(1, "an operator that computes is one kernel at least")
OPERATORS: dict[tuple[str, str], Launches] = {
    ("", "Gemm"): Launches(_gemm, "core:math/gemm.cc, ComputeDefault: a bias is broadcast by a product with ones"),
    ("", "Attention"): Launches(
        _attention,
        "core:llm/attention.cc, RunMemoryEfficientAttention and RunUnfusedAttention; attention_mask_impl.cu, "
        "LaunchZeroFullyMaskedRows (microsoft/onnxruntime#27831, #28958)",
    ),
    (MICROSOFT, "MultiHeadAttention"): Launches(
        _packed_attention,
        "contrib:bert/attention_prepare_qkv.cu, PrepareQkv_MHA_PackedQKV; bert/multihead_attention.cc, "
        "use_memory_efficient_attention; bert/attention_impl.cu, UnfusedAttention",
    ),
    (MICROSOFT, "SkipLayerNormalization"): Launches(
        1, "contrib:bert/skip_layer_norm.cc: strict mode calls HostApplyLayerNorm, which adds skip and bias as it reads"
    ),
    (MICROSOFT, "BiasGelu"): Launches(1, "contrib:math/bias_gelu_impl.cu, LaunchBiasGeluKernel"),
}
