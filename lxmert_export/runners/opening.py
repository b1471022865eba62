"""Opens an artifact in the runtime of its target, which is imported only then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.extras import require
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.parity.recording import Arithmetic
from lxmert_export.runners.onnx.providers import CPU, computes_in
from lxmert_export.runners.runner import Runner


def judged_ways(
    artifact: Artifact, providers: Sequence[str], *, emulate: bool = True, threads: int | None = None
) -> list[tuple[Arithmetic, Callable[[], Runner]]]:
    """The ways in which an artifact is run to be judged, each with what its arithmetic proves.

    | its runtime, with these providers  | ways                                                             |
    |------------------------------------|------------------------------------------------------------------|
    | computes in the precision          | ``native``                                                       |
    | computes it in float32 (fp16)      | ``cpu-fp32-arithmetic``, and ``emulated`` unless ``emulate`` is False |
    | has no kernels for it (bf16)       | ``emulated``                                                     |
    """
    precision, runtime = artifact.manifest.precision, artifact.target.runtime
    if precision not in (*runtime.cpu_widens, *runtime.cpu_lacks) or computes_in(precision, providers):
        return [("native", lambda: open_runner(artifact, providers=providers, threads=threads))]
    ways: list[tuple[Arithmetic, Callable[[], Runner]]] = []
    if precision in runtime.cpu_widens:
        ways.append(("cpu-fp32-arithmetic", lambda: open_runner(artifact, providers=providers, threads=threads)))
    if emulate or not ways:
        ways.append(("emulated", lambda: open_emulator(artifact, threads=threads)))
    return ways


def open_runner(artifact: Artifact, *, providers: Sequence[str] = (CPU,), threads: int | None = None) -> Runner:
    """The artifact in its own runtime; ``threads`` left out is what the runtime likes best.

    ``MissingExtra``: it is not installed, with the line that installs it. ``ArtifactError``: the target takes no ``threads``.
    ``BuiltNotRun``: an engine that cannot be run here.
    """
    target = artifact.target
    if threads is not None and not target.runtime.threads:
        raise ArtifactError(
            f"{artifact.path}: a runner of target {target.name!r} takes no number of threads: leave it out"
        )
    check_runnable(artifact)
    with quiet_native_logs():
        runner: Runner = target.runtime.opens.load()(artifact, providers, threads)
    return runner


def check_runnable(artifact: Artifact) -> None:
    """``MissingExtra`` where its runtime is not installed; ``BuiltNotRun``: an engine, and no GPU for it. Imports no runtime."""
    target = artifact.target
    require(f"running {target.title} artifacts", *target.runtime.opens.needs)
    if target.runtime.finds is not None:
        target.runtime.finds.load()(artifact)


def open_emulator(artifact: Artifact, *, threads: int | None = None) -> Runner:
    """The artifact's own graph with every half-precision result rounded, on the CPU."""
    emulator = artifact.target.emulator
    if emulator is None:
        raise ArtifactError(f"{artifact.path}: {artifact.manifest.target} artifacts cannot be emulated")
    require(f"emulating {artifact.manifest.precision} on a CPU", *emulator.needs)
    runner: Runner = emulator.load()(artifact, threads)
    return runner
