"""Opening an artifact to run it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lxmert_export.artifact.directory import IN_RUNTIME, open_artifact, open_named, split_runtime
from lxmert_export.errors import ArtifactError
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.opening import check_takes_providers, open_runner
from lxmert_export.runners.runner import Runner

LOGGER = logging.getLogger(__name__)


def load_artifact(
    path: str | Path,
    *,
    runtime: str | None = None,
    providers: Sequence[str] = (CPU,),
    cuda_graph: bool | None = None,
) -> Runner:
    """Opens an artifact to run it. Use the returned runner in a ``with`` statement, which closes it.

    The sizes and hashes of all files are checked first. ``runtime`` is what runs it (``openvino``), as in ``DIR@openvino``;
    default: its target's own. ``providers`` are execution providers of onnxruntime, in order of preference; only onnxruntime
    takes them. ``cuda_graph`` (``runtime="cuda"``): whether each call is captured as a CUDA graph and replayed; None: if all axes
    are fixed.

    Errors: ``ArtifactError``: not an artifact directory, a file is missing or changed, or no such ``runtime`` runs it.
    ``InputError``: ``providers`` for another runtime than onnxruntime, or a CUDA graph of dynamic axes. ``MissingExtra``: its
    runtime is not installed.
    ``BuiltNotRun``: an engine, bf16, or a runtime on a GPU, that cannot run here.
    """
    if runtime is not None and split_runtime(path)[1] is not None:
        raise ArtifactError(
            f"{path}: names its runtime already: leave runtime={runtime!r} out, or what follows {IN_RUNTIME}"
        )
    artifact = open_named(path) if runtime is None else open_artifact(path).in_runtime(runtime)
    check_takes_providers([artifact], providers)
    if artifact.manifest.parity is not None and not artifact.manifest.parity["passed"]:
        LOGGER.warning("%s: failed its parity gate and was kept for a look: its outputs are wrong", path)
    return open_runner(artifact, providers=providers, cuda_graph=cuda_graph)
