"""Opens an artifact in the runtime of its target; the runtime is imported only then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lxmert_export.artifact.directory import Artifact
from lxmert_export.errors import ArtifactError
from lxmert_export.extras import require
from lxmert_export.parity.recording import Arithmetic
from lxmert_export.runners.onnx.providers import CPU, computes_in
from lxmert_export.runners.runner import Runner


def judged_ways(
    artifact: Artifact, providers: Sequence[str], *, emulate: bool = True, threads: int | None = None
) -> list[tuple[Arithmetic, Callable[[], Runner]]]:
    """Returns the ways to run an artifact for judging: the arithmetic, and a function that opens the runner.

    | the runtime, with these providers, …    | ways                                                                  |
    |-----------------------------------------|-----------------------------------------------------------------------|
    | computes in the artifact's precision    | ``native``                                                            |
    | computes this precision in float32      | ``cpu-fp32-arithmetic``, and ``emulated`` unless ``emulate`` is False |
    | has no kernels for this precision       | ``emulated``                                                          |

    On a CPU, onnxruntime computes fp16 in float32 and has no kernels for bf16.
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
    """Opens an artifact in its own runtime; without ``threads`` the runtime chooses their number.

    ``MissingExtra``: the runtime is not installed (the message has the line that installs it). ``ArtifactError``: the
    target takes no ``threads``. ``BuiltNotRun``: an engine that cannot be run here.
    """
    target = artifact.target
    if threads is not None and not target.runtime.threads:
        raise ArtifactError(
            f"{artifact.path}: a runner of target {target.name!r} takes no number of threads: leave the number out"
        )
    require(f"running {target.title} artifacts", *target.runtime.opens.needs)
    runner: Runner = _opened(artifact, lambda: target.runtime.opens.load()(artifact, providers, threads))
    runner.artifact = artifact
    return runner


def check_runnable(artifact: Artifact) -> None:
    """Checks that an artifact can be run here, without importing its runtime.

    ``MissingExtra``: the runtime is not installed. ``BuiltNotRun``: an engine, and there is no GPU for it.
    """
    target = artifact.target
    require(f"running {target.title} artifacts", *target.runtime.opens.needs)
    if target.runtime.finds is not None:
        target.runtime.finds.load()(artifact)


def open_emulator(artifact: Artifact, *, threads: int | None = None) -> Runner:
    """Opens the artifact's own graph on the CPU, with every half-precision result rounded.

    ``ArtifactError``: artifacts of this target cannot be emulated. ``MissingExtra``: the emulator needs a package.
    """
    emulator = artifact.target.emulator
    if emulator is None:
        raise ArtifactError(f"{artifact.path}: {artifact.manifest.target} artifacts cannot be emulated")
    require(f"emulating {artifact.manifest.precision} on a CPU", *emulator.needs)
    return _opened(artifact, lambda: emulator.load()(artifact, threads))


def _opened(artifact: Artifact, load: Callable[[], Runner]) -> Runner:
    """``ArtifactError``: another run replaced the artifact while its runtime read it."""
    runner = None
    try:
        with artifact.unreplaced():
            runner = load()
    except ArtifactError:
        if runner is not None:
            runner.close()
        raise
    return runner
