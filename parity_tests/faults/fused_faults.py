"""Faults planted into a written file of fused operators (``--optimize-for cuda``), by editing its nodes and initializers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from parity_tests.faults.onnx_faults import change, constant, node

CROSS = "lxmert.cross_modality_layers.0.cross_attention"
LANGUAGE = "lxmert.language_layers.0"
ATTENTIONS = ("MultiHeadAttention", "Attention")


def wrong_scale(graph: ir.Graph) -> None:
    for fused in [n for n in graph if n.op_type in ATTENTIONS]:
        fused.attributes["scale"] = ir.AttrFloat32("scale", fused.attributes["scale"].as_float() * 2)


def value_and_query_exchanged(graph: ir.Graph) -> None:
    """In the packed weight: parts lie head by head in half precision, and side by side in float32."""
    heads = next((n.attributes["num_heads"].as_int() for n in graph if n.op_type == "MultiHeadAttention"), 1)

    def exchange(weight: np.ndarray) -> np.ndarray:
        parts = weight.reshape(*weight.shape[:-1], heads, 3, -1)
        return parts[..., ::-1, :].reshape(weight.shape)

    change(graph, f"{CROSS}.query+key+value.weight", exchange)


def packed_bias_lost(graph: ir.Graph) -> None:
    change(graph, f"{LANGUAGE}.self_attention.query+key+value.bias", lambda bias: bias * 0)


def sides_see_themselves(graph: ir.Graph) -> None:
    name = next(name for name in graph.initializers if name.startswith("attention/sides/"))
    change(graph, name, lambda sides: sides * 0)


def ignored_language_mask(graph: ir.Graph) -> None:
    multiply = node(graph, "lxmert/Mul")
    multiply.replace_input_with(1, constant(graph, multiply.inputs[1], 0.0))


def residual_lost(graph: ir.Graph) -> None:
    norm = node(graph, f"{LANGUAGE}.feed_forward.layer_norm/SkipLayerNormalization")
    norm.replace_input_with(1, norm.inputs[0])


def bias_of_skip_norm_lost(graph: ir.Graph) -> None:
    change(graph, f"{LANGUAGE}.feed_forward.contract.bias", lambda bias: bias * 0)


def gain_lost(graph: ir.Graph) -> None:
    change(graph, f"{CROSS}.layer_norm.weight", np.ones_like)


def bias_of_gelu_lost(graph: ir.Graph) -> None:
    change(graph, f"{LANGUAGE}.feed_forward.expand.bias", lambda bias: bias * 0)


def overflow(graph: ir.Graph) -> None:
    """Values beyond fp16's range inside of a packed attention, the same function in float32."""
    factor, name = 2.0**15, f"{LANGUAGE}.self_attention.query+key+value"
    heads = next((n.attributes["num_heads"].as_int() for n in graph if n.op_type == "MultiHeadAttention"), 1)

    def enlarge(weight: np.ndarray) -> np.ndarray:
        parts = weight.reshape(*weight.shape[:-1], heads, 3, -1).astype(np.float32)
        parts[..., 2, :] *= factor
        return parts.reshape(weight.shape).astype(weight.dtype)

    change(graph, f"{name}.weight", enlarge)
    change(graph, f"{name}.bias", lambda bias: (bias * np.repeat([1, 1, factor], len(bias) // 3)).astype(bias.dtype))
    change(graph, f"{LANGUAGE}.self_attention.output.weight", lambda weight: (weight / factor).astype(weight.dtype))


FUSED_FAULTS: dict[str, Callable[[ir.Graph], None]] = {
    plant.__name__: plant
    for plant in (
        wrong_scale, value_and_query_exchanged, packed_bias_lost, sides_see_themselves, ignored_language_mask, residual_lost,
        bias_of_skip_norm_lost, gain_lost, bias_of_gelu_lost,
    )
}  # fmt: skip
