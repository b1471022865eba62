"""Simplifies an exporter's ONNX graph and makes it readable, in steps that keep what it computes.

Nothing here reads a weight: initializers are placeholders until the file is written.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Container, Mapping
from typing import cast

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants

from converters.onnx.attention import use_attention_operator
from converters.onnx.cuda.fuse import fuse_for_cuda
from converters.onnx.gelu import group_gelu
from converters.onnx.packed import store_as_transpose
from converters.onnx.read_rows import read_rows_early
from converters.onnx.sizes import slice_positions, unwrap_sizes
from lxmert_export.spec.signature import Attention

# The metadata with the modules that a node comes from, as a printed list: ['', 'model', …, the operation].
MODULE_SCOPES = "pkg.torch.onnx.name_scopes"
NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"
# The most values of a constant that is folded and shared: shapes, axes, scalars. Larger ones are weights.
LARGEST_FOLDED = 16


def make_lean(
    model: ir.Model,
    *,
    axis_names: Mapping[str, str],
    weights: Container[str],
    wrapper: str,
    attention: Attention = "decomposed",
    for_cuda: bool = False,
) -> None:
    """Rewrites the graph in place: simpler, with our names.

    | argument       | meaning                                                                        |
    |----------------|--------------------------------------------------------------------------------|
    | ``axis_names`` | the exporter's symbols (``s41``) → our axis names (``text``)                   |
    | ``weights``    | the names of the module's parameters                                           |
    | ``wrapper``    | the attribute of the export wrapper that holds the module; cut from every name |
    | ``attention``  | ``decomposed``: attention as nodes; ``operator``: as ONNX's ``Attention``      |
    | ``for_cuda``   | few operators, some of which only onnxruntime's CUDA provider has              |
    """
    for value in model.graph.initializers.values():
        if (value.name or "").removeprefix(f"{wrapper}.") in weights:
            value.const_value = None  # the placeholder has no data to read
    name_axes(model.graph, axis_names)
    common.IdentityEliminationPass()(model)
    copy_dimensions_in_reshapes(model.graph)
    fold_constants(model, onnx_shape_inference=False, should_fold=_reads_no_weight)
    common.CommonSubexpressionEliminationPass(size_limit=LARGEST_FOLDED)(model)
    unwrap_sizes(model.graph)
    slice_positions(model.graph)
    common.RemoveUnusedNodesPass()(model)
    store_transposed(model.graph)
    group_gelu(model.graph)
    common.OutputFixPass()(model)  # an extra node for a value with two output names (the last hidden state)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if attention == "operator":
        use_attention_operator(model.graph)
    if for_cuda:
        fuse_for_cuda(model, wrapper)
    read_rows_early(model.graph)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
    name_after_modules(model.graph, wrapper)
    order_shared_matmuls(model.graph)
    common.ClearMetadataAndDocStringPass()(model)
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()  # that pass leaves the exporter's notes about them


def _reads_no_weight(node: ir.Node) -> bool | None:
    return False if any(map(_is_weight, node.inputs)) else None  # None: the pass's own rules decide


def name_axes(graph: ir.Graph, axis_names: Mapping[str, str]) -> None:
    """Replaces the exporter's symbols by our axis names; other symbolic sizes lose their name."""
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    for value in values:
        if value.shape is None:
            continue
        value.shape = ir.Shape(
            [d if isinstance(d, int) else ir.SymbolicDim(axis_names.get(str(d.value))) for d in value.shape]
        )


def copy_dimensions_in_reshapes(graph: ir.Graph) -> None:
    """Gives each Reshape a constant shape if possible: 0 copies a size, -1 is the one size to infer.

    The exporter computes the shape at run time instead, with Shape, Reshape and Concat nodes.
    """
    for node in graph:
        if node.op_type != "Reshape":
            continue
        target = _constant_target(node.inputs[0], node.outputs[0])
        if target is None:
            continue
        constant = ir.node("Constant", [], {"value": ir.tensor(np.array(target, dtype=np.int64))})
        constant.outputs[0].shape, constant.outputs[0].dtype = ir.Shape([len(target)]), ir.DataType.INT64
        graph.insert_before(node, constant)
        node.replace_input_with(1, constant.outputs[0])
        node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)


def _constant_target(source: ir.Value | None, result: ir.Value) -> list[int] | None:
    """Returns the constant shape that reshapes ``source`` to ``result``; None if it would have to infer two sizes."""
    if source is None or source.shape is None or result.shape is None:
        return None
    target = []
    for place, size in enumerate(result.shape):
        if isinstance(size, int):
            target.append(size)
        elif place < len(source.shape) and size.value is not None and source.shape[place] == size:
            target.append(0)
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None


def store_transposed(graph: ir.Graph) -> None:
    """Removes each Transpose that is the only reader of a weight: the weight is stored transposed instead.

    A weight with other readers (the word embedding, tied to the decoder) is stored once, as it is.
    """
    for node in list(graph):
        if node.op_type != "Transpose":
            continue
        weight = node.inputs[0]
        if weight is None or weight.shape is None or not weight.is_initializer() or len(weight.uses()) != 1:
            continue
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else [1, 0]
        if list(order) != [1, 0]:
            continue
        store_as_transpose(weight)
        node.outputs[0].replace_all_uses_with(weight)
        graph.remove(node, safe=True)


def _is_weight(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer()


def name_after_modules(graph: ir.Graph, wrapper: str) -> None:
    """Names nodes ``module.path/Operator`` (numbered if repeated), values after their node, weights as in the model."""
    outputs = {id(value) for value in graph.outputs}
    taken: Counter[str] = Counter()
    for node in graph:
        scopes = ast.literal_eval(node.metadata_props.get(MODULE_SCOPES, "[]"))[:-1]
        module = "" if not scopes or scopes[-1] in (NO_MODULE, wrapper) else scopes[-1].removeprefix(f"{wrapper}.")
        name = f"{module}/{node.op_type}" if module else node.op_type
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"
        for place, value in enumerate(node.outputs):
            if id(value) not in outputs:
                value.name = node.name if place == 0 else f"{node.name}:{place}"
    for value in list(graph.initializers.values()):
        _rename_initializer(graph, value, _initializer_name(value, wrapper))


def order_shared_matmuls(graph: ir.Graph) -> None:
    """Groups the matmuls that read the same value, in one order of weights, if their weights have several readers.

    LXMERT's cross attention uses one set of weights in both directions. TensorRT merges the matmuls that read the same
    value, and joins their weights in node order. If the order is the same in both directions, it stores them once.
    """
    places: dict[ir.Value, int] = {}
    groups: dict[ir.Value, list[ir.Node]] = {}
    for node in graph:
        value, weight = node.inputs[:2] if node.op_type == "MatMul" else (None, None)
        if value is not None and weight is not None and weight.is_initializer() and len(weight.uses()) > 1:
            places.setdefault(weight, len(places))
            groups.setdefault(value, []).append(node)
    moved = {node for nodes in groups.values() for node in nodes[1:]}
    first = {
        nodes[0]: sorted(nodes, key=lambda node: places[cast(ir.Value, node.inputs[1])]) for nodes in groups.values()
    }
    graph.extend([each for node in graph if node not in moved for each in first.get(node, [node])])


def _initializer_name(value: ir.Value, wrapper: str) -> str:
    tensor = value.const_value
    if tensor is not None and tensor.size <= LARGEST_FOLDED:
        numbers = "x".join(str(number) for number in tensor.numpy().reshape(-1).tolist())
        return f"constant/{tensor.dtype.name.lower()}{list(tensor.shape)}={numbers}".replace(" ", "")
    return (value.name or "").removeprefix(f"{wrapper}.")


def _rename_initializer(graph: ir.Graph, value: ir.Value, name: str) -> None:
    """Renames an initializer, or merges it into the one that has the name: equal constants get equal names."""
    if value.name is None or name == value.name:
        return
    del graph.initializers[value.name]
    if name in graph.initializers:
        value.replace_all_uses_with(graph.initializers[name])
        return
    value.name = name
    graph.initializers[name] = value
