"""The table of targets: precisions, options, and the places of their code. A new target is a new row.

Code is named as ``module:function`` and imported when it is first called, so that only one target's framework is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, NamedTuple

from lxmert_export.errors import unimportable
from lxmert_export.extras import (
    LITERT,
    ONNX,
    ONNX_IR,
    ONNXRUNTIME,
    ONNXRUNTIME_GPU,
    ONNXSCRIPT,
    OPENVINO,
    TENSORFLOW,
    TORCH,
    Library,
    missing,
)
from lxmert_export.spec.signature import ComputedPrecision, Precision

OWN = ("lxmert_export", "converters")  # packages whose import errors are faults of ours


@dataclass(frozen=True)
class Part:
    """A function of a target, and the libraries that it needs."""

    place: str  # module:function
    needs: tuple[Library, ...]

    def load(self) -> Callable[..., Any]:
        """Imports and returns the function. ``ArtifactError``: a library is installed, and cannot be imported."""
        module, _, name = self.place.partition(":")
        try:
            function: Callable[..., Any] = getattr(import_module(module), name)
        except ImportError as error:
            if not self.needs or (error.name or "").startswith(OWN):
                raise
            raise unimportable(error.name or " or ".join(library.module for library in self.needs), error) from error
        return function

    @property
    def is_installed(self) -> bool:
        """Whether the libraries that it needs are installed. Nothing is imported."""
        return not missing(self.needs)


class Lack(NamedTuple):
    """What a machine lacks, and how to mend it; both in words."""

    reason: str
    mend: str


@dataclass(frozen=True)
class Runtime:
    """A runtime that runs the files of a target.

    | field | meaning |
    |---|---|
    | ``opens`` | (artifact, providers, threads) → a ``Runner`` |
    | ``finds`` | (artifact); raises ``BuiltNotRun`` or ``MissingExtra`` if it cannot run here, for example without a GPU |
    | ``lacks`` | () → the ``Lack`` of this machine for any of its artifacts; None: nothing |
    | ``describes`` | () → facts of the GPU that it runs on, by name; empty: it runs on none |
    | ``providers``, ``threads`` | whether execution providers, and the number of threads, can be chosen |
    | ``cuda_graphs`` | whether ``opens`` takes ``cuda_graph``: whether a call is captured and replayed |
    | ``settings`` | what it is told that changes its arithmetic, in words for reports |
    | ``takes_cuda_files`` | whether it takes files of ``--optimize-for cuda``, which hold onnxruntime's own operators |
    | ``widens_int8`` | whether it multiplies the int8 values of a static int8 file in float32 |
    | ``cpu_widens`` | precisions that a CPU computes in float32; such artifacts are judged by the target's emulator |
    | ``cpu_lacks`` | precisions that a CPU cannot compute; such artifacts are judged by the target's emulator |
    | ``stands_in`` | () → the ``Lack`` of a device, without which artifacts are judged by the emulator alone; None: it is here |
    | ``device`` | the device that it runs on; None: the runtime chooses |
    | ``rounds`` | precision of the file → the precision in which this runtime computes it; others are computed as they are |
    """

    name: str
    opens: Part
    finds: Part | None = None
    lacks: Part | None = None
    describes: Part | None = None
    providers: bool = False
    threads: bool = False
    cuda_graphs: bool = False
    settings: tuple[str, ...] = ()
    takes_cuda_files: bool = False
    widens_int8: bool = False
    cpu_widens: tuple[Precision, ...] = ()
    cpu_lacks: tuple[Precision, ...] = ()
    stands_in: Part | None = None
    rounds: Mapping[Precision, ComputedPrecision] = field(default_factory=dict)
    device: str | None = "CPU"


@dataclass(frozen=True)
class Target:
    """One target.

    | field | meaning |
    |---|---|
    | ``converter`` | (conversion, directory, progress): writes files, returns the manifest's options; None: other command |
    | ``facts`` | (artifact) → the ``GraphFacts`` of its file; None: the file cannot be read |
    | ``flops`` | (artifact, sizes, half of a split one) → the operations of its file; None: they cannot be counted |
    | ``intermediates`` | (artifact, points) → a runner whose outputs are intermediate tensors |
    | ``program`` | (artifact) → names of its operators; ``ArtifactError`` if its file could do more than exports do |
    | ``emulator`` | (artifact, threads) → a runner that rounds every result to half precision |
    | ``options`` | the options of ``lx.export`` that this target has and some others do not |
    | ``runtime``, ``other_runtimes`` | its own runtime, and those that are chosen by name: ``ARTIFACT@openvino`` |
    | ``files`` | the files of which its runtime opens one |
    | ``directories`` | directories that the runtime reads whole: every file in them must be listed in the manifest |
    """

    name: str
    title: str
    precisions: tuple[Precision, ...]
    runtime: Runtime
    converter: Part | None = None
    facts: Part | None = None
    flops: Part | None = None
    intermediates: Part | None = None
    program: Part | None = None
    emulator: Part | None = None
    options: frozenset[str] = frozenset()
    integers: Literal["int32", "int64"] = "int64"  # dtype of ids, masks and token types
    files: tuple[str, ...] = ()
    own_modules: bool = False  # whether it can convert a user's own module
    directories: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()  # its file formats, if there are several
    other_runtimes: tuple[Runtime, ...] = ()

    @property
    def runtimes(self) -> tuple[Runtime, ...]:
        """Every runtime that runs its files; its own is the first."""
        return self.runtime, *self.other_runtimes


OPEN_IN_OPENVINO = Part("lxmert_export.runners.openvino.compiled:open_openvino", (OPENVINO,))
FIND_BF16 = Part("lxmert_export.runners.openvino.compiled:find_bf16", (OPENVINO,))
LACKS_BF16 = Part("lxmert_export.runners.openvino.compiled:lacks_bf16", (OPENVINO,))
OPEN_IN_CUDA = Part("lxmert_export.runners.onnx.cuda.opening:open_cuda", (ONNXRUNTIME_GPU,))
FIND_CUDA = Part("lxmert_export.runners.onnx.cuda.opening:find_cuda", (ONNXRUNTIME_GPU,))
LACKS_CUDA = Part("lxmert_export.runners.onnx.cuda.opening:lacks_cuda", (ONNXRUNTIME_GPU,))
LACKS_GPU = Part("lxmert_export.runners.onnx.cuda.opening:lacks_gpu", (ONNXRUNTIME,))
GPU_FACTS = Part("lxmert_export.runners.onnx.cuda.opening:gpu_facts", (ONNXRUNTIME_GPU,))

TARGETS: dict[str, Target] = {
    row.name: row
    for row in (
        Target(
            "onnx",
            "ONNX",
            ("fp32", "fp16", "bf16", "int8"),
            Runtime(
                "onnxruntime",
                Part("lxmert_export.runners.onnx.session:open_onnx", (ONNXRUNTIME,)),
                describes=GPU_FACTS,
                providers=True,
                threads=True,
                takes_cuda_files=True,
                cpu_widens=("fp16",),
                cpu_lacks=("bf16",),
            ),
            converter=Part("lxmert_export.exporting.targets:convert_to_onnx", (TORCH, ONNX, ONNXSCRIPT)),
            facts=Part("lxmert_export.graphs.onnx_facts:read_facts", (ONNX, ONNX_IR)),
            flops=Part("lxmert_export.graphs.onnx_flops:count_flops", (ONNX, ONNX_IR)),
            program=Part("lxmert_export.artifact.programs.onnx:check_program", ()),
            intermediates=Part("lxmert_export.runners.onnx.intermediates:open_intermediates", (ONNXRUNTIME, ONNX_IR)),
            emulator=Part("lxmert_export.runners.onnx.emulator:open_emulator", (ONNXRUNTIME, ONNX_IR)),
            options=frozenset(
                {
                    "opset",
                    "io_dtype",
                    "fp32_islands",
                    "attention",
                    "optimize_for",
                    "single_file",
                    "split",
                    "without_families",
                    "calibration",
                    "questions",
                    "int8_range",
                    "int8_keep",
                }
            ),
            files=("model.onnx",),
            own_modules=True,
            other_runtimes=(
                Runtime("openvino", OPEN_IN_OPENVINO, threads=True, cpu_widens=("fp16", "bf16")),
                Runtime(
                    "openvino-bf16", OPEN_IN_OPENVINO, FIND_BF16, LACKS_BF16, threads=True, rounds={"fp32": "bf16"}
                ),
                Runtime(
                    "cuda",
                    OPEN_IN_CUDA,
                    FIND_CUDA,
                    LACKS_CUDA,
                    GPU_FACTS,
                    cuda_graphs=True,
                    device="GPU",
                    settings=("TF32 off",),
                    takes_cuda_files=True,
                    widens_int8=True,
                ),
                Runtime(
                    "cuda-tf32",
                    OPEN_IN_CUDA,
                    FIND_CUDA,
                    LACKS_CUDA,
                    GPU_FACTS,
                    cuda_graphs=True,
                    device="GPU",
                    takes_cuda_files=True,
                    stands_in=LACKS_GPU,
                    rounds={"fp32": "tf32"},
                ),
            ),
        ),
        Target(
            "tensorflow",
            "TensorFlow",
            ("fp32", "fp16"),
            Runtime(
                "tensorflow",
                Part("lxmert_export.runners.tensorflow.opening:open_tensorflow", (TENSORFLOW,)),
                device=None,
            ),
            converter=Part("lxmert_export.exporting.targets:convert_to_tensorflow", (TORCH, TENSORFLOW)),
            facts=Part("lxmert_export.graphs.tensorflow_facts:read_facts", (TENSORFLOW,)),
            flops=Part("lxmert_export.runners.tensorflow.flops:count_flops", (TENSORFLOW,)),
            program=Part("lxmert_export.artifact.programs.tensorflow:check_program", ()),
            intermediates=Part("lxmert_export.runners.tensorflow.intermediates:open_intermediates", (TENSORFLOW,)),
            options=frozenset({"file_format"}),
            integers="int32",
            files=("saved_model/saved_model.pb", "model.keras"),
            directories=("saved_model",),
            formats=("SavedModel", ".keras"),
        ),
        Target(
            "tflite",
            "TFLite",
            ("fp32", "fp16", "int8"),
            Runtime("litert", Part("lxmert_export.runners.tflite.litert:open_tflite", (LITERT,)), threads=True),
            converter=Part("lxmert_export.exporting.targets:convert_to_tflite", (TORCH, TENSORFLOW, LITERT)),
            facts=Part("lxmert_export.graphs.tflite_facts:read_facts", (LITERT,)),
            flops=Part("lxmert_export.graphs.tflite_flops:count_flops", (LITERT,)),
            program=Part("lxmert_export.artifact.programs.tflite:check_program", ()),
            intermediates=Part("lxmert_export.runners.tflite.intermediates:open_intermediates", (LITERT,)),
            options=frozenset({"full_integer", "calibration", "questions"}),
            integers="int32",
            files=("model.tflite",),
        ),
        Target(
            "tensorrt",
            "TensorRT",
            ("fp32", "fp16", "bf16", "int8"),
            Runtime(
                "tensorrt",
                # The engine decides which of two libraries is needed: the functions themselves raise MissingExtra.
                Part("lxmert_export.runners.tensorrt.opening:open_engine", ()),
                finds=Part("lxmert_export.runners.tensorrt.opening:find_engine", ()),
                device="GPU",
            ),
            files=("model.engine",),
        ),
    )
}
