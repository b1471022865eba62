"""The same faults planted into a written ONNX file: by editing its nodes and initializers, never by exporting again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

PlantInFile = Callable[[ir.Graph], None]


def plant_in_file(source: Path, target: Path, plant: PlantInFile) -> None:
    """Writes the faulty file and its data beside it."""
    model = ir.load(source)
    plant(model.graph)
    target.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, target, external_data=f"{target.name}.data")


def node(graph: ir.Graph, name: str) -> ir.Node:
    return next(n for n in graph if n.name == name)


def change(graph: ir.Graph, name: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replaces an initializer's numbers; the name is the parameter's, kernels lie (inputs, outputs)."""
    value = graph.initializers[name]
    assert value.const_value is not None
    edited = edit(value.const_value.numpy())
    # ascontiguousarray alone makes a vector of a scalar
    value.const_value = ir.Tensor(np.ascontiguousarray(edited).reshape(edited.shape), name=name)


def constant(graph: ir.Graph, like: ir.Value, number: float) -> ir.Value:
    """A new scalar initializer of the dtype of another one."""
    assert like.const_value is not None
    array = np.full(like.const_value.numpy().shape, number, dtype=like.const_value.numpy().dtype)
    value = ir.Value(name=f"planted/{number}/{len(graph.initializers)}", const_value=ir.Tensor(array))
    value.dtype, value.shape = like.dtype, like.shape
    graph.register_initializer(value)
    return value


def gelu_tanh(graph: ir.Graph) -> None:
    for erf in [n for n in graph if n.op_type == "Erf"]:
        erf.op_type = "Tanh"  # close to it after the division by sqrt 2: the fault of an approximation, if a cruder one


def swapped_query_and_key(graph: ir.Graph) -> None:
    prefix = "lxmert.cross_modality_layers.0.cross_attention"
    for part in ("weight", "bias"):
        query, key = (graph.initializers[f"{prefix}.{name}.{part}"] for name in ("query", "key"))
        query.const_value, key.const_value = key.const_value, query.const_value


def transposed_weight(graph: ir.Graph) -> None:
    change(graph, "lxmert.language_layers.1.self_attention.output.weight", lambda weight: weight.T)


def layer_norm_eps(graph: ir.Graph) -> None:
    for norm in graph:
        if norm.op_type == "LayerNormalization":
            norm.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-5)


def ignored_language_mask(graph: ir.Graph) -> None:
    _without_bias(graph, "lxmert/Mul")


def ignored_vision_mask(graph: ir.Graph) -> None:
    _without_bias(graph, "lxmert/Mul_2")


def sequential_cross_attention(graph: ir.Graph) -> None:
    prefix = "lxmert.cross_modality_layers.0.cross_attention"
    seeing = node(graph, f"{prefix}.layer_norm/LayerNormalization").outputs[0]
    after = next((use.node for use in seeing.uses() if use.node.op_type == "Cast"), None)
    written = after.outputs[0] if after else seeing
    for name in ("key", "value"):  # the second call of each: vision reads the language that was just written
        node(graph, f"{prefix}.{name}/MatMul_2").replace_input_with(0, written)
    graph.sort()


def missing_half(graph: ir.Graph) -> None:
    half = node(graph, "lxmert.visual_embeddings/Div")
    half.replace_input_with(1, constant(graph, half.inputs[1], 1.0))


def dropped_token_types(graph: ir.Graph) -> None:
    change(graph, "lxmert.embeddings.token_type.weight", lambda weight: np.repeat(weight[:1], len(weight), axis=0))


def positions_off_by_one(graph: ir.Graph) -> None:
    change(graph, "lxmert.embeddings.position.weight", lambda weight: np.roll(weight, -1, axis=0))


def wrong_head_count(graph: ir.Graph) -> None:
    for reshape in [n for n in graph if n.op_type == "Reshape"]:
        shape = reshape.inputs[1]
        assert shape is not None and shape.const_value is not None
        sizes = shape.const_value.numpy().tolist()
        if len(sizes) == 4:
            wrong = np.array([*sizes[:2], sizes[2] // 2, sizes[3] * 2], dtype=np.int64)
            value = ir.Value(name=f"{reshape.name}/planted", const_value=ir.Tensor(wrong))
            value.dtype, value.shape = ir.DataType.INT64, ir.Shape([4])
            graph.register_initializer(value)
            reshape.replace_input_with(1, value)
    for value in (output for n in graph for output in n.outputs):
        if value.shape is not None and len(value.shape) == 4:
            value.shape = None  # stated for the right number of heads


def last_token_pooled(graph: ir.Graph) -> None:
    pick = next(n for n in graph if n.op_type == "Gather" and n.name == "lxmert/Gather")
    pick.replace_input_with(1, constant(graph, pick.inputs[1], -1))


def untied_decoder(graph: ir.Graph) -> None:
    transpose = next(n for n in graph if n.op_type == "Transpose" and n.inputs[0].is_initializer())
    words = transpose.inputs[0]
    numbers = words.const_value.numpy()
    noise = np.random.default_rng(1).standard_normal(numbers.shape) * 0.1
    value = ir.Value(name="planted/decoder", const_value=ir.Tensor((numbers + noise).astype(numbers.dtype)))
    value.dtype, value.shape = words.dtype, words.shape
    graph.register_initializer(value)
    transpose.replace_input_with(0, value)


def one_weight_changed(graph: ir.Graph) -> None:
    def flip(weight: np.ndarray) -> np.ndarray:
        changed = weight.copy()
        changed[np.abs(changed[:, 0]).argmax(), 0] *= -1
        return changed

    change(graph, "lxmert.language_layers.0.feed_forward.contract.weight", flip)


def fp16_overflow(graph: ir.Graph) -> None:
    prefix, factor = "lxmert.language_layers.0.self_attention", 2.0**15
    for name in ("value.weight", "value.bias"):
        change(graph, f"{prefix}.{name}", lambda numbers: (numbers * factor).astype(numbers.dtype))
    change(graph, f"{prefix}.output.weight", lambda weight: (weight / factor).astype(weight.dtype))


def _without_bias(graph: ir.Graph, name: str) -> None:
    multiply = node(graph, name)
    multiply.replace_input_with(1, constant(graph, multiply.inputs[1], 0.0))


FILE_FAULTS: dict[str, PlantInFile] = {
    plant.__name__: plant
    for plant in (
        gelu_tanh,
        swapped_query_and_key,
        transposed_weight,
        layer_norm_eps,
        ignored_language_mask,
        ignored_vision_mask,
        sequential_cross_attention,
        missing_half,
        dropped_token_types,
        positions_off_by_one,
        wrong_head_count,
        last_token_pooled,
        untied_decoder,
        one_weight_changed,
        fp16_overflow,
    )
}
