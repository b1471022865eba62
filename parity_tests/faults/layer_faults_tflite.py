"""Layer faults in a written TFLite file: its weights are told by their numbers, its operators by the weights around them.

The converter folds a norm's gain into the kernel that reads it, so that a kernel is known by its columns, each to a factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from lxmert_export.artifact.directory import TFLITE_FILE
from parity_tests.faults.layer_faults import Edit, UnplantableError

OPERATORS = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
HALF = 2.0**-10  # what a weight may have lost to fp16
DTYPES = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}


class TflitePlanter:
    def __init__(self, directory: Path, state: Mapping[str, np.ndarray]) -> None:
        content = bytearray((directory / TFLITE_FILE).read_bytes())
        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        self.graph = self.model.subgraphs[0]
        self.state = state

    def edit(self, parameter: str, change: Edit) -> None:
        place = self._place(parameter)
        array = self._array(place)
        assert array is not None
        edited = np.ascontiguousarray(change(array))
        assert edited.shape == array.shape and edited.dtype == array.dtype and not np.array_equal(edited, array)
        self.model.buffers[self.graph.tensors[place].buffer].data = list(edited.tobytes())

    def swap_query_and_key(self, attention: str) -> None:
        query, key = (self._linear(f"{attention}.{name}") for name in ("query", "key"))
        for place in (1, 2):
            query.inputs[place], key.inputs[place] = key.inputs[place], query.inputs[place]

    def scale_scores(self, attention: str) -> None:
        self._softmax(attention).builtinOptions.beta = 0.6

    def drop_mask(self, attention: str) -> None:
        add = self._giver(self._softmax(attention).inputs[0])
        add.inputs[1] = self._constant(0.0)

    def change_gelu(self, module: str) -> None:
        linear = "dense" if module.endswith("transform") else "expand"
        gelu = self._reader(self._linear(f"{module}.{linear}"), "GELU")
        gelu.builtinOptions.approximate = True

    def change_epsilon(self, norm: str) -> None:
        place = self._place(f"{norm}.weight")
        multiply = next(
            o for o in self.graph.operators if self._name(o) == "MUL" and self._stored(int(o.inputs[1])) == place
        )
        scaled = self._giver(multiply.inputs[0])
        add = self._giver(self._giver(scaled.inputs[1]).inputs[0])
        assert self._name(add) == "ADD"
        add.inputs[1] = self._constant(0.1)

    def save(self, directory: Path) -> None:
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        (directory / TFLITE_FILE).write_bytes(builder.Output())

    def _place(self, parameter: str) -> int:
        """The tensor that holds a parameter: a bias is its kernel's companion, as others are folded into it."""
        module, _, part = parameter.rpartition(".")
        if f"{module}.weight" not in self.state:  # the word decoder's bias, whose kernel is the tied table
            raise UnplantableError(parameter)
        if self.state[f"{module}.weight"].ndim == 2 and part == "bias":
            return self._stored(int(self._linear(module).inputs[2]))
        wanted = self.state[parameter]
        alike = [
            (place, array)
            for place, tensor in enumerate(self.graph.tensors)
            if tensor.type in DTYPES and tensor.shape is not None and list(tensor.shape) == list(wanted.shape)
            if (array := self._array(place)) is not None
        ]
        # The tied word table is there twice: as it is, and folded, as the decoder.
        for place, array in alike:
            if np.allclose(array, wanted, rtol=HALF):
                return place
        for place, array in alike:
            if _same_columns(array, wanted):
                return place
        raise UnplantableError(parameter)

    def _linear(self, module: str) -> Any:
        place = self._place(f"{module}.weight")
        linear = [o for o in self.graph.operators if self._name(o) == "FULLY_CONNECTED"]
        found = next((o for o in linear if self._stored(int(o.inputs[1])) == place), None)
        if found is None:
            raise UnplantableError(module)
        return found

    def _stored(self, place: int) -> int:
        """The tensor that the file holds, of one that is widened before it is read."""
        giver = next((o for o in self.graph.operators if place in list(o.outputs)), None)
        return place if giver is None or self._name(giver) != "DEQUANTIZE" else int(giver.inputs[0])

    def _softmax(self, attention: str) -> Any:
        """Upstream of the attention's output projection."""
        operator = self._linear(f"{attention}.output")
        while self._name(operator) != "SOFTMAX":
            operator = self._giver(operator.inputs[0])
        return operator

    def _giver(self, place: int) -> Any:
        return next(o for o in self.graph.operators if place in list(o.outputs))

    def _reader(self, operator: Any, name: str) -> Any:
        given = operator.outputs[0]
        found = next((o for o in self.graph.operators if given in list(o.inputs) and self._name(o) == name), None)
        if found is None:
            raise UnplantableError(name)
        return found

    def _name(self, operator: Any) -> str:
        return str(OPERATORS[self.model.operatorCodes[operator.opcodeIndex].builtinCode])

    def _array(self, place: int) -> np.ndarray | None:
        tensor = self.graph.tensors[place]
        data = self.model.buffers[tensor.buffer].data
        if data is None or len(data) == 0:
            return None
        array: np.ndarray = np.frombuffer(np.asarray(data, np.uint8).tobytes(), DTYPES[tensor.type]).reshape(
            tensor.shape
        )
        return array

    def _constant(self, number: float) -> int:
        buffer, tensor = schema.BufferT(), schema.TensorT()
        buffer.data = list(np.float32(number).tobytes())
        self.model.buffers.append(buffer)
        tensor.buffer, tensor.shape, tensor.type = len(self.model.buffers) - 1, [], schema.TensorType.FLOAT32
        tensor.name = f"planted/{number}".encode()
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1


def _same_columns(array: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether a matrix is another one but for a factor of each column."""
    if wanted.ndim != 2 or len(wanted) < 4:
        return False
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = array.astype(np.float64) / wanted
    return bool(np.all(np.abs(ratio - np.median(ratio, axis=0)) < 1e-2 * np.abs(np.median(ratio, axis=0))))
