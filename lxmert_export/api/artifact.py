"""Artifacts in Python: opened for running."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lxmert_export.artifact.directory import Artifact, open_artifact
from lxmert_export.errors import InputError
from lxmert_export.runners.onnx.providers import CPU
from lxmert_export.runners.opening import open_runner
from lxmert_export.runners.runner import Runner


def load_artifact(path: str | Path, *, providers: Sequence[str] = (CPU,)) -> Runner:
    """Opens an artifact for running, after its sizes and hashes are checked; a context manager."""
    artifact = open_artifact(path)
    check_providers([artifact], providers)
    return open_runner(artifact, providers=providers)


def check_providers(artifacts: Sequence[Artifact], providers: Sequence[str]) -> None:
    """``InputError`` where none takes a provider: whoever names one must not believe that it was judged on."""
    if tuple(providers) != (CPU,) and not any(artifact.target.runtime.providers for artifact in artifacts):
        raise InputError(
            f"{artifacts[0].path}: providers (--provider) are onnxruntime's, and this is no ONNX artifact: leave them out"
        )
