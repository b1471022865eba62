"""Runs an ONNX file on a GPU. Inputs and outputs have buffers there; a call of fixed sizes is replayed as a CUDA graph."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from lxmert_export.errors import ArtifactError
from lxmert_export.runners.onnx.cuda.gpu_thread import on_gpu_thread
from lxmert_export.runners.onnx.cuda.libraries import OUT_OF_MEMORY, why_it_failed
from lxmert_export.runners.onnx.cuda.session import CudaSettings, open_cuda_session
from lxmert_export.runners.onnx.session import FAILURES
from lxmert_export.runners.runner import Runner
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import IMAGES, IMAGES_PER_SENTENCE, Signature, TensorSpec

LOGGER = logging.getLogger(__name__)

DEVICE, NUMBER = "cuda", 0  # the first GPU that CUDA_VISIBLE_DEVICES lists
GRAPH_NUMBER = "gpu_graph_id"  # the entry of a call's options that says which captured graph it is
MOST_SHAPES = 8  # shapes of calls whose buffers are kept; those of the shape that was used longest ago make room
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class CudaRunner(Runner):
    """Runs an ONNX file under a signature, on the first GPU.

    All work is done on one thread of the process (``gpu_thread``), so threads may share a runner. The first call of a shape
    loads kernels, and captures the CUDA graph if there is one; ``first_calls`` holds the seconds that each took, by its sizes.
    ``ArtifactError``: as of ``open_cuda_session``, or the GPU's memory is too small.
    """

    failures = FAILURES

    def __init__(
        self, path: Path, signature: Signature, limits: InputLimits, *, settings: CudaSettings, name: str = "cuda"
    ) -> None:
        super().__init__(name, signature, limits)
        self.settings = settings
        self.first_calls: dict[str, float] = {}
        self._session = open_cuda_session(path, settings)
        self._taken = {value.name for value in self._session.get_inputs()}
        self._calls: OrderedDict[Shapes, CallOfOneShape] = OrderedDict()
        self._captured = 0

    def compute(self, inputs: Arrays) -> Arrays:
        given = {name: np.ascontiguousarray(array) for name, array in inputs.items() if name in self._taken}
        shapes = {name: array.shape for name, array in inputs.items()}
        try:
            return on_gpu_thread(self._run, given, shapes)
        except FAILURES as error:
            raise self._failed(str(error), in_words(shapes)) from error

    def prepared_call(self, inputs: Arrays) -> CallOfOneShape:
        """Returns the call of the shapes of these inputs, which are on the GPU from now on; to be run on the GPU thread."""
        self.compute(inputs)
        return next(reversed(self._calls.values()))

    def _run(self, inputs: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
        key = tuple(shapes.items())
        if (call := self._calls.get(key)) is not None:
            self._calls.move_to_end(key)
            return call.run(inputs)
        began = time.perf_counter()
        call = self._bind(inputs, shapes)
        outputs = call.run(inputs)
        self._calls[key] = call  # only now: after a failure its buffers may hold anything
        self._tell(in_words(shapes), time.perf_counter() - began)
        while len(self._calls) > MOST_SHAPES:
            self._calls.popitem(last=False)
        return outputs

    def _bind(self, inputs: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> CallOfOneShape:
        sizes = sizes_of(self.signature, shapes)
        outputs = {spec.name: (shape_of(spec, sizes), np.dtype(spec.dtype)) for spec in self.signature.outputs}
        graph = self._captured if self.settings.graph else None
        self._captured += self.settings.graph
        return CallOfOneShape(self._session, inputs, outputs, graph)

    def _tell(self, sizes: str, seconds: float) -> None:
        self.first_calls[sizes] = seconds
        more = "kernels were loaded, and a CUDA graph captured" if self.settings.graph else "kernels were loaded"
        LOGGER.info("%s: the first call of %s took %.2f s: %s", self.name, sizes, seconds, more)

    def _failed(self, said: str, sizes: str) -> ArtifactError:
        if (full := OUT_OF_MEMORY.search(said)) is not None:
            asked = f" ({int(full[1]) / 2**20:,.0f} MiB more were asked for)" if full[1] else ""
            return ArtifactError(
                f"{self.name}: the GPU's memory is too small for {sizes}{asked}: give fewer rows a call; nvidia-smi lists what "
                "else holds it"
            )
        return ArtifactError(f"{self.name}: failed on the GPU at {sizes}: {why_it_failed(said)}")

    def release(self) -> None:
        on_gpu_thread(self._release)

    def _release(self) -> None:
        self._calls.clear()
        del self._session


class CallOfOneShape:
    """The buffers on the GPU of all calls of one shape. Each call copies its inputs into them and its outputs out of them.

    ``outputs``: {name: (shape, dtype)}. ``graph``: the number of the CUDA graph that the first call captures; None: none. A
    captured graph reads and writes these very buffers, so they are never replaced.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: Arrays,
        outputs: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
        graph: int | None,
    ) -> None:
        self._session, self._options = session, onnxruntime.RunOptions()
        if graph is not None:
            self._options.add_run_config_entry(GRAPH_NUMBER, str(graph))
        self._inputs = {name: _buffer(array.shape, array.dtype) for name, array in inputs.items()}
        self._outputs = {name: _buffer(shape, dtype) for name, (shape, dtype) in outputs.items()}
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, inputs: Arrays) -> Arrays:
        """Returns the outputs of one call."""
        for name, value in self._inputs.items():
            value.update_inplace(inputs[name])
        self.launch()
        return {name: value.numpy() for name, value in self._outputs.items()}

    def launch(self) -> None:
        """Computes what is in the buffers, and waits for the end; nothing is copied."""
        self._session.run_with_iobinding(self._binding, self._options)


def sizes_of(signature: Signature, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Returns the sizes of the dynamic axes of a call, by name."""
    return {
        axis: size
        for spec in signature.inputs
        for axis, size in zip(spec.axes, shapes[spec.name], strict=True)
        if isinstance(axis, str)
    }


def shape_of(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Returns the shape of a value; of images there are two for each sentence, unless their number is known."""
    known = {IMAGES: IMAGES_PER_SENTENCE * sizes.get("batch", 1), **sizes}
    return tuple(axis if isinstance(axis, int) else known[axis] for axis in spec.axes)


def in_words(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Returns the sizes of a call from the shapes of its inputs, as an error names them: ``batch 8, text 20, objects 36``."""
    words, pictures = shapes.get("input_ids"), shapes.get("visual_feats")
    found = {"batch": next(iter(shapes.values()))[0]}
    found |= {"text": words[1]} if words else {}
    found |= {"objects": pictures[-2]} if pictures else {}
    return ", ".join(f"{name} {size}" for name, size in found.items())


def _buffer(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, DEVICE, NUMBER)
