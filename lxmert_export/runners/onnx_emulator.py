"""Emulates half precision on a CPU: the same ONNX graph in float32, every operator's result rounded to the precision.

onnxruntime's CPU provider computes fp16 graphs in float32 and so returns finite values where a GPU overflows; it has no
bf16 kernels at all. Here every tensor that the artifact holds in fp16 or bf16 is a float32 one that went through a cast
to that precision and back.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from lxmert_export.errors import ArtifactError
from lxmert_export.runners.onnxruntime_session import FAILURES, OnnxRuntimeRunner
from lxmert_export.runners.runner import Arrays, InputLimits, Runner
from lxmert_export.signature import Signature

HALF_TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
# Operators that only move values about: what goes in rounded comes out rounded.
MOVES = frozenset("Concat Expand Flatten Gather Identity Reshape Slice Split Squeeze Transpose Unsqueeze".split())
EMULATED_FILE = "emulated.onnx"
# What reading a damaged file, or weights that are cut short, raises.
UNREADABLE: tuple[type[Exception], ...] = (DecodeError, ValueError, KeyError, TypeError)


class EmulatedOnnxRunner(Runner):
    """An artifact's own graph, run by onnxruntime on the CPU with every half-precision result rounded."""

    failures = FAILURES

    def __init__(self, path: Path, signature: Signature, limits: InputLimits, *, precision: str, name: str) -> None:
        super().__init__(name, signature, limits)
        # A file, not bytes in memory: onnxruntime maps it, and so holds the weights once.
        self._directory = tempfile.TemporaryDirectory(prefix="lxmert-export-emulation-")
        file = Path(self._directory.name) / EMULATED_FILE
        try:
            write_emulated(path, file, precision)
            self._runner = OnnxRuntimeRunner(file, signature, limits, precision="fp32", optimize=False, name=name)
        except UNREADABLE as error:
            self._directory.cleanup()
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ArtifactError(f"{path}: cannot be emulated: {reason}") from error
        except ArtifactError:
            self._directory.cleanup()
            raise

    def compute(self, inputs: Arrays) -> Arrays:
        # The emulated graph takes and gives float32 where the artifact's own has a half-precision input or output.
        wide = {name: a.astype(np.float32) if a.dtype.kind == "f" else a for name, a in inputs.items()}
        outputs = self._runner.compute(wide)
        dtypes = {spec.name: spec.dtype for spec in self.signature.outputs}
        return {name: array.astype(dtypes.get(name, array.dtype)) for name, array in outputs.items()}

    def release(self) -> None:
        self._runner.close()
        self._directory.cleanup()


def write_emulated(source: Path, target: Path, precision: str) -> None:
    """Writes the float32 graph that rounds to ``precision`` wherever the source graph holds it; weights beside it."""
    half = HALF_TYPES[precision]
    model = ir.load(source)
    types = _inferred_types(source)
    for value in model.graph.initializers.values():
        if value.dtype == half and value.const_value is not None:
            _widen_initializer(value)
    for node in list(model.graph):
        _widen_constant(node, half)
        for output in node.outputs:
            if (output.dtype or types.get(output.name or "")) == half:
                output.dtype = ir.DataType.FLOAT
                if node.op_type not in MOVES:
                    _round_after(model.graph, node, output, half)
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.dtype == half:
            value.dtype = ir.DataType.FLOAT
    ir.save(model, target, external_data=f"{target.name}.data", max_workers=1, max_in_flight_bytes=1)


def _inferred_types(path: Path) -> dict[str, ir.DataType]:
    """The type of every intermediate value: files need not state them, so ONNX's own inference does."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))
    return {info.name: ir.DataType(info.type.tensor_type.elem_type) for info in inferred.graph.value_info}


def _widen_initializer(value: ir.Value) -> None:
    stored = value.const_value
    assert stored is not None and value.shape is not None
    value.const_value = ir.LazyTensor(
        lambda: ir.Tensor(stored.numpy().astype(np.float32)),
        dtype=ir.DataType.FLOAT,
        shape=value.shape,
        name=value.name,
    )
    value.dtype = ir.DataType.FLOAT


def _widen_constant(node: ir.Node, half: ir.DataType) -> None:
    """Constants become float32 ones of the same value; casts to the precision become casts to float32, rounded after."""
    if node.op_type == "Cast" and node.attributes["to"].as_int() == half:
        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
    tensor = node.attributes["value"].as_tensor() if node.op_type == "Constant" and "value" in node.attributes else None
    if tensor is not None and tensor.dtype == half:
        node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(tensor.numpy().astype(np.float32)))


def _round_after(graph: ir.Graph, node: ir.Node, output: ir.Value, half: ir.DataType) -> None:
    """Puts a cast to the precision and back behind an output, and lets every reader read the rounded value."""
    down = ir.node("Cast", [output], {"to": int(half)}, name=f"{node.name}/round")
    back = ir.node("Cast", down.outputs, {"to": int(ir.DataType.FLOAT)}, name=f"{node.name}/widen")
    down.outputs[0].dtype, back.outputs[0].dtype = half, ir.DataType.FLOAT
    readers = [use for use in output.uses() if use.node is not down]
    graph.insert_after(node, [down, back])
    for use in readers:
        use.node.replace_input_with(use.idx, back.outputs[0])
    if output in graph.outputs:
        rounded = back.outputs[0]
        rounded.name, output.name = output.name, f"{output.name}/exact"
        graph.outputs[list(graph.outputs).index(output)] = rounded
