"""Puts other weights into an exported ONNX graph: finds their bytes in the file once, then overwrites them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from converters.to_onnx import convert_to_onnx
from lxmert_export.errors import ConversionError
from lxmert_export.model.signature_module import module_state
from lxmert_export.parity.recording import Run
from lxmert_export.runners.onnx.emulator import write_emulated
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.spec.config import LxmertConfig
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import Precision, Signature

STORED_TYPES: dict[int, np.dtype[np.generic]] = {
    onnx.TensorProto.FLOAT: np.dtype(np.float32),
    onnx.TensorProto.FLOAT16: np.dtype(np.float16),
    onnx.TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class Place:
    """The place of a parameter's bytes in a file; ``transposed``, rounded to ``stored``, then held as ``held``."""

    name: str
    offset: int
    transposed: bool
    stored: np.dtype[np.generic]
    held: np.dtype[np.generic]

    def write(self, content: bytearray, parameter: NDArray[np.float32]) -> None:
        """Overwrites the bytes."""
        with np.errstate(over="ignore"):  # an overflow may be the planted fault
            numbers = (parameter.T if self.transposed else parameter).astype(self.stored).astype(self.held)
        data = numbers.tobytes()
        content[self.offset : self.offset + len(data)] = data


class OnnxFile:
    """One architecture's ONNX graph in a precision; half precisions are emulated: each result is rounded."""

    def __init__(self, module: nn.Module, config: LxmertConfig, signature: Signature, precision: Precision) -> None:
        self.optimized = precision == "fp32"
        with tempfile.TemporaryDirectory(prefix="lxmert-export-study-") as place:
            directory = Path(place)
            path, _ = convert_to_onnx(module, signature, InputLimits.of(config), directory, precision=precision)
            stored = {tensor.name: STORED_TYPES.get(tensor.data_type) for tensor in onnx.load(path).graph.initializer}
            if not self.optimized:
                write_emulated(path, directory / "emulated.onnx", precision)
                path = directory / "emulated.onnx"
            model = onnx.load(path)
        self.content = bytearray(model.SerializeToString())
        parameters = _numpy(module)
        self.places = [
            self._place(tensor, parameters[tensor.name], stored[tensor.name])
            for tensor in model.graph.initializer
            if tensor.name in parameters
        ]

    def _place(
        self, tensor: onnx.TensorProto, parameter: NDArray[np.float32], stored: np.dtype[np.generic] | None
    ) -> Place:
        held = STORED_TYPES[tensor.data_type]
        assert stored is not None, "every weight is a floating-point number"
        numbers = numpy_helper.to_array(tensor)
        transposed = numbers.shape != parameter.shape or not np.array_equal(
            numbers, parameter.astype(stored).astype(held)
        )
        offset = self.content.find(tensor.raw_data)
        if offset < 0 or self.content.find(tensor.raw_data, offset + 1) >= 0:
            raise ConversionError(f"{tensor.name}: its bytes are not in exactly one place of the file")
        return Place(tensor.name, offset, transposed, stored, held)

    def with_weights(self, module: nn.Module) -> Run:
        """Runs this graph with a module's weights."""
        parameters = _numpy(module)
        for place in self.places:
            place.write(self.content, parameters[place.name])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        if not self.optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(bytes(self.content), options, providers=[CPU])
        names = [value.name for value in session.get_outputs()]
        taken = [value.name for value in session.get_inputs()]
        return lambda inputs: dict(zip(names, session.run(names, {name: inputs[name] for name in taken}), strict=True))


def _numpy(module: nn.Module) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.detach().numpy() for name, tensor in module_state(module).items()}
