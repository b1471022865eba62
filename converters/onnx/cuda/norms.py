"""Makes one operator of a sum and the LayerNorm of it, and takes away the casts around every LayerNorm.

    before    x · w → Add(bias) → Add(residual) → Cast → LayerNormalization (float32) → Cast
    after     x · w → SkipLayerNormalization(residual, bias), or LayerNormalization in half precision without a sum before it

Both compute in float32 inside: LayerNormalization by its ``stash_type``, SkipLayerNormalization in strict mode, which is an
option of the CUDA provider (onnxruntime/contrib_ops/cuda/bert/skip_layer_norm.cc). Without it half-precision sums overflow.
"""

from __future__ import annotations

import onnx_ir as ir

from converters.onnx.cuda.patterns import emit, is_vector, only_reader, producer, sizes_of, stored_as, uncast, with_bias

DEFAULT_EPSILON = 1e-5  # of ONNX's LayerNormalization


def fuse_norms(graph: ir.Graph) -> None:
    """Rewrites every LayerNorm over the last axis, in place."""
    for norm in [node for node in graph if node.op_type == "LayerNormalization"]:
        source, result = uncast(norm.inputs[0]), norm.outputs[0]
        if source is None or not _is_over_last_axis(norm):
            continue
        narrow = only_reader(result, "Cast")
        if source.dtype != result.dtype and narrow is not None and narrow.outputs[0].dtype == source.dtype:
            result = narrow.outputs[0]
        parameters = [None if value is None else stored_as(value, source.dtype) for value in norm.inputs[1:3]]
        if source.dtype != result.dtype or not parameters or parameters[0] is None:
            continue
        _replace(norm, source, result, parameters)


def _is_over_last_axis(norm: ir.Node) -> bool:
    axis = norm.attributes["axis"].as_int() if "axis" in norm.attributes else -1
    return axis in (-1, len(norm.inputs[0].shape or ()) - 1) if norm.inputs[0] is not None else False


def _replace(norm: ir.Node, source: ir.Value, result: ir.Value, parameters: list[ir.Value | None]) -> None:
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else DEFAULT_EPSILON
    summands = _summands(source)
    if summands is None:
        inputs, operator = [source, *parameters], "LayerNormalization"
        attributes: dict[str, int | float] = {"axis": -1, "epsilon": epsilon}
    else:
        value, skip, bias = summands
        gain, shift = (*parameters, None)[:2]
        inputs, operator = [value, skip, gain, shift, *([] if bias is None else [bias])], "SkipLayerNormalization"
        attributes = {"epsilon": epsilon}
    (new,) = emit(norm, operator, inputs, attributes, like=norm, dtype=source.dtype, shapes=[sizes_of(source)])
    result.replace_all_uses_with(new, replace_graph_outputs=True)


def _summands(source: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value | None] | None:
    """Returns (value, residual, bias) of a sum that only the norm reads, where both have the shape of the sum."""
    node = producer(source, "Add")
    if node is None or node.outputs[0] is not source or source.is_graph_output() or len(source.uses()) != 1:
        return None
    first, second = node.inputs
    if first is None or second is None or is_vector(first) or is_vector(second):
        return None
    if first.shape != source.shape or second.shape != source.shape:
        return None
    for value, skip in ((first, second), (second, first)):
        if (found := with_bias(value)) is not None and found[0].shape == source.shape:
            return found[0], skip, found[1]
    return first, second, None
