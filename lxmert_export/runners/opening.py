"""Opens an artifact in the runtime of its target; the runtime is imported only then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lxmert_export.artifact.directory import IN_RUNTIME, Artifact
from lxmert_export.artifact.targets import Part
from lxmert_export.errors import ArtifactError, InputError
from lxmert_export.extras import require
from lxmert_export.option_names import option
from lxmert_export.parity.recording import Arithmetic
from lxmert_export.runners.onnx.providers import CPU, CUDA, computes_in
from lxmert_export.runners.runner import Runner

# A way to run an artifact: the arithmetic, and a function that opens the runner.
Way = tuple[Arithmetic, Callable[[], Runner]]


def judged_ways(
    artifact: Artifact, providers: Sequence[str], *, emulate: bool = True, threads: int | None = None
) -> list[Way]:
    """Returns the ways to run an artifact for judging: the arithmetic, and a function that opens the runner.

    | the runtime, with these providers, …    | ways                                                                  |
    |-----------------------------------------|-----------------------------------------------------------------------|
    | computes in the artifact's precision    | ``native``                                                            |
    | computes this precision in float32      | ``cpu-fp32-arithmetic``, and ``emulated`` unless ``emulate`` is False |
    | has no kernels for this precision       | ``emulated``; so are packed attentions (``--optimize-for cuda``)      |
    | rounds this precision to another        | ``native``, and ``emulated`` as its prediction, unless … is False     |
    | … and its device is missing here        | ``emulated``, if the runtime allows it (``stands_in``)                |

    On a CPU, onnxruntime computes fp16 in float32 and has no kernels for bf16.
    """
    precision, runtime = artifact.manifest.precision, artifact.runtime
    if precision in runtime.rounds:
        ways: list[Way] = [("native", lambda: open_runner(artifact, threads=threads))]
        ways = [] if is_stood_in_for(artifact) else ways
        return [*ways, ("emulated", lambda: open_emulator(artifact, threads=threads))] if emulate or not ways else ways
    if precision not in (*runtime.cpu_widens, *runtime.cpu_lacks) or _has_kernels(artifact, providers):
        return [("native", lambda: open_runner(artifact, providers=providers, threads=threads))]
    ways = []
    if precision in runtime.cpu_widens and not artifact.needs_cuda:
        ways.append(("cpu-fp32-arithmetic", lambda: open_runner(artifact, providers=providers, threads=threads)))
    if emulate or not ways:
        ways.append(("emulated", lambda: open_emulator(artifact, threads=threads)))
    return ways


def answering_way(artifact: Artifact, providers: Sequence[str], *, threads: int | None = None) -> Way:
    """Returns the way to run an artifact for its answers: its runtime, or the emulator if a CPU has no kernels for bf16.

    ``ArtifactError``: as ``check_answers``.
    """
    _check_kernels(artifact, providers)
    return judged_ways(artifact, providers, emulate=False, threads=threads)[0]


def open_runner(
    artifact: Artifact,
    *,
    providers: Sequence[str] = (CPU,),
    threads: int | None = None,
    cuda_graph: bool | None = None,
) -> Runner:
    """Opens an artifact in the runtime that it is to run in; without ``threads`` the runtime chooses their number.

    ``cuda_graph``: whether each call is captured as a CUDA graph and replayed; None: the runtime chooses. ``MissingExtra``: the
    runtime is not installed (the message has the line that installs it). ``ArtifactError``: the target takes no ``threads``, or
    the first provider has no kernels for packed attentions.
    ``InputError``: the runtime has no CUDA graphs. ``BuiltNotRun``: an engine that cannot be run here.
    """
    target, runtime = artifact.target, artifact.runtime
    if threads is not None and not runtime.threads:
        raise ArtifactError(
            f"{artifact.path}: a runner of target {target.name!r} takes no number of threads: leave the number out"
        )
    if cuda_graph is not None and not runtime.cuda_graphs:
        raise InputError(
            f"{artifact.path}: {runtime.name} has no CUDA graphs: leave {option('cuda_graph')} out, or run it {IN_RUNTIME}cuda"
        )
    _check_kernels(artifact, providers)
    require(_running(artifact), *runtime.opens.needs)
    chosen = {"cuda_graph": cuda_graph} if runtime.cuda_graphs else {}
    runner: Runner = _opened(artifact, lambda: runtime.opens.load()(artifact, providers, threads, **chosen))
    runner.artifact = artifact
    return runner


def check_takes_providers(artifacts: Sequence[Artifact], providers: Sequence[str]) -> None:
    """``InputError``: ``providers`` were given, but none of the artifacts takes any. They must not be ignored silently."""
    if tuple(providers) != (CPU,) and not any(artifact.runtime.providers for artifact in artifacts):
        raise InputError(
            f"{artifacts[0].path}: {option('providers')} is for ONNX artifacts in onnxruntime, and this one runs in "
            f"{artifacts[0].runtime.name}: leave it out"
        )


def is_stood_in_for(artifact: Artifact) -> bool:
    """Whether its runtime's device is missing here, and the emulator is judged in its place."""
    runtime = artifact.runtime
    if runtime.stands_in is None or artifact.manifest.precision not in runtime.rounds:
        return False
    return runtime.stands_in.is_installed and runtime.stands_in.load()() is not None


def check_judgeable(artifact: Artifact) -> None:
    """Checks that an artifact can be judged by a checkpoint here: that it can be run, or emulated in its runtime's place.

    ``MissingExtra``: the runtime is not installed. ``BuiltNotRun``: it needs a device that is missing here.
    """
    if is_stood_in_for(artifact):
        _emulator_of(artifact)
    else:
        check_runnable(artifact)


def check_runnable(artifact: Artifact) -> None:
    """Checks that an artifact can be run here, without importing its runtime.

    ``MissingExtra``: the runtime is not installed. ``BuiltNotRun``: an engine, and there is no GPU for it.
    """
    runtime = artifact.runtime
    require(_running(artifact), *runtime.opens.needs)
    if runtime.finds is not None:
        runtime.finds.load()(artifact)


def check_answers(artifact: Artifact, providers: Sequence[str]) -> None:
    """Checks that an artifact can be run for its answers here, before anything else is read.

    ``ArtifactError``: the first provider has no kernels for packed attentions. Other errors: as of ``check_runnable``.
    """
    _check_kernels(artifact, providers)
    check_runnable(artifact)


def _check_kernels(artifact: Artifact, providers: Sequence[str]) -> None:
    """``ArtifactError``: packed attentions, and a provider without kernels for them. The emulator is for judging them alone."""
    if artifact.needs_cuda and artifact.runtime.providers and not _has_kernels(artifact, providers):
        raise ArtifactError(
            f"{artifact.path}: was made with {option('optimize_for', 'cuda')}, and {providers[0]} has no kernels for its packed "
            f"attentions: run it {IN_RUNTIME}cuda, on an NVIDIA GPU (verify and parity emulate it without one)"
        )


def _has_kernels(artifact: Artifact, providers: Sequence[str]) -> bool:
    """Whether the first provider computes the artifact's operators in its precision."""
    return computes_in(artifact.manifest.precision, providers) and (not artifact.needs_cuda or providers[0] == CUDA)


def _running(artifact: Artifact) -> str:
    chosen = "" if artifact.runtime_name is None else f" in {artifact.runtime_name}"
    return f"running {artifact.target.title} artifacts{chosen}"


def open_emulator(artifact: Artifact, *, threads: int | None = None) -> Runner:
    """Opens the artifact's own graph on the CPU, with every half-precision result rounded.

    ``ArtifactError``: artifacts of this target cannot be emulated. ``MissingExtra``: the emulator needs a package.
    """
    return _opened(artifact, lambda: _emulator_of(artifact).load()(artifact, threads))


def _emulator_of(artifact: Artifact) -> Part:
    emulator = artifact.target.emulator
    if emulator is None:
        raise ArtifactError(f"{artifact.path}: {artifact.manifest.target} artifacts cannot be emulated")
    require(f"emulating {artifact.computed_precision} on a CPU", *emulator.needs)
    return emulator


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
