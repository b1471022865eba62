"""Converts a PyTorch module to one ONNX file and one data file.

Three steps: trace a copy without weights, simplify the graph, write the weights one at a time.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnxscript import opset18
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from converters.onnx.choices_by_size import ChoicesBySize
from converters.onnx.cuda.lengths import give_lengths
from converters.onnx.graph import make_lean
from converters.onnx.packed import PACKED, TRANSPOSED, Packed
from converters.onnx.quick_tracing import ONE_AT_A_TIME, known_shapes, short_translation
from converters.onnx.quiet_logs import quiet_logs
from converters.onnx.repeated_layers import TRANSLATIONS, copy_layers, first_layers_alone
from converters.onnx.sizes import FIRST_ROWS
from lxmert_export.artifact.directory import ONNX_DATA_FILE, ONNX_FILE
from lxmert_export.checkpoint.mapped_memory import page_out
from lxmert_export.errors import ConversionError, first_line
from lxmert_export.graphs.onnx_saving import save_streamed
from lxmert_export.model.lxmert import as_dtype
from lxmert_export.model.signature_module import DTYPES, SignatureModule, module_state
from lxmert_export.model.twins import recast
from lxmert_export.model.users_code import place_of, why_it_failed
from lxmert_export.option_names import option
from lxmert_export.spec.inputs import InputLimits
from lxmert_export.spec.signature import DYNAMIC_AXES, IMAGES_PER_SENTENCE, Attention, Signature

# The lowest IR version of files with each operator set. Older runtimes refuse a file for its IR version alone. Files of
# opset 23 and later keep 10, the latest that holds something which graphs here use.
IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 10, 24: 10, 25: 10}
OPSETS = range(min(IR_VERSIONS), max(IR_VERSIONS) + 1)
DEFAULT_OPSET = 18
DEFAULT_OPSETS = {"decomposed": DEFAULT_OPSET, "operator": 23}
# The sizes to trace the dynamic axes with. They differ from one another, and from 0 and 1, which the exporter takes for
# constants.
TRACED_SIZES = {"batch": 2, "text": 5, "objects": 7}
RANDOM_OPERATORS = frozenset((
    "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
))  # fmt: skip
LARGEST_FILE = 2**31 - 1  # bytes of a protobuf message, which an ONNX file is
WRAPPER = "model"  # the attribute of SignatureModule that holds the user's module
PRODUCER = "lxmert-export"


def convert_to_onnx(
    module: nn.Module,
    signature: Signature,
    limits: InputLimits,
    directory: Path,
    *,
    precision: str,
    opset: int = DEFAULT_OPSET,
    attention: Attention = "decomposed",
    for_cuda: bool = False,
    filled: Signature | None = None,
) -> tuple[Path, Path]:
    """Writes ``model.onnx`` and ``model.onnx.data`` into a directory; returns both paths.

    ``opset`` is 18 to 25. ``attention`` is ``decomposed`` (nodes) or ``operator`` (ONNX's ``Attention``, from opset 23
    on). ``for_cuda``: few operators, for onnxruntime's CUDA provider; ``filled``: the same signature with lengths that its
    kernels take. The module itself is not changed. Peak memory beside the module: the graph and one weight.
    ``ConversionError``: the module cannot be traced, the opset is out of range, or a weight overflows ``precision``.
    """
    graph = lean_graph(
        module,
        signature,
        limits,
        precision=precision,
        opset=opset,
        attention=attention,
        for_cuda=for_cuda,
        filled=filled,
    )
    return write_onnx(graph, module_state(module), directory)


@quiet_logs()
def lean_graph(
    module: nn.Module,
    signature: Signature,
    limits: InputLimits,
    *,
    precision: str,
    opset: int = DEFAULT_OPSET,
    attention: Attention = "decomposed",
    for_cuda: bool = False,
    filled: Signature | None = None,
) -> ir.Model:
    """Returns the simplified graph of a module, with our names; its weights are still placeholders."""
    if opset not in OPSETS:
        raise ConversionError(f"opset {opset} is not supported; choose {OPSETS.start} to {OPSETS.stop - 1}")
    if opset > (known := onnx.defs.onnx_opset_version()):
        raise ConversionError(
            f"opset {opset} needs a newer onnx: {onnx.__version__}, which is installed, knows opsets up to {known}"
        )
    model = trace(module, filled or signature, limits, precision, opset)
    if filled is not None:
        give_lengths(model.graph, signature, filled)
    _refuse_random_operators(model.graph, type(module).__name__)
    make_lean(
        model,
        axis_names=_axis_names(model, signature),
        weights=module_state(module),
        wrapper=WRAPPER,
        attention=attention,
        for_cuda=for_cuda,
    )
    for value, spec in zip((*model.graph.inputs, *model.graph.outputs), signature, strict=True):
        value.name = spec.name
    model.ir_version = IR_VERSIONS[opset]
    model.producer_name, model.producer_version = PRODUCER, None
    model.graph.name = signature.task
    return model


def write_onnx(model: ir.Model, state: Mapping[str, Tensor], directory: Path) -> tuple[Path, Path]:
    """Writes the files of a lean graph with the weights of ``state``; one graph can be written with several states."""
    _attach_weights(model.graph, state)
    return save_onnx(model, directory)


def save_onnx(model: ir.Model, directory: Path) -> tuple[Path, Path]:
    """Writes a graph and its data, one weight at a time.

    ``ConversionError``: a weight does not fit its dtype there, or an operator does not take it (``TopK`` has no bf16).
    """
    path = directory / ONNX_FILE
    try:
        save_streamed(model, path, ONNX_DATA_FILE)
    except ir.serde.SerdeError as error:
        # Small weights are stored in the graph itself. onnx_ir wraps the errors that they raise: unwrap ours.
        reason: BaseException | None = error
        while reason is not None and not isinstance(reason, ConversionError):
            reason = reason.__cause__
        raise reason or error from error
    check_written(path)
    return path, directory / ONNX_DATA_FILE


def check_written(path: Path) -> None:
    """``ConversionError``: a written file is not valid ONNX."""
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConversionError(f"the graph is not valid ONNX: {first_line(error)}") from error


def join_files(directory: Path) -> None:
    """Puts the weights of a written graph into ``model.onnx``, and removes ``model.onnx.data``.

    ``ConversionError``: they are more than a file of ONNX, a protobuf message, can hold.
    """
    path, data = directory / ONNX_FILE, directory / ONNX_DATA_FILE
    if not data.exists():  # all weights are so small that they are in the graph already
        return
    size = path.stat().st_size + data.stat().st_size
    if size > LARGEST_FILE:
        raise ConversionError(
            f"{option('single_file')}: graph and weights take {size:,} bytes, and one ONNX file holds {LARGEST_FILE:,} at most; "
            "leave it out, or choose a smaller precision"
        )
    onnx.save(onnx.load(path), path)
    data.unlink()


def trace(module: nn.Module, signature: Signature, limits: InputLimits, precision: str, opset: int) -> ir.Model:
    """Traces a weightless copy of a module; returns the graph as torch's ONNX exporter makes it."""
    dtype = DTYPES[precision]
    # eval() on the outermost module: a wrapper in train mode would set the model inside to train mode again.
    twin = SignatureModule(recast(module, dtype, device="meta"), signature, dtype, cast_outputs=True).eval()
    _remove_dropout(twin)
    inputs, axes = _traced_inputs(signature), _dynamic_axes(signature, limits)
    name, choices = type(module).__name__, ChoicesBySize()
    try:
        with ONE_AT_A_TIME, _quiet_exporter(), torch.no_grad():
            with known_shapes(), choices.noted(), first_layers_alone(twin):
                program = torch.export.export(twin, inputs, dynamic_shapes={"inputs": axes}, strict=False)
            choices.refuse(name)
            _refuse_state(program, name)
            with short_translation(program, TRANSLATIONS):
                exported = torch.onnx.export(
                    program,
                    dynamo=True,
                    opset_version=opset,
                    optimize=False,
                    verbose=False,
                    custom_translation_table={torch.ops.aten.to.dtype: _cast, **TRANSLATIONS},
                )
    except GuardOnDataDependentSymNode as error:
        raise ConversionError(
            f"{name} chooses by a value that it computes{place_of(error)}, and a graph has no such choice: "
            "use torch.where, or compute both and multiply by a mask"
        ) from error
    except (RuntimeError, TypeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        choices.refuse(name, error)
        raise ConversionError(f"{name} cannot be traced to ONNX: {why_it_failed(error)}") from error
    assert exported is not None
    model: ir.Model = exported.model
    copy_layers(model, module_state(twin))
    return model


def _refuse_state(program: torch.export.ExportedProgram, name: str) -> None:
    """``ConversionError``: a forward pass writes to a buffer, so that the next one computes something else."""
    buffers = program.graph_signature.inputs_to_buffers
    if changed := sorted({buffers[node.name] for node in _written_to(program.graph) if node.name in buffers}):
        written = ", ".join(buffer.removeprefix(f"{WRAPPER}.") for buffer in changed)
        raise ConversionError(
            f"{name} changes its buffer {written} in forward: state that changes between runs, which a file cannot keep; "
            "change it only if self.training"
        )


def _written_to(graph: torch.fx.Graph) -> Iterator[torch.fx.Node]:
    """The nodes whose tensors some operator writes to, itself or by way of a view."""
    for node in graph.nodes:
        arguments = getattr(getattr(node.target, "_schema", None), "arguments", ())
        for argument, value in zip(arguments, node.args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                yield from _seen_through_views(value)


def _seen_through_views(node: Any) -> Iterator[torch.fx.Node]:
    while isinstance(node, torch.fx.Node):
        yield node
        schema = getattr(node.target, "_schema", None)
        node = node.args[0] if schema and schema.returns and schema.returns[0].alias_info is not None else None


def _refuse_random_operators(graph: ir.Graph, name: str) -> None:
    """``ConversionError``: the graph draws random numbers; dropout in eval mode is not in it."""
    if random := sorted({node.op_type for node in graph.all_nodes() if node.op_type in RANDOM_OPERATORS}):
        raise ConversionError(
            f"{name} is random in eval mode: its graph holds {', '.join(random)}; pass training=self.training to functional "
            "dropout, and draw no random numbers in forward"
        )


def _remove_dropout(module: nn.Module) -> None:
    """Replaces dropout, which does nothing in eval mode, by ``Identity``: tracing dropout takes a tenth of the time.

    A subclass may be random in eval mode, and so may one that stays in train mode: it is traced, and refused if it is.
    """
    for part in list(module.modules()):
        for name, child in part.named_children():
            if type(child) is nn.Dropout and not child.training:
                setattr(part, name, nn.Identity())


def _cast(self: Any, dtype: int, non_blocking: bool = False, copy: bool = False, memory_format: str = "") -> Any:
    """Translates ``aten.to.dtype``, the only operator here that the exporter cannot translate without decomposition."""
    return opset18.Cast(self, to=dtype)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silences the exporter and pauses garbage collection, which saves 30 % of the time.

    PyTorch also prints to stderr the graph that it traced before an error: hundreds of lines before our one.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with quiet_logs(), warnings.catch_warnings(), redirect_stderr(StringIO()):
            # torch itself uses this deprecated class when it copies a graph
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        if collecting:
            gc.enable()


def _traced_inputs(signature: Signature) -> tuple[Tensor, ...]:
    return tuple(
        torch.zeros(spec.shape(TRACED_SIZES), dtype=getattr(torch, spec.dtype), device="meta")
        for spec in signature.inputs
    )


def _dynamic_axes(signature: Signature, limits: InputLimits) -> tuple[dict[int, torch.export.Dim], ...]:
    largest = {"batch": 2**20, "text": limits.positions, "objects": 2**20}
    dims = {axis: torch.export.Dim(axis, min=1, max=largest[axis]) for axis in DYNAMIC_AXES}
    return tuple(
        {place: dims[axis] for place, axis in enumerate(spec.axes) if isinstance(axis, str)}
        for spec in signature.inputs
    )


def _axis_names(model: ir.Model, signature: Signature) -> dict[str, str]:
    """Maps the exporter's symbols (``s41``) to our axis names, as read from the inputs."""
    names: dict[str, str] = {}
    for value, spec in zip(model.graph.inputs, signature.inputs, strict=True):
        assert value.shape is not None
        for axis, size in zip(spec.axes, value.shape, strict=True):
            if isinstance(axis, str):
                names[str(size.value if isinstance(size, ir.SymbolicDim) else size)] = axis
    batch = next((symbol for symbol, axis in names.items() if axis == "batch"), None)
    return {**names, f"{IMAGES_PER_SENTENCE}*{batch}": "images"} if batch else names


def _attach_weights(graph: ir.Graph, state: Mapping[str, Tensor]) -> None:
    """Points each initializer at its parameter, which is cast, transposed or cut only when it is written."""
    first_name: dict[int, str] = {}
    for name, tensor in state.items():
        first_name.setdefault(id(tensor), name)
    for name, value in list(graph.initializers.items()):
        packed: Packed | None = value.meta.get(PACKED)
        if packed is None and name not in state:
            continue
        parts = [state[part] for part in packed.parts] if packed else [state[name]]
        del graph.initializers[name]
        value.name = name if packed else first_name[id(parts[0])]  # a shared weight has the name of its first owner
        assert value.dtype is not None and value.shape is not None
        value.const_value = ir.LazyTensor(
            partial(_stored, parts, value),
            dtype=value.dtype,
            shape=value.shape,
            name=value.name,
        )
        graph.initializers[value.name] = value


def _stored(parts: Sequence[Tensor], value: ir.Value) -> ir.Tensor[np.ndarray[Any, Any]]:
    """Returns the parameter as the file stores it, one or several. ``ConversionError``: it does not fit its dtype there."""
    assert value.dtype is not None
    packed: Packed | None = value.meta.get(PACKED)
    data = packed.stack(parts) if packed else parts[0].detach()
    if FIRST_ROWS in value.meta:
        data = data[: value.meta[FIRST_ROWS]]
    if TRANSPOSED in value.meta:
        data = data.t()
    cast = as_dtype(data, TORCH_TYPES.get(value.dtype, data.dtype)).contiguous()
    if cast.dtype != data.dtype and cast.numel():
        low, high = torch.aminmax(cast)
        if not (torch.isfinite(low) and torch.isfinite(high)):
            largest = data.abs().max().item()
            raise ConversionError(
                f"{value.name} does not fit {value.dtype.name.lower()}: its largest magnitude is {largest:.4g}; "
                f"{option('fp32_islands', 'auto')} or {option('fp32_islands', 'standard+')} can keep it in float32"
            )
    array = cast.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if cast.dtype == torch.bfloat16 else cast.numpy()
    for part in parts:
        if cast.data_ptr() != part.data_ptr():
            page_out(part.detach())  # copied; the original will not be read again soon
    return ir.Tensor(np.asarray(array), name=value.name)


TORCH_TYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.DOUBLE: torch.float64,
}
