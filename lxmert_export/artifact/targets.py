"""One row a target: its precisions, its options, and where its code lives. Data alone; a new target is a new row.

Code is named as ``module:function`` and imported when it is first called: nobody needs the frameworks of other targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from lxmert_export.extras import LITERT, ONNX, ONNX_IR, ONNXRUNTIME, ONNXSCRIPT, TENSORFLOW, TORCH, Library, missing
from lxmert_export.spec.signature import Precision


@dataclass(frozen=True)
class Part:
    """A function of a target, and the libraries that it needs."""

    place: str  # module:function
    needs: tuple[Library, ...]

    def load(self) -> Callable[..., Any]:
        """Imports the function."""
        module, _, name = self.place.partition(":")
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function

    @property
    def is_installed(self) -> bool:
        """Whether all that it needs is installed; nothing is imported."""
        return not missing(self.needs)


@dataclass(frozen=True)
class Runtime:
    """What runs the files of a target.

    ``opens`` (artifact, providers, threads) gives a ``Runner``. ``finds`` (artifact) raises ``BuiltNotRun`` or ``MissingExtra``
    where something beside libraries is needed and is not here, such as a GPU. ``providers`` and ``threads`` say whether these can
    be chosen. On a CPU it computes ``cpu_widens`` precisions in float32 and has no kernels for ``cpu_lacks``: artifacts of both
    are judged through the target's emulator.
    """

    name: str
    opens: Part
    finds: Part | None = None
    providers: bool = False
    threads: bool = False
    cpu_widens: tuple[Precision, ...] = ()
    cpu_lacks: tuple[Precision, ...] = ()


@dataclass(frozen=True)
class Target:
    """One row.

    ``options`` names those of ``lx.export`` that only some targets have. ``converter`` (model, options, signature, directory,
    progress) writes files and gives the manifest's options; None where another command builds it. ``facts`` (artifact) gives the
    ``GraphFacts`` of its file, or None where nothing reads it. ``intermediates`` (artifact, points) gives a runner of what flows
    inside. ``emulator`` (artifact, threads) gives a runner that rounds every result to half precision. ``directories`` are read
    whole by the runtime: no file may lie there that the manifest does not list.
    """

    name: str
    title: str
    precisions: tuple[Precision, ...]
    runtime: Runtime
    converter: Part | None = None
    facts: Part | None = None
    intermediates: Part | None = None
    emulator: Part | None = None
    options: frozenset[str] = frozenset()
    integers: Literal["int32", "int64"] = "int64"  # of ids, masks and token types
    own_modules: bool = False  # whether it takes modules of a user's own
    directories: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()  # of its files, where there are several


TARGETS: dict[str, Target] = {
    row.name: row
    for row in (
        Target(
            "onnx",
            "ONNX",
            ("fp32", "fp16", "bf16"),
            Runtime(
                "onnxruntime",
                Part("lxmert_export.runners.onnx.session:open_onnx", (ONNXRUNTIME,)),
                providers=True,
                threads=True,
                cpu_widens=("fp16",),
                cpu_lacks=("bf16",),
            ),
            converter=Part("lxmert_export.exporting.targets:convert_to_onnx", (TORCH, ONNX, ONNXSCRIPT)),
            facts=Part("lxmert_export.graphs.onnx_facts:read_facts", (ONNX, ONNX_IR)),
            intermediates=Part("lxmert_export.runners.onnx.intermediates:open_intermediates", (ONNXRUNTIME, ONNX_IR)),
            emulator=Part("lxmert_export.runners.onnx.emulator:open_emulator", (ONNXRUNTIME, ONNX_IR)),
            options=frozenset({"opset", "io_dtype", "fp32_islands", "attention"}),
            own_modules=True,
        ),
        Target(
            "tensorflow",
            "TensorFlow",
            ("fp32", "fp16"),
            Runtime("tensorflow", Part("lxmert_export.runners.tensorflow.opening:open_tensorflow", (TENSORFLOW,))),
            converter=Part("lxmert_export.exporting.targets:convert_to_tensorflow", (TORCH, TENSORFLOW)),
            facts=Part("lxmert_export.graphs.tensorflow_facts:read_facts", (TENSORFLOW,)),
            intermediates=Part("lxmert_export.runners.tensorflow.intermediates:open_intermediates", (TENSORFLOW,)),
            options=frozenset({"file_format"}),
            integers="int32",
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
            intermediates=Part("lxmert_export.runners.tflite.intermediates:open_intermediates", (LITERT,)),
            options=frozenset({"full_integer", "calibration"}),
            integers="int32",
        ),
        Target(
            "tensorrt",
            "TensorRT",
            ("fp32", "fp16", "bf16"),
            Runtime(
                "tensorrt",
                # Which of the two libraries is needed depends on the engine: the functions say so themselves.
                Part("lxmert_export.runners.tensorrt.opening:open_engine", ()),
                finds=Part("lxmert_export.runners.tensorrt.opening:find_engine", ()),
            ),
        ),
    )
}
