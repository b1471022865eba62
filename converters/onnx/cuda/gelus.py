"""Makes one operator of a bias and the GELU after it.

    before    x · w → Add(bias) → Cast → (½ · x) · (1 + erf(x / √2)), or Gelu (float32) → Cast
    after     x · w → BiasGelu(bias)

Source: onnxruntime/contrib_ops/cuda/math/bias_gelu.cc; fp32, fp16 and bf16.
"""

from __future__ import annotations

import onnx_ir as ir

from converters.onnx.cuda.patterns import emit, is_vector, only_reader, producer, sizes_of, uncast
from converters.onnx.packed import store_as_transpose


def fuse_gelus(graph: ir.Graph) -> None:
    """Rewrites every exact GELU that follows a bias, in place."""
    for node in [node for node in graph if node.op_type in ("Erf", "Gelu")]:
        found = _of_erf(node) if node.op_type == "Erf" else _of_operator(node)
        if found is None:
            continue
        source, result = found
        if (narrow := only_reader(result, "Cast")) is not None:
            result = narrow.outputs[0]
        summands = _summands(source) if source.dtype == result.dtype else None
        if summands is not None:
            (new,) = emit(node, "BiasGelu", summands, like=node, dtype=source.dtype, shapes=[sizes_of(source)])
            result.replace_all_uses_with(new, replace_graph_outputs=True)


def _of_operator(gelu: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Returns (x, GELU of x) of ONNX's operator; None: it is the approximation by tanh, or x is read elsewhere."""
    if "approximate" in gelu.attributes and gelu.attributes["approximate"].as_string() != "none":
        return None
    source = uncast(gelu.inputs[0])
    if source is None or only_reader(source, "Gelu") is None:
        return None
    return source, gelu.outputs[0]


def _of_erf(erf: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Returns (x, GELU of x) of Erf → + 1 → · (½ · x), as ``group_gelu`` writes it; None: it is something else."""
    add = only_reader(erf.outputs[0], "Add")
    product = None if add is None else only_reader(add.outputs[0], "Mul")
    scaled = producer(erf.inputs[0], "Div") or producer(erf.inputs[0], "Mul")
    if product is None or scaled is None:
        return None
    source = uncast(next((value for value in scaled.inputs if value is not None and not value.is_initializer()), None))
    if source is None:
        return None
    readers = [use.node for use in source.uses()]
    if len(readers) == 1 and readers[0].op_type == "Cast":
        readers = [use.node for use in readers[0].outputs[0].uses()]
    halves = [value.producer() for value in product.inputs if value is not None]
    alone = len(readers) == 2 and all(reader is scaled or reader in halves for reader in readers)
    return (source, product.outputs[0]) if alone else None


def _summands(source: ir.Value) -> list[ir.Value] | None:
    """Returns [x, bias] of a sum with a stored vector, or of a Gemm, of which the product is left."""
    node = source.producer()
    if node is None or source.is_graph_output():
        return None
    if node.op_type == "Gemm" and len(node.inputs) > 2 and is_vector(node.inputs[2]) and _is_plain(node):
        assert node.inputs[1] is not None and node.inputs[2] is not None
        if node.attributes["transB"].as_int():
            store_as_transpose(node.inputs[1])
        (product,) = emit(
            node, "MatMul", list(node.inputs[:2]), like=node, dtype=source.dtype, shapes=[sizes_of(source)]
        )
        return [product, node.inputs[2]]
    if node.op_type == "Add":
        for one, other in (node.inputs, node.inputs[::-1]):
            if one is not None and other is not None and is_vector(other) and not is_vector(one):
                return [one, other]
    return None


def _is_plain(gemm: ir.Node) -> bool:
    """Whether a Gemm is x · w + b, or x · wᵀ + b of a weight that nothing else reads."""
    usual = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    others = {name: attribute.value for name, attribute in gemm.attributes.items() if name != "transB"}
    weight = gemm.inputs[1]
    free = weight is not None and weight.is_initializer() and weight.const_value is None and len(weight.uses()) == 1
    return others == usual and "transB" in gemm.attributes and (free or not gemm.attributes["transB"].as_int())
