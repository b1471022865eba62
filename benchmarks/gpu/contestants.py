"""What is timed: one call of a model whose inputs are on the device and whose outputs stay there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu.setting import DYNAMIC, FIXED, LEAN
from lxmert_export.engines.library import as_one_error
from lxmert_export.engines.profiles import call_sizes, pick_profile
from lxmert_export.errors import ArtifactError
from lxmert_export.model.signature_module import DTYPES, SignatureModule
from lxmert_export.runners.onnx.cuda.runner import CudaRunner
from lxmert_export.runners.tensorrt.engine import TensorRtRunner
from lxmert_export.spec.inputs import prepare_inputs
from lxmert_export.spec.signature import Precision, Signature

EAGER, COMPILED, COMPILED_GRAPH = "PyTorch, eager", "PyTorch, compiled", "PyTorch, compiled, CUDA graph"
OURS = {DYNAMIC: "ours, dynamic axes", FIXED: "ours, fixed axes", LEAN: "ours, --optimize-for cuda"}
GRAPH, TF32 = ", CUDA graph", ", TF32"
ENGINE, ENGINE_GRAPH = "TensorRT engine", f"TensorRT engine{GRAPH}"


class Call(Protocol):
    """One call of a model on inputs that are on the device; its outputs stay there."""

    def __call__(self) -> object:
        """Starts the call. It may not wait for the end."""

    def outputs(self) -> tuple[Tensor, ...]:
        """Calls it, and returns a copy of its outputs."""


def draw_inputs(signature: Signature, sizes: Mapping[str, int], vocabulary: int, device: str) -> dict[str, Tensor]:
    """Draws the inputs of one call by name: random words and features, nothing masked."""
    generator = torch.Generator().manual_seed(sizes["batch"])
    found = {}
    for spec in signature.inputs:
        shape, dtype = spec.shape(sizes), getattr(torch, spec.dtype)
        if spec.name == "input_ids":
            drawn = torch.randint(1, vocabulary, shape, generator=generator)
        elif spec.name.endswith("attention_mask"):
            drawn = torch.ones(shape)
        elif spec.name == "token_type_ids":
            drawn = torch.zeros(shape)
        else:
            drawn = torch.rand(shape, generator=generator)
        found[spec.name] = drawn.to(device=device, dtype=dtype)
    return found


@contextmanager
def on_own_stream(device: str) -> Iterator[None]:
    """Runs all contestants on a separate stream; on the default stream TensorRT waits for the whole device."""
    own: Any = torch.cuda.Stream  # untyped in PyTorch
    with torch.cuda.stream(own()) if device == "cuda" else nullcontext(), torch.inference_mode():
        yield


def waiting(device: str) -> Callable[[], object]:
    """Returns a function that waits until the device has finished all its work."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


class TorchCall:
    """One call of a module."""

    def __init__(self, module: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor]) -> None:
        self._module, self._inputs = module, inputs

    def __call__(self) -> object:
        """Starts the call."""
        return self._module(*self._inputs)

    def outputs(self) -> tuple[Tensor, ...]:
        """Calls it, and returns a copy of its outputs: the next call of a CUDA graph writes to the same memory."""
        return tuple(tensor.clone() for tensor in self._module(*self._inputs))


def torch_openers(
    module: nn.Module, signature: Signature, precision: Precision, inputs: Mapping[str, Tensor], device: str
) -> dict[str, Callable[[], Call]]:
    """Returns PyTorch's contestants, each opened on demand: as users run it, in the files' precision.

    PyTorch uses its own attention. ``dynamic=False`` tells the compiler all sizes, which is its best case.
    """
    dtype = DTYPES[precision]
    model = SignatureModule(module.to(device=device, dtype=dtype), signature, dtype, cast_outputs=True).eval()
    ordered = [inputs[spec.name] for spec in signature.inputs]
    openers: dict[str, Callable[[], Call]] = {EAGER: lambda: TorchCall(model, ordered)}
    if device == "cuda":
        compiled = torch.compile(model, dynamic=False)
        graph = torch.compile(model, dynamic=False, mode="reduce-overhead")
        openers |= {COMPILED: lambda: TorchCall(compiled, ordered), COMPILED_GRAPH: lambda: TorchCall(graph, ordered)}
    return openers


class CudaCall:
    """One call of our file in onnxruntime, in the buffers of its runner. It waits for the end, as onnxruntime does.

    To be made and called on the GPU thread, as are all contestants that it takes turns with.
    """

    def __init__(self, runner: CudaRunner, inputs: Mapping[str, Tensor]) -> None:
        arrays = {name: tensor.cpu().numpy() for name, tensor in inputs.items()}
        self._runner, self._inputs = runner, prepare_inputs(arrays, runner.signature, runner.limits)
        self._call = runner.prepared_call(self._inputs)

    def __call__(self) -> None:
        """Computes what is in the buffers."""
        self._call.launch()

    def outputs(self) -> tuple[Tensor, ...]:
        """Calls it, and returns a copy of its outputs."""
        found = self._runner.compute(self._inputs)
        return tuple(torch.from_numpy(np.asarray(found[spec.name])) for spec in self._runner.signature.outputs)


class EngineCall:
    """One call of an engine on tensors on the device; it contains only TensorRT's own call."""

    def __init__(self, runner: TensorRtRunner, inputs: Mapping[str, Tensor]) -> None:
        sizes = call_sizes({name: tensor.shape for name, tensor in inputs.items()}, runner.signature)
        with as_one_error(f"{runner.name}: no context for {sizes}", ArtifactError):
            self._context = runner.context(pick_profile(runner.profiles, sizes)).context
        torch.cuda.synchronize()  # Polygraphy set the profile on a stream of its own
        for name, tensor in inputs.items():
            if not self._context.set_input_shape(name, tuple(tensor.shape)):
                raise ArtifactError(
                    f"{runner.name}: the engine does not take input {name} of shape {list(tensor.shape)}"
                )
        self._inputs = dict(inputs)
        device = next(iter(inputs.values())).device
        self.buffers = tuple(
            torch.empty(spec.shape(sizes), dtype=getattr(torch, spec.dtype), device=device)
            for spec in runner.signature.outputs
        )
        named = dict(zip((spec.name for spec in runner.signature.outputs), self.buffers, strict=True))
        for name, tensor in {**self._inputs, **named}.items():
            self._context.set_tensor_address(name, tensor.data_ptr())

    def __call__(self) -> None:
        """Starts one call, and does not wait for it."""
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise ArtifactError("the engine failed while it ran")

    def outputs(self) -> tuple[Tensor, ...]:
        """Calls it, and returns a copy of its outputs."""
        self()
        return tuple(tensor.clone() for tensor in self.buffers)


class GraphCall:
    """An engine's call, recorded once as a CUDA graph and then replayed."""

    def __init__(self, call: EngineCall) -> None:
        call()
        torch.cuda.synchronize()
        self._call, self._graph = call, torch.cuda.CUDAGraph()
        # TensorRT-RTX may still be compiling in its own threads; recording must ignore these.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            call()

    def __call__(self) -> None:
        """Starts one call, and does not wait for it."""
        self._graph.replay()

    def outputs(self) -> tuple[Tensor, ...]:
        """Calls it, and returns a copy of its outputs."""
        self._graph.replay()
        return tuple(tensor.clone() for tensor in self._call.buffers)


def difference(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """Returns the largest difference of an output: RMS of found - wanted ÷ RMS of wanted."""
    pairs = [(output.double().cpu(), other.double().cpu()) for output, other in zip(found, wanted, strict=True)]
    ratios = [float((output - other).square().mean().sqrt() / other.square().mean().sqrt()) for output, other in pairs]
    return max(ratios)
