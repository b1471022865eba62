"""Counts the operations that an artifact's file computes, as the file says; what is counted: ``spec/flops.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxmert_export.artifact.directory import Artifact
from lxmert_export.native_logs import quiet_native_logs
from lxmert_export.spec.flops import model_flops, sizes_of_call, usual_sizes
from lxmert_export.spec.halves import HALVES, Half


def flops_of(artifact: Artifact, given: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Returns {sizes, file, checkpoint}: both counts at the usual sizes, but for those given; errors as of ``count_flops``.

    Of a split artifact also ``vision`` and ``question``, those of its halves: an image of several questions costs its half once.
    """
    manifest = artifact.manifest
    sizes = {**usual_sizes(manifest.signature, manifest.config), **(given or {})}
    counted = count_flops(artifact, sizes)
    checkpoint = model_flops(manifest.config, manifest.signature, sizes)
    flops = {"sizes": sizes, "file": counted, "checkpoint": checkpoint}
    halves = () if artifact.halves is None else HALVES
    return {**flops, **{half: count_flops(artifact, sizes, half=half) for half in halves}}


def count_flops(artifact: Artifact, sizes: Mapping[str, int], *, half: Half | None = None) -> int | None:
    """Returns the operations of one call with given sizes of ``batch``, ``text`` and ``objects``: 2·m·n·k a matmul, no other.

    ``half``: of that half of a split artifact. None: an engine, which only its GPU can read; the library that reads the file is
    not installed; or a size inside is known only when the file runs, as it can be in a module of the user's own. ``InputError``:
    a size is missing, below 1, or fixed at another one. ``ArtifactError``: the file cannot be read.
    """
    sizes = sizes_of_call(artifact.manifest.signature, artifact.manifest.config, sizes)
    reader = artifact.target.flops
    if reader is None or not reader.is_installed:
        return None
    with quiet_native_logs():
        counted: int | None = reader.load()(artifact, sizes, **({} if half is None else {"half": half}))
    return counted
