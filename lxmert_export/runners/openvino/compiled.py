"""Runs an ONNX file with OpenVINO on a CPU, in float32 or in the CPU's own bf16."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lxmert_export.artifact.directory import IN_RUNTIME, Artifact
from lxmert_export.artifact.targets import Lack
from lxmert_export.errors import ArtifactError, BuiltNotRun
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.runners.openvino.library import import_openvino
from lxmert_export.runners.runner import Runner
from lxmert_export.runners.split import open_whole_or_split
from lxmert_export.spec.inputs import Arrays, InputLimits
from lxmert_export.spec.signature import Signature

CPU = "CPU"
# What OpenVINO is told to compute in, and the names that it gives these types in a compiled model.
HINTS = {"fp32": "f32", "bf16": "bf16"}
# OpenVINO's names of the layers that multiply matrices. They are the ones that a lower precision is for.
MATMULS = frozenset({"FullyConnected", "MatMul", "ScaledDotProductAttention", "ScaledDotProductAttentionWithKVCache"})
INTEGERS = ("i8", "u8")
BF16_CAPABILITY = "BF16"


class OpenVinoRunner(Runner):
    """Runs an ONNX file under a signature, compiled by OpenVINO for this CPU.

    ``computed``: ``fp32`` or ``bf16``. ``quantized``: its file holds int8, so matmuls may compute in it. ``ArtifactError``:
    OpenVINO cannot load the file, or would compute in another precision: a CPU without bf16 would silently compute in float32.
    """

    failures = (RuntimeError, ValueError, TypeError)

    def __init__(
        self,
        path: Path,
        signature: Signature,
        limits: InputLimits,
        *,
        computed: str = "fp32",
        quantized: bool = False,
        threads: int | None = None,
        name: str = "openvino",
    ) -> None:
        super().__init__(name, signature, limits)
        library = import_openvino()
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[computed],
            "INFERENCE_NUM_THREADS": threads or os.cpu_count() or 1,
            "NUM_STREAMS": 1,  # one call at a time has all threads
        }
        try:
            with quiet_native_logs():
                core = library.Core()
                compiled = core.compile_model(core.read_model(str(path)), CPU, settings)
                self._request: Any = compiled.create_infer_request()
        except (RuntimeError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path}: OpenVINO cannot load it: {last_line(error)}") from error
        _check_computes(compiled, computed, path, INTEGERS if quantized else ())
        self._taken = {name for port in compiled.inputs for name in port.get_names()}
        self._ports = {
            spec.name: port for spec in signature.outputs for port in compiled.outputs if spec.name in port.get_names()
        }

    def compute(self, inputs: Arrays) -> Arrays:
        given = {name: array for name, array in inputs.items() if name in self._taken}
        results = self._request.infer(given, share_inputs=True)
        return {name: results[port] for name, port in self._ports.items()}

    def release(self) -> None:
        del self._request, self._ports


def open_openvino(artifact: Artifact, providers: Sequence[str], threads: int | None) -> Runner:
    """Opens the runner of an ONNX artifact. ``BuiltNotRun``: it is to be run in bf16, as ``find_bf16``."""
    manifest, rounds = artifact.manifest, artifact.runtime.rounds
    if rounds:
        find_bf16(artifact)
    computed = rounds.get(manifest.precision, "fp32")

    def opened(file: Path, signature: Signature) -> Runner:
        return OpenVinoRunner(
            file, signature, manifest.limits, computed=computed, quantized=artifact.is_static_int8, threads=threads,
            name=artifact.name,
        )  # fmt: skip

    return open_whole_or_split(artifact, opened)


def find_bf16(artifact: Artifact) -> None:
    """Checks that an artifact can be run in bf16 here.

    ``BuiltNotRun``: the CPU has no bf16 arithmetic. ``ArtifactError``: the artifact is half-precision already.
    """
    precision, runtime = artifact.manifest.precision, artifact.runtime
    if precision not in runtime.rounds:
        raise ArtifactError(
            f"{artifact.path}: {runtime.name} runs {' and '.join(runtime.rounds)} artifacts, and this is {precision}: export it "
            f"again without --{precision}, or run it {IN_RUNTIME}openvino"
        )
    if lack := lacks_bf16():
        raise BuiltNotRun(
            f"{artifact.named(str(artifact.path))}: {lack.reason}: run it {IN_RUNTIME}openvino, in float32"
        )


def lacks_bf16() -> Lack | None:
    """Returns why this CPU does not compute in bf16; None if it does."""
    core = import_openvino().Core()
    if BF16_CAPABILITY in core.get_property(CPU, "OPTIMIZATION_CAPABILITIES"):
        return None
    name = core.get_property(CPU, "FULL_DEVICE_NAME").strip()
    return Lack(f"this CPU ({name}) has no bf16 arithmetic, which needs AVX512_BF16 or AMX", "another CPU")


def last_line(error: BaseException) -> str:
    """Returns the last line of an error's message: OpenVINO's first lines name places in its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _check_computes(compiled: Any, computed: str, path: Path, whole: Sequence[str] = ()) -> None:
    """Checks that the compiled model computes in the precision that was asked for.

    ``ArtifactError``: a matrix multiplication that OpenVINO shows is in another one, or it shows none and was asked to round.
    """
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        if facts["layerType"].value in MATMULS:
            counts[facts["runtimePrecision"].value] += 1
    if odd := {precision: count for precision, count in counts.items() if precision not in (HINTS[computed], *whole)}:
        found = ", ".join(f"{count} in {precision}" for precision, count in odd.items())
        raise ArtifactError(
            f"{path}: OpenVINO computes {found} of {counts.total()} matrix multiplications, not {computed}"
        )
    if computed != "fp32" and not counts:
        raise ArtifactError(
            f"{path}: OpenVINO shows no matrix multiplication of its compiled model: whether it computes in {computed} is unknown"
        )
