"""Rewrites a float32 ONNX graph so that its matmuls with stored weights compute in int8.

    x ─────── QuantizeLinear ─ DequantizeLinear ─┐
                                                 MatMul ─ Add
    weight, int8 ───────────── DequantizeLinear ─┘

Numbers are signed and symmetric (zero point 0), weights have a scale a column: the one form that onnxruntime, OpenVINO and
TensorRT all take. Whether onnxruntime multiplies integers depends on where the pairs stand:

| here | else |
|---|---|
| each matmul has a pair of its own | a quantiser with several readers keeps signed numbers, for which there is no kernel |
| scales of pairs on one value differ in the last place | onnxruntime merges equal pairs again |
| a matmul of [batch, width] reads [batch, 1, width] | onnxruntime makes a Gemm of MatMul and Add, whose weights it dequantises |
| biases are added by Sum where all sizes are fixed | it makes a Gemm of a MatMul with more axes as well, if it knows all sizes |

The kernels take unsigned activations; onnxruntime itself turns signed ones into those. A Gemm would be fused with an integer
bias, which TensorRT refuses. Seen in onnxruntime 1.32; a test holds every matmul of every task to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.to_onnx import save_onnx
from lxmert_export.graphs.onnx_types import load_typed

ACTIVATION_RANGE = 127


@dataclass(frozen=True)
class Product:
    """A matmul with a stored weight: ``weight`` [in, out] in float32, ``read`` the value that it multiplies."""

    node: ir.Node
    read: ir.Value
    stored: ir.Value
    turned: bool  # the file stores it as [out, in]

    @property
    def name(self) -> str:
        """The name of its node, which the new MatMul keeps."""
        return self.node.name or ""

    @property
    def weight_name(self) -> str:
        """The name of the weight as it is multiplied: one weight may be multiplied in both orientations."""
        return f"{self.stored.name}{'/turned' if self.turned else ''}"

    def weight(self) -> NDArray[np.float32]:
        """Reads the weight."""
        tensor = ir.convenience.get_const_tensor(self.stored)
        assert tensor is not None
        array = tensor.numpy().astype(np.float32)
        return array.T if self.turned else array


def products_of(graph: ir.Graph) -> list[Product]:
    """Returns the matmuls with stored weights that can compute in int8, in the order of the graph.

    They are MatMul, and Gemm that adds a bias and does no more, of a weight with two axes.
    """
    return [product for product in _stored_products(graph) if _is_plain(product)]


def stored_matmuls(path: Path) -> list[str]:
    """Returns the names of a file's matmuls with stored weights, whether or not they can compute in int8."""
    return [product.name for product in _stored_products(load_typed(path).graph)]


def _stored_products(graph: ir.Graph) -> Iterator[Product]:
    for node in graph:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        read, weight = node.inputs[:2]
        turned = node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
        turn = None if weight is None else weight.producer()
        if turn is not None and turn.op_type == "Transpose":  # a tied weight, which an embedding stores
            weight, turned = turn.inputs[0], not turned
        if read is not None and weight is not None and weight.is_initializer():
            yield Product(node, read, weight, turned)


def _is_plain(product: Product) -> bool:
    attributes, shape = product.node.attributes, product.stored.shape
    scaled = any(attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta"))
    return shape is not None and len(shape) == 2 and not scaled and not attributes.get_int("transA", 0)


def write_quantized(
    source: Path,
    directory: Path,
    scales: Mapping[str, float],
    *,
    weight_range: int,
    factors: Mapping[str, NDArray[np.float32]] | None = None,
) -> Path:
    """Writes a float32 file in int8, as ``model.onnx`` and its data; returns the first path.

    ``scales``: the step of the activations that each matmul reads, by the name of its node; matmuls that it does not name stay
    in float32. ``weight_range``: the largest magnitude of a stored weight. ``factors``: by the name of a LayerNorm's
    result, what its channels are divided by where matmuls read it, and their weights' rows are multiplied by. ``directory`` must
    not be the source's.
    """
    model = load_typed(source)
    _Quantizer(model.graph, weight_range, factors or {}).quantize(
        {p: scales[p.name] for p in products_of(model.graph) if p.name in scales}
    )
    return save_onnx(model, directory)[0]


def column_scales(weight: NDArray[np.float32], weight_range: int) -> NDArray[np.float32]:
    """Returns the step of each column of a weight [in, out]; 1 for a column of zeros."""
    largest = np.abs(weight).max(axis=0)
    return np.where(largest > 0, largest / weight_range, 1).astype(np.float32)


def in_steps(values: NDArray[np.float32], step: NDArray[np.float32] | float, largest: int) -> NDArray[np.int8]:
    """Returns values in whole steps, rounded half to even as ONNX's QuantizeLinear does, and cut at ``largest``."""
    rounded: NDArray[np.int8] = np.clip(np.rint(values / step), -largest, largest).astype(np.int8)
    return rounded


def times(weight: NDArray[np.float32], factors: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Returns a weight [in, out] with each row multiplied by its factor."""
    return weight if factors is None else weight * factors[:, None]


class _Quantizer:
    """Rewrites one graph."""

    def __init__(self, graph: ir.Graph, weight_range: int, factors: Mapping[str, NDArray[np.float32]]) -> None:
        self._graph, self._range, self._factors = graph, weight_range, factors
        self._divided: dict[ir.Value, ir.Value] = {}  # results of LayerNorm → the same with divided channels
        self._pairs: Counter[ir.Value] = Counter()  # how many pairs a value has
        self._stored: dict[str, tuple[ir.Value, ir.Value, ir.Value]] = {}

    def quantize(self, scales: Mapping[Product, float]) -> None:
        """Quantises the products, each with its activations' step."""
        for product, scale in scales.items():
            self._replace(product, scale)
        for node in list(self._graph):  # a Transpose of a weight that nothing reads any more
            if node.op_type == "Transpose" and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
                self._graph.remove(node, safe=True)
        for name, value in list(self._graph.initializers.items()):
            if not value.uses():
                del self._graph.initializers[name]

    def _replace(self, product: Product, scale: float) -> None:
        node, read = product.node, self._divided_read(product)
        result = node.outputs[0]
        flat = result.shape is not None and len(result.shape) == 2
        added: list[ir.Node] = []
        axis = self._constant("int8/axis", np.array([1], np.int64)) if flat else None
        given = self._add(added, "Unsqueeze", [read, axis], f"{product.name}/rows", ir.DataType.FLOAT) if flat else read
        given = self._quantized_activation(added, product, given, scale)
        weight = self._dequantized_weight(added, product)
        bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        multiplied = self._add(added, "MatMul", [given, weight], product.name, ir.DataType.FLOAT)
        if bias is not None:
            operator = "Sum" if _is_fixed(result) else "Add"
            multiplied = self._add(added, operator, [multiplied, bias], f"{product.name}/bias", ir.DataType.FLOAT)
        if flat:
            multiplied = self._add(added, "Squeeze", [multiplied, axis], f"{product.name}/row", ir.DataType.FLOAT)
        for one in added:
            one.metadata_props.update(node.metadata_props)
        multiplied.type, multiplied.shape, name = result.type, result.shape, result.name
        self._graph.insert_before(node, added)
        ir.convenience.replace_all_uses_with(result, multiplied, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)
        multiplied.name = name
        if _is_fixed(multiplied):
            for use in multiplied.uses():
                if use.node.op_type == "Add" and any(value.is_initializer() for value in use.node.inputs if value):
                    use.node.op_type = "Sum"

    def _quantized_activation(self, added: list[ir.Node], product: Product, value: ir.Value, scale: float) -> ir.Value:
        step = np.float32(scale)
        read = self._divided.get(product.read, product.read)
        for _ in range(self._pairs[read]):
            step = np.nextafter(step, np.float32(np.inf))
        self._pairs[read] += 1
        place = self._constant(f"{product.name}/step", np.array(step, np.float32))
        zero = self._constant("int8/zero", np.array(0, np.int8))
        rounded = self._add(added, "QuantizeLinear", [value, place, zero], f"{product.name}/quantize", ir.DataType.INT8)
        return self._add(
            added, "DequantizeLinear", [rounded, place, zero], f"{product.name}/dequantize", ir.DataType.FLOAT
        )

    def _divided_read(self, product: Product) -> ir.Value:
        """Returns the activations that a product reads: of a LayerNorm with divided channels, if it has factors."""
        read = product.read
        if (factors := self._factors.get(read.name or "")) is None:
            return read
        if read not in self._divided:
            norm = read.producer()
            assert norm is not None and norm.op_type == "LayerNormalization", "factors are for what a LayerNorm gives"
            added: list[ir.Node] = []
            self._divided[read] = divided = self._add_divided(added, norm, factors)
            divided.shape = read.shape
            self._graph.insert_after(norm, added)
        return self._divided[read]

    def _add_divided(self, added: list[ir.Node], norm: ir.Node, factors: NDArray[np.float32]) -> ir.Value:
        """A copy of a LayerNorm whose scale and shift are divided; the residual sum still reads the first one."""
        parameters: list[ir.Value | None] = []
        for number, value in enumerate(norm.inputs[1:]):
            stored = None if value is None else ir.convenience.get_const_tensor(value)
            assert stored is not None, "products with factors read a LayerNorm with stored parameters"
            name = f"{norm.name}/divided/{('scale', 'shift')[number]}"
            parameters.append(self._constant(name, (stored.numpy() / factors).astype(np.float32)))
        result = ir.Value(name=f"{norm.name}/divided", type=ir.TensorType(ir.DataType.FLOAT))
        copy = ir.Node(
            "",
            norm.op_type,
            [norm.inputs[0], *parameters],
            list(norm.attributes.values()),
            name=result.name,
            outputs=[result],
        )
        copy.metadata_props.update(norm.metadata_props)
        added.append(copy)
        return copy.outputs[0]

    def _dequantized_weight(self, added: list[ir.Node], product: Product) -> ir.Value:
        key = product.weight_name
        if key not in self._stored:
            self._stored[key] = self._store(product)
        name = f"{product.name}/weight"
        return self._add(added, "DequantizeLinear", list(self._stored[key]), name, ir.DataType.FLOAT, {"axis": 1})

    def _store(self, product: Product) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Makes the initializers of a weight: [in, out] in int8, the steps and the zero points of its columns."""
        factors = self._factors.get(product.read.name or "")
        weight, name = times(product.weight(), factors), product.weight_name
        steps, shape = column_scales(weight, self._range), ir.Shape(weight.shape)
        stored = ir.Value(name=f"{name}/int8", type=ir.TensorType(ir.DataType.INT8), shape=shape)
        stored.const_value = ir.LazyTensor(
            partial(_stored, product, factors, steps, self._range),
            dtype=ir.DataType.INT8,
            shape=shape,
            name=stored.name,
        )
        self._graph.register_initializer(stored)
        return (
            stored,
            self._constant(f"{name}/steps", steps),
            self._constant(f"{name}/zeros", np.zeros(len(steps), np.int8)),
        )

    def _constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        if name in self._graph.initializers:
            return self._graph.initializers[name]
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def _add(
        self, added: list[ir.Node], operator: str, inputs: list[ir.Value | None], name: str, dtype: ir.DataType,
        attributes: Mapping[str, int] | None = None,
    ) -> ir.Value:  # fmt: skip
        node = ir.node(operator, inputs, dict(attributes or {}), name=name)
        node.outputs[0].name, node.outputs[0].dtype = f"{name}/value", dtype
        added.append(node)
        return node.outputs[0]


def _is_fixed(value: ir.Value) -> bool:
    return value.shape is not None and all(isinstance(size, int) for size in value.shape)


def _stored(
    product: Product, factors: NDArray[np.float32] | None, steps: NDArray[np.float32], largest: int
) -> ir.Tensor[NDArray[np.int8]]:
    weight = times(product.weight(), factors)
    return ir.Tensor(np.ascontiguousarray(in_steps(weight, steps, largest)), name=f"{product.weight_name}/int8")
