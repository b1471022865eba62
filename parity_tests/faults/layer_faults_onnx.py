"""Layer faults in a written ONNX file: its initializers and nodes, by the names that our files give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from lxmert_export.artifact.directory import ONNX_DATA_FILE, ONNX_FILE
from parity_tests.faults.layer_faults import Edit, UnplantableError


class OnnxPlanter:
    def __init__(self, directory: Path) -> None:
        self.model = ir.load(directory / ONNX_FILE)
        self.graph = self.model.graph

    def edit(self, parameter: str, change: Edit) -> None:
        value = self._initializer(parameter)
        array = _numbers(value)
        turned = array.ndim == 2 and not parameter.rpartition(".")[0].endswith(("word", "position", "token_type"))
        edited = change(array.T if turned else array)
        edited = np.ascontiguousarray(edited.T if turned else edited)
        assert edited.shape == array.shape and edited.dtype == array.dtype and not np.array_equal(edited, array)
        value.const_value = ir.Tensor(edited, name=parameter)

    def swap_query_and_key(self, attention: str) -> None:
        for part in ("weight", "bias"):
            query, key = (self._initializer(f"{attention}.{name}.{part}") for name in ("query", "key"))
            query.const_value, key.const_value = key.const_value, query.const_value

    def scale_scores(self, attention: str) -> None:
        multiply = self._node(attention, "Mul")
        multiply.replace_input_with(1, self._scalar(0.5, multiply.outputs[0]))

    def drop_mask(self, attention: str) -> None:
        scores = self._node(attention, "Softmax").inputs[0]
        add = scores.producer() if scores is not None else None
        assert add is not None
        add.replace_input_with(1, self._scalar(0.0, add.outputs[0]))

    def change_gelu(self, module: str) -> None:
        self._node(module, "Erf").op_type = "Tanh"

    def change_epsilon(self, norm: str) -> None:
        self._node(norm, "LayerNormalization").attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.1)

    def save(self, directory: Path) -> None:
        ir.save(self.model, directory / ONNX_FILE, external_data=ONNX_DATA_FILE)

    def _initializer(self, parameter: str) -> ir.Value:
        if parameter not in self.graph.initializers:
            raise UnplantableError(parameter)
        return self.graph.initializers[parameter]

    def _node(self, module: str, operator: str) -> ir.Node:
        found = next(
            (n for n in self.graph if n.op_type == operator and (n.name or "").rpartition("/")[0] == module), None
        )
        if found is None:
            raise UnplantableError(f"{module}/{operator}")
        return found

    def _scalar(self, number: float, like: ir.Value) -> ir.Value:
        """A new initializer, of the dtype of a value."""
        assert like.dtype is not None
        tensor = ir.Tensor(np.array(number, dtype=like.dtype.numpy()))
        value = ir.Value(
            name=f"planted/{number}", const_value=tensor, type=ir.TensorType(like.dtype), shape=ir.Shape([])
        )
        self.graph.register_initializer(value)
        return value


def _numbers(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()
