"""Emulates half precision on a CPU: the same ONNX graph in float32, with every operator's result rounded; and TF32, with the
factors of every matrix product rounded.

onnxruntime's CPU provider computes fp16 graphs in float32, so it returns finite values where a GPU overflows. It has no
bf16 kernels. Here every tensor that is fp16 or bf16 in the artifact is a float32 tensor that was cast to that precision
and back. A LayerNormalization or an Attention in half precision is rounded at each of its steps; a fused operator of
onnxruntime's CUDA provider where its kernel rounds (``graphs/onnx_decomposition.py``).
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lxmert_export.artifact.directory import ONNX_FILE, Artifact
from lxmert_export.artifact.session_settings import is_strict
from lxmert_export.errors import ArtifactError, first_line
from lxmert_export.graphs.onnx_decomposition import OPERATOR, load_decomposed
from lxmert_export.graphs.onnx_rounding import HALF_TYPES, rounded, stepwise_layer_norm
from lxmert_export.graphs.onnx_saving import save_streamed
from lxmert_export.graphs.onnx_tf32 import TF32, round_products
from lxmert_export.graphs.onnx_types import MOVES, expose
from lxmert_export.runners.onnx.session import FAILURES, OnnxRuntimeRunner
from lxmert_export.runners.onnx.switches import SwitchedOnnxRunner
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

EMULATED_FILE = "emulated.onnx"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class EmulatedOnnxRunner(Runner):
    """Runs an artifact's own graph with onnxruntime on the CPU, with every half-precision result rounded.

    ``exposed``: names of values to return beside the outputs. ``strict``: whether SkipLayerNormalization sums in float32.
    ``ArtifactError``: the graph cannot be emulated.
    """

    failures = FAILURES

    def __init__(
        self,
        path: Path,
        signature: Signature,
        limits: InputLimits,
        *,
        precision: str,
        threads: int | None = None,
        name: str,
        exposed: Collection[str] = (),
        strict: bool = True,
    ) -> None:
        super().__init__(name, signature, limits)
        # A file, not bytes in memory: onnxruntime maps the file, and so holds the weights once.
        self._directory = tempfile.TemporaryDirectory(prefix="lxmert-export-emulation-")
        file = Path(self._directory.name) / EMULATED_FILE
        with ExitStack() as cleanup:
            cleanup.callback(self._directory.cleanup)
            try:
                write_emulated(path, file, precision, exposed, strict=strict)
                self._runner = OnnxRuntimeRunner(
                    file, signature, limits, precision="fp32", optimize=False, threads=threads, name=name
                )
            except ArtifactError as error:
                reason = first_line(error).replace(str(file), path.name)
                raise ArtifactError(f"{path}: cannot be emulated: {reason}") from error
            cleanup.pop_all()

    def compute(self, inputs: Arrays) -> Arrays:
        # Half-precision inputs and outputs of the artifact are float32 in the emulated graph.
        wide = {name: a.astype(np.float32) if a.dtype.kind == "f" else a for name, a in inputs.items()}
        outputs = self._runner.compute(wide)
        dtypes = {spec.name: spec.dtype for spec in self.signature.outputs}
        return {name: array.astype(dtypes.get(name, array.dtype)) for name, array in outputs.items()}

    def release(self) -> None:
        self._runner.close()
        self._directory.cleanup()


def open_emulator(artifact: Artifact, threads: int | None) -> Runner:
    """Opens the emulating runner of an ONNX artifact: of its own precision, or of that to which its runtime rounds."""
    manifest, computed = artifact.manifest, artifact.computed_precision
    if computed != manifest.precision and computed in HALF_TYPES:
        return SwitchedOnnxRunner(
            artifact.file(ONNX_FILE), manifest.signature, manifest.limits, precision=computed, threads=threads,
            name=artifact.name,
        )  # fmt: skip
    return EmulatedOnnxRunner(
        artifact.file(ONNX_FILE),
        manifest.signature,
        manifest.limits,
        precision=computed,
        threads=threads,
        name=artifact.name,
        strict=is_strict(manifest.options),
    )


def write_emulated(
    source: Path, target: Path, precision: str, exposed: Collection[str] = (), *, strict: bool = True
) -> None:
    """Writes the emulated graph and its weights: float32, but rounded to ``precision`` where the source graph has it; to ``tf32``
    where it multiplies matrices.

    ``exposed`` names values that become outputs too, rounded as their readers get them. ``strict``: as of ``load_decomposed``.
    ``ArtifactError``: the file is damaged, or has an attention that our exporter did not write.
    """
    model = load_decomposed(source, strict=strict)
    expose(model.graph, exposed)
    if precision == TF32:
        round_products(model.graph)
    else:
        _round_results(model.graph, HALF_TYPES[precision], source)
    try:  # only now are weights read
        save_streamed(model, target, f"{target.name}.data")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise ArtifactError(
                f"{source}: its float32 copy does not fit in {target.parent.parent}: set TMPDIR to a directory with more room"
            ) from error
        raise ArtifactError(f"{source}: its weights cannot be read: {first_line(error)}") from error


def _round_results(graph: ir.Graph, half: ir.DataType, source: Path) -> None:
    """Makes a ``half`` graph float32, with every result rounded."""
    for node, output in widen(graph, half):
        if node.op_type == OPERATOR:
            raise ArtifactError(f"{source}: {node.name} is an Attention of another form than lxmert-export writes")
        if node.op_type == "LayerNormalization":
            _round_each_step(graph, node, half)
        elif node.op_type not in MOVES:
            _round_after(graph, node, output, half)


def widen(graph: ir.Graph, half: ir.DataType) -> list[tuple[ir.Node, ir.Value]]:
    """Makes every ``half`` value of a graph float32; returns the nodes that computed in ``half`` and their outputs."""
    for value in graph.initializers.values():
        if value.dtype == half and value.const_value is not None:
            _widen_initializer(value)
    computed = []
    for node in graph:
        _widen_constant(node, half)
        for output in node.outputs:
            if output.dtype == half:
                output.dtype = ir.DataType.FLOAT
                computed.append((node, output))
    for value in (*graph.inputs, *graph.outputs):
        if value.dtype == half:
            value.dtype = ir.DataType.FLOAT
    return computed


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
    """Makes a ``half`` constant float32, and a cast to ``half`` a cast to float32, whose result is rounded later."""
    if node.op_type == "Cast" and node.attributes["to"].as_int() == half:
        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
    tensor = node.attributes["value"].as_tensor() if node.op_type == "Constant" and "value" in node.attributes else None
    if tensor is not None and tensor.dtype == half:
        node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(tensor.numpy().astype(np.float32)))


def _round_after(graph: ir.Graph, node: ir.Node, output: ir.Value, half: ir.DataType) -> None:
    """Inserts a cast to ``half`` and back after an output; all its readers read the rounded value."""
    readers = [(use.node, use.idx) for use in output.uses()]
    _read_instead(graph, output, rounded(graph, output, half, after=node), readers)


def _round_each_step(graph: ir.Graph, norm: ir.Node, half: ir.DataType) -> None:
    """Replaces a LayerNorm that computes in ``half`` by steps that are rounded one by one."""
    output = norm.outputs[0]
    result = stepwise_layer_norm(graph, norm, half)
    _read_instead(graph, output, result, [(use.node, use.idx) for use in output.uses()])
    graph.remove(norm, safe=True)


def _read_instead(graph: ir.Graph, output: ir.Value, instead: ir.Value, readers: list[tuple[ir.Node, int]]) -> None:
    for node, place in readers:
        node.replace_input_with(place, instead)
    if output in graph.outputs:
        instead.name, output.name = output.name, f"{output.name}/exact"
        graph.outputs[list(graph.outputs).index(output)] = instead
