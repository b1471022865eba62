"""Opening an artifact to run it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lxmert_export.artifact.directory import Artifact, open_artifact
from lxmert_export.errors import InputError
from lxmert_export.option_names import option
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.opening import open_runner
from lxmert_export.runners.runner import Runner

LOGGER = logging.getLogger(__name__)


def load_artifact(path: str | Path, *, providers: Sequence[str] = (CPU,)) -> Runner:
    """Opens an artifact to run it. Use the returned runner in a ``with`` statement, which closes it.

    The sizes and hashes of all files are checked first. ``providers`` are execution providers of onnxruntime, in order of
    preference; only ONNX artifacts take them.

    Errors: ``ArtifactError``: not an artifact directory, or a file is missing or changed. ``InputError``: ``providers`` for an
    artifact that is not ONNX. ``MissingExtra``: its runtime is not installed. ``BuiltNotRun``: an engine that cannot run here.
    """
    artifact = open_artifact(path)
    check_providers([artifact], providers)
    if artifact.manifest.parity is not None and not artifact.manifest.parity["passed"]:
        LOGGER.warning("%s: failed its parity gate and was kept for a look: its outputs are wrong", path)
    return open_runner(artifact, providers=providers)


def check_providers(artifacts: Sequence[Artifact], providers: Sequence[str]) -> None:
    """``InputError``: ``providers`` were given, but none of the artifacts takes any. They must not be ignored silently."""
    if tuple(providers) != (CPU,) and not any(artifact.target.runtime.providers for artifact in artifacts):
        raise InputError(
            f"{artifacts[0].path}: {option('providers')} is for ONNX artifacts, and this is not one: leave it out"
        )
